//! The clock of recordings whose timestamps start again: transport streams and the like that were joined end to end, or
//! whose encoder was restarted. Where in the file that happens is found once, by the probe; every task then reads the
//! same continuous time.

use ff::format::context::Input;
use ffmpeg_next as ff;
use lyceum_packaging::info::TimeBreak;

use super::ffi;
use super::timestamp::micros;

/// Containers whose clock may start again in the middle: they can be joined byte by byte.
const JOINABLE: &[&str] = &["mpegts", "mpeg", "flv"];
/// Files up to this size are read through; of larger ones places are looked at first.
const READ_THROUGH: u64 = 64 << 20;
const PLACES: u64 = 64;
/// Packets that are read at a place to find a timestamp.
const PACKETS_AT_PLACE: usize = 400;
/// Time that goes back by more than this, or forward by more than that, started again. In microseconds.
const BACK_US: i64 = 500_000;
const FORWARD_US: i64 = 10_000_000;
/// A packet that is followed by the next within this part of its length has no room.
const SQUEEZED: i64 = 8;
/// From so much on time was lost, in microseconds.
const LOST_IN_A_ROW_US: i64 = 500_000;
/// The most breaks that are kept; a file with more is damaged, and its rest follows the last clock.
const MAX_BREAKS: usize = 1000;

/// Where each stretch of a file's time lies.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    breaks: Vec<TimeBreak>,
    /// The place of the last packet that had one: those without lie behind it.
    place: u64,
}

impl Clock {
    /// A clock with these breaks, by their places.
    pub(super) fn new(breaks: &[TimeBreak]) -> Self {
        Self { breaks: breaks.to_vec(), place: 0 }
    }

    /// Goes to the last place from which all that is shown at `at` can be read. Fails where the container can't.
    pub(super) fn seek(&mut self, input: &mut Input, at: i64) -> Result<(), ff::Error> {
        if self.breaks.is_empty() {
            return if at == i64::MIN { input.seek(0, ..) } else { input.seek(at, ..at) };
        }
        // Timestamps come more than once: the stretch that holds the instant is read from its first byte.
        self.place = self.breaks.iter().rev().find(|b| b.start_us <= at).map_or(0, |b| b.byte);
        ffi::seek_byte(input, self.place)
    }

    /// Puts a packet's times right.
    pub(super) fn mend(&mut self, packet: &mut ff::Packet, base: ff::Rational) {
        if self.breaks.is_empty() {
            return;
        }
        if let Ok(place) = u64::try_from(packet.position()) {
            self.place = place;
        }
        let shift = self.breaks.iter().rev().find(|b| b.byte <= self.place).map_or(0, |b| b.shift_us);
        let (num, den) = (i128::from(base.numerator()).max(1), i128::from(base.denominator()));
        let ticks = i64::try_from(i128::from(shift) * den / (num * 1_000_000)).unwrap_or(0);
        packet.set_pts(packet.pts().map(|pts| pts.saturating_add(ticks)));
        packet.set_dts(packet.dts().map(|dts| dts.saturating_add(ticks)));
    }
}

/// What is found of a file's clock.
#[derive(Default)]
pub(super) struct Found {
    /// Where time starts again.
    pub(super) breaks: Vec<TimeBreak>,
    /// How much of the picture its clock leaves no room for, in microseconds.
    pub(super) lost_us: i64,
}

/// Finds where time starts again among the packets of `streams`, the picture being the first where there is one. Nothing
/// for containers whose index rules. `open` opens the same file again.
pub(super) fn find<E>(
    input: &mut Input,
    streams: &[usize],
    size: u64,
    open: impl FnOnce() -> Result<Input, E>,
) -> Found {
    let joinable = JOINABLE.contains(&input.format().name());
    if joinable && size > READ_THROUGH && steady(input, streams, size) {
        return Found::default();
    }
    if !joinable && (size > READ_THROUGH || !input.format().name().starts_with("matroska")) {
        return Found::default();
    }
    if joinable {
        if ffi::seek_byte(input, 0).is_err() {
            return Found::default();
        }
        let found = read_through(input, streams, joinable);
        let _ = ffi::seek_byte(input, 0);
        return found;
    }
    // A recording without an index, as browsers make them, can't be wound back to its start.
    open().map_or_else(|_| Found::default(), |mut input| read_through(&mut input, streams, joinable))
}

/// Reads all packets from where `input` stands.
fn read_through(input: &mut Input, streams: &[usize], joinable: bool) -> Found {
    let mut lost = Lost::default();
    let mut found: Vec<TimeBreak> = Vec::new();
    let mut ends: Vec<(usize, i64)> = Vec::new();
    let mut clock = Clock::default();
    for (stream, mut packet) in input.packets() {
        let index = stream.index();
        if !streams.contains(&index) {
            continue;
        }
        let base = stream.time_base();
        clock.mend(&mut packet, base);
        let place = u64::try_from(packet.position()).unwrap_or(clock.place);
        let Some(at) = packet.dts().or(packet.pts()).map(|ticks| micros(ticks, base)) else { continue };
        let length = micros(packet.duration().max(0), base);
        let known = ends.iter_mut().find(|(stream, _)| *stream == index);
        let expected = known.as_ref().map_or(at, |(_, end)| *end);
        let broken = at < expected - BACK_US || at > expected + FORWARD_US;
        if joinable && broken && found.len() < MAX_BREAKS && found.last().is_none_or(|last| last.byte < place) {
            let start_us = ends.iter().map(|(_, end)| *end).max().unwrap_or(expected);
            let before = found.last().map_or(0, |last| last.shift_us);
            if streams.first() == Some(&index) {
                lost.step(start_us, length);
            }
            found.push(TimeBreak { byte: place, shift_us: before.saturating_add(start_us - at), start_us });
            clock = Clock { breaks: found.clone(), place };
            ends.iter_mut().filter(|(stream, _)| *stream == index).for_each(|(_, end)| *end = start_us + length);
            continue;
        }
        if streams.first() == Some(&index) {
            lost.step(at, length);
        }
        match ends.iter_mut().find(|(stream, _)| *stream == index) {
            Some((_, end)) => *end = (*end).max(at + length),
            None => ends.push((index, at + length)),
        }
    }
    Found { breaks: found, lost_us: lost.us }
}

/// Time that packets need and do not get: an encoder whose clock went back writes what comes then within a moment,
/// because containers want time to rise. A few frames that come too close say nothing.
#[derive(Default)]
pub(super) struct Lost {
    last: Option<(i64, i64)>,
    in_a_row: i64,
    /// What was lost in all, in microseconds.
    pub(super) us: i64,
}

impl Lost {
    /// The next packet is decoded at `at` and lasts `length`.
    pub(super) fn step(&mut self, at: i64, length: i64) {
        let Some((before, length)) = self.last.replace((at, length)) else { return };
        let step = at.saturating_sub(before);
        if step >= length / SQUEEZED {
            self.in_a_row = 0;
            return;
        }
        let missing = length.saturating_sub(step);
        self.in_a_row = self.in_a_row.saturating_add(missing);
        // The row counts as a whole from the moment on at which it is long enough.
        if self.in_a_row >= LOST_IN_A_ROW_US {
            let before = self.in_a_row - missing;
            self.us = self.us.saturating_add(if before < LOST_IN_A_ROW_US { self.in_a_row } else { missing });
        }
    }
}

/// Whether time only goes forward, and evenly, over places spread through the file.
fn steady(input: &mut Input, streams: &[usize], size: u64) -> bool {
    let mut times = Vec::new();
    for n in 0..PLACES {
        if ffi::seek_byte(input, size / PLACES * n).is_err() {
            return true;
        }
        let mut packets = input.packets().take(PACKETS_AT_PLACE).filter(|(s, _)| streams.first() == Some(&s.index()));
        times.extend(packets.find_map(|(s, p)| p.dts().or(p.pts()).map(|ticks| micros(ticks, s.time_base()))));
    }
    let mut steps: Vec<i64> = times.windows(2).filter_map(|w| Some(w.get(1)? - w.first()?)).collect();
    steps.sort_unstable();
    let usual = steps.get(steps.len() / 2).copied().unwrap_or(0);
    let (least, most) = (steps.first().copied().unwrap_or(0), steps.last().copied().unwrap_or(0));
    least >= -BACK_US && most <= usual.saturating_mul(8).max(FORWARD_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(steps: impl IntoIterator<Item = i64>) -> i64 {
        let (mut lost, mut at) = (Lost::default(), 0);
        for step in steps {
            lost.step(at, 40_000);
            at += step;
        }
        lost.us
    }

    #[test]
    fn a_clock_that_stands_still_loses_what_comes_then() {
        assert_eq!(lost(std::iter::repeat_n(40_000, 100)), 0);
        let stuck = std::iter::repeat_n(40_000, 50).chain(std::iter::repeat_n(10, 50)).chain([40_000; 50]);
        assert_eq!(lost(stuck), 50 * 39_990);
        // Back by two seconds, in a container that lets it.
        assert_eq!(lost([40_000, 40_000, -2_000_000, 40_000, 40_000]), 2_040_000);
        // Frames of a variable rate that come in pairs lose nothing, nor do those of the sound that B-frames delay.
        assert_eq!(lost(std::iter::repeat_n([1_000, 79_000], 500).flatten()), 0);
    }
}

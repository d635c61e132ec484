//! A continuous timeline for recordings with timestamp discontinuities: concatenated transport streams and the like, or
//! recordings whose encoder was restarted. The probe finds the discontinuities once; every task then applies the same
//! offsets.

use ff::format::context::Input;
use ffmpeg_next as ff;
use lyceum_packaging::info::TimeBreak;

use super::ffi;
use super::survey::Survey;
use super::timestamp::micros;

/// Containers that can be concatenated byte by byte, so that timestamps may start again in the middle.
pub(super) const JOINABLE: &[&str] = &["mpegts", "mpeg", "flv"];
/// Files up to this size are read completely; larger ones only if timestamps at [`PROBE_POINTS`] are uneven.
const MAX_READ_THROUGH_BYTES: u64 = 64 << 20;
const PROBE_POINTS: u64 = 64;
/// Packets that are read at a probe point to find a timestamp.
const MAX_PACKETS_PER_POINT: usize = 400;
/// A step of time further back or forward than this is a discontinuity, in microseconds.
const MAX_BACKWARD_US: i64 = 500_000;
const MAX_FORWARD_US: i64 = 10_000_000;
/// A packet whose successor follows within `duration / MIN_STEP_DIVISOR` has lost its time.
const MIN_STEP_DIVISOR: i64 = 8;
/// Lost time of consecutive packets counts from this sum on, in microseconds.
const MIN_LOST_RUN_US: i64 = 500_000;
/// How far into the file behind a discontinuity a demuxer may hand out a frame from before it.
const MAX_DELAYED_BYTES: u64 = 256 << 10;
/// The most discontinuities that are kept; the rest of a file with more uses the last offset.
const MAX_BREAKS: usize = 1000;

/// The offsets of a file's sections between discontinuities.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline {
    breaks: Vec<TimeBreak>,
    /// Byte offset of the last packet that had one; packets without follow it.
    byte: u64,
    /// How many discontinuities lie before the last packet of each stream.
    passed: Vec<(usize, usize)>,
}

impl Timeline {
    /// A timeline with these discontinuities, in the order of their bytes.
    pub(super) fn new(breaks: &[TimeBreak]) -> Self {
        Self { breaks: breaks.to_vec(), ..Self::default() }
    }

    /// Seeks to the last position from which all that is presented at `at` can be decoded. Fails if the container can't.
    pub(super) fn seek(&mut self, input: &mut Input, at: i64) -> Result<(), ff::Error> {
        if self.breaks.is_empty() {
            return if at == i64::MIN { input.seek(0, ..) } else { input.seek(at, ..at) };
        }
        // Timestamps are ambiguous: the section that holds the instant is read from its first byte.
        self.passed.clear();
        self.byte = self.breaks.iter().rev().find(|b| b.start_us <= at).map_or(0, |b| b.byte);
        ffi::seek_byte(input, self.byte)
    }

    /// Moves a packet's timestamps to the continuous timeline.
    pub(super) fn apply(&mut self, packet: &mut ff::Packet, base: ff::Rational) {
        if self.breaks.is_empty() {
            return;
        }
        if let Ok(byte) = u64::try_from(packet.position()) {
            self.byte = byte;
        }
        let shift = self.shift(packet, base);
        let (num, den) = (i128::from(base.numerator()).max(1), i128::from(base.denominator()));
        let ticks = i64::try_from(i128::from(shift) * den / (num * 1_000_000)).unwrap_or(0);
        packet.set_pts(packet.pts().map(|pts| pts.saturating_add(ticks)));
        packet.set_dts(packet.dts().map(|dts| dts.saturating_add(ticks)));
    }
}

impl Timeline {
    /// Adds the next discontinuity, found at a packet of `stream`.
    fn break_at(&mut self, stream: usize, found: Option<&TimeBreak>) {
        self.breaks.extend(found);
        self.byte = found.map_or(self.byte, |found| found.byte);
        let count = self.breaks.len();
        match self.passed.iter_mut().find(|(known, _)| *known == stream) {
            Some((_, passed)) => *passed = count,
            None => self.passed.push((stream, count)),
        }
    }

    /// What is added to the times of `packet`, in microseconds.
    fn shift(&mut self, packet: &ff::Packet, base: ff::Rational) -> i64 {
        let before = self.breaks.partition_point(|b| b.byte <= self.byte);
        let stream = packet.stream();
        let passed = match self.passed.iter_mut().find(|(known, _)| *known == stream) {
            Some((_, passed)) => passed,
            None => {
                self.passed.push((stream, 0));
                let Some((_, passed)) = self.passed.last_mut() else { return 0 };
                passed
            }
        };
        let shift_after = |count: usize| {
            let last = count.checked_sub(1).and_then(|n| self.breaks.get(n));
            last.map_or(0, |b| b.shift_us)
        };
        let at = packet.dts().or(packet.pts()).map(|ticks| micros(ticks, base));
        // Demuxers hand out a frame when they find the next one: the first packet after a discontinuity may be from before.
        if before > *passed
            && let Some(at) = at
            && let Some(last) = before.checked_sub(1).and_then(|n| self.breaks.get(n))
            && self.byte - last.byte < MAX_DELAYED_BYTES
        {
            let distance = |count: usize| at.saturating_add(shift_after(count)).abs_diff(last.start_us);
            if distance(before - 1) < distance(before) {
                return shift_after(before - 1);
            }
        }
        *passed = before;
        shift_after(before)
    }
}

/// Findings about a file's timestamps.
#[derive(Default)]
pub(super) struct TimelineScan {
    /// The discontinuities.
    pub(super) breaks: Vec<TimeBreak>,
    /// Time of the picture that timestamps leave no room for, in microseconds.
    pub(super) lost_us: i64,
}

/// Finds discontinuities among the packets of `streams`, of which the picture is the first if there is one. Containers
/// with an authoritative index have none. `open` opens the same file again; `survey` sees the picture's packets where all
/// are read.
pub(super) fn scan<E>(
    input: &mut Input,
    streams: &[usize],
    size: u64,
    survey: Option<&mut Survey>,
    open: impl FnOnce() -> Result<Input, E>,
) -> TimelineScan {
    let joinable = JOINABLE.contains(&input.format().name());
    if joinable && size > MAX_READ_THROUGH_BYTES && is_monotonic(input, streams, size) {
        return TimelineScan::default();
    }
    if !joinable && (size > MAX_READ_THROUGH_BYTES || !input.format().name().starts_with("matroska")) {
        return TimelineScan::default();
    }
    if joinable {
        if ffi::seek_byte(input, 0).is_err() {
            return TimelineScan::default();
        }
        let found = read_through(input, streams, joinable, survey);
        let _ = ffi::seek_byte(input, 0);
        return found;
    }
    // A recording without an index, as browsers make them, can't seek back to its start.
    open().map_or_else(|_| TimelineScan::default(), |mut input| read_through(&mut input, streams, joinable, survey))
}

/// Reads all packets from where `input` stands.
fn read_through(input: &mut Input, streams: &[usize], joinable: bool, mut survey: Option<&mut Survey>) -> TimelineScan {
    let mut lost = LostTime::default();
    let mut found: Vec<TimeBreak> = Vec::new();
    let mut ends: Vec<(usize, i64)> = Vec::new();
    let mut timeline = Timeline::default();
    for (stream, mut packet) in input.packets() {
        let index = stream.index();
        if !streams.contains(&index) {
            continue;
        }
        let base = stream.time_base();
        timeline.apply(&mut packet, base);
        let byte = u64::try_from(packet.position()).unwrap_or(timeline.byte);
        let Some(at) = packet.dts().or(packet.pts()).map(|ticks| micros(ticks, base)) else { continue };
        let length = micros(packet.duration().max(0), base);
        let known = ends.iter_mut().find(|(stream, _)| *stream == index);
        let expected = known.as_ref().map_or(at, |(_, end)| *end);
        let broken = at < expected - MAX_BACKWARD_US || at > expected + MAX_FORWARD_US;
        if joinable && broken && found.len() < MAX_BREAKS && found.last().is_none_or(|last| last.byte < byte) {
            let start_us = ends.iter().map(|(_, end)| *end).max().unwrap_or(expected);
            let before = found.last().map_or(0, |last| last.shift_us);
            if streams.first() == Some(&index) {
                lost.step(start_us, length);
            }
            found.push(TimeBreak { byte, shift_us: before.saturating_add(start_us - at), start_us });
            timeline.break_at(index, found.last());
            ends.iter_mut().filter(|(stream, _)| *stream == index).for_each(|(_, end)| *end = start_us + length);
            continue;
        }
        if streams.first() == Some(&index) {
            lost.step(at, length);
        }
        if let Some(survey) = survey.as_mut().filter(|survey| survey.stream == index) {
            survey.see(&packet);
        }
        match ends.iter_mut().find(|(stream, _)| *stream == index) {
            Some((_, end)) => *end = (*end).max(at + length),
            None => ends.push((index, at + length)),
        }
    }
    if let Some(survey) = survey {
        survey.complete();
    }
    TimelineScan { breaks: found, lost_us: lost.us }
}

/// Time that packets need but do not get: containers want increasing timestamps, so that an encoder whose clock went
/// back squeezes the following packets into a moment. A few frames that follow too closely do not count.
#[derive(Default)]
pub(super) struct LostTime {
    last: Option<(i64, i64)>,
    in_a_row: i64,
    /// Lost time in total, in microseconds.
    pub(super) us: i64,
}

impl LostTime {
    /// The next packet is decoded at `at` and lasts `length`.
    pub(super) fn step(&mut self, at: i64, length: i64) {
        let Some((before, length)) = self.last.replace((at, length)) else { return };
        let step = at.saturating_sub(before);
        if step >= length / MIN_STEP_DIVISOR {
            self.in_a_row = 0;
            return;
        }
        let missing = length.saturating_sub(step);
        self.in_a_row = self.in_a_row.saturating_add(missing);
        // Once the run is long enough, it counts as a whole.
        if self.in_a_row >= MIN_LOST_RUN_US {
            let before = self.in_a_row - missing;
            self.us = self.us.saturating_add(if before < MIN_LOST_RUN_US { self.in_a_row } else { missing });
        }
    }
}

/// Whether timestamps increase evenly over points spread through the file.
fn is_monotonic(input: &mut Input, streams: &[usize], size: u64) -> bool {
    let mut times = Vec::new();
    for n in 0..PROBE_POINTS {
        if ffi::seek_byte(input, size / PROBE_POINTS * n).is_err() {
            return true;
        }
        let mut packets =
            input.packets().take(MAX_PACKETS_PER_POINT).filter(|(s, _)| streams.first() == Some(&s.index()));
        times.extend(packets.find_map(|(s, p)| p.dts().or(p.pts()).map(|ticks| micros(ticks, s.time_base()))));
    }
    let mut steps: Vec<i64> = times.windows(2).filter_map(|w| Some(w.get(1)? - w.first()?)).collect();
    steps.sort_unstable();
    let usual = steps.get(steps.len() / 2).copied().unwrap_or(0);
    let (least, most) = (steps.first().copied().unwrap_or(0), steps.last().copied().unwrap_or(0));
    least >= -MAX_BACKWARD_US && most <= usual.saturating_mul(8).max(MAX_FORWARD_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(steps: impl IntoIterator<Item = i64>) -> i64 {
        let (mut lost, mut at) = (LostTime::default(), 0);
        for step in steps {
            lost.step(at, 40_000);
            at += step;
        }
        lost.us
    }

    #[test]
    fn a_clock_that_stops_loses_the_time_that_follows() {
        assert_eq!(lost(std::iter::repeat_n(40_000, 100)), 0);
        let stuck = std::iter::repeat_n(40_000, 50).chain(std::iter::repeat_n(10, 50)).chain([40_000; 50]);
        assert_eq!(lost(stuck), 50 * 39_990);
        // Back by two seconds, in a container that allows it.
        assert_eq!(lost([40_000, 40_000, -2_000_000, 40_000, 40_000]), 2_040_000);
        // Nothing is lost by pairs of frames at a variable rate, nor by timestamps that B-frames delay.
        assert_eq!(lost(std::iter::repeat_n([1_000, 79_000], 500).flatten()), 0);
    }
}

//! Where decoded sound belongs on the lesson's timeline.
//!
//! Recorders stamp sound by the clock of its arrival: times jump by some milliseconds although no sample is missing, and
//! the clock of the sound card runs a little faster or slower than that of the times. Samples are counted, therefore, and
//! the offset between count and times is followed slowly: a line through the offsets of some seconds, at fixed instants of
//! the lesson. Sound between two instants is stretched, inaudibly, to fit. Only where the offset steps for good, by
//! [`GAP`] or more, is sound missing (or there twice): there it is cut.
//!
//! The offset at an instant follows from the times within [`REACH`] around it and not from where decoding began. Tasks that
//! read [`MARGIN_US`] beyond their section therefore agree to the sample.

/// All units are samples at 48 kHz.
const SECOND: f64 = 48_000.0;
/// The distance of the instants.
const STEP: f64 = 2.0 * SECOND;
/// How far around an instant times have a say.
const REACH: f64 = 4.0 * SECOND;
/// How much must be read before and after a section, in microseconds.
pub(super) const MARGIN_US: i64 = 6_100_000;
/// A lasting step of the offset of this much is missing sound.
const GAP: f64 = 0.1 * SECOND;
/// A single step that is looked at closer.
const SUSPICIOUS: f64 = 0.06 * SECOND;
/// How much sound before and after a step shows whether it lasts.
const WITNESSES: f64 = 0.5 * SECOND;
/// The most by which a clock is followed, as a part: more is no clock.
const MAX_DRIFT: f64 = 0.05;
/// Offsets that differ by less are equal: they are computed in floating point.
const EQUAL: f64 = 0.01;

/// The time of one decoded frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    /// How many samples precede it.
    pub(super) count: f64,
    /// Its time by the recording, on the lesson's timeline.
    pub(super) time: f64,
}

impl Stamp {
    fn offset(&self) -> f64 {
        self.time - self.count
    }
}

/// A stretch of the lesson and the samples that sound in it: the sample at `x` is `x - offset`, where `offset` goes evenly
/// from the first value to the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Piece {
    /// Start and end on the lesson's timeline.
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) offsets: (f64, f64),
}

impl Piece {
    /// The whole number of samples by which all sound of the piece is moved, where it is one.
    pub(super) fn whole(&self) -> Option<i64> {
        let (first, last) = self.offsets;
        let even = (first - last).abs() < EQUAL && (first - first.round()).abs() < EQUAL;
        even.then_some(first.round() as i64)
    }

    /// The first sample of the lesson in it.
    pub(super) fn first(&self) -> i64 {
        (self.from - EQUAL).ceil() as i64
    }

    /// The first sample of the lesson after it.
    pub(super) fn end(&self) -> i64 {
        (self.to - EQUAL).ceil() as i64
    }

    /// The sample that sounds at `x`, with a fraction.
    pub(super) fn sample_at(&self, x: f64) -> f64 {
        let (first, last) = self.offsets;
        let length = self.to - self.from;
        let part = if length > 0.0 { (x - self.from) / length } else { 0.0 };
        x - first - (last - first) * part
    }
}

/// The pieces of sound with these stamps, in order, of which there are `samples`. Without stamps it begins at 0. The clock
/// is followed within `range` of the lesson; what lies around it is placed roughly.
pub(super) fn pieces(stamps: &[Stamp], samples: f64, range: (f64, f64)) -> Vec<Piece> {
    if stamps.is_empty() {
        return vec![Piece { from: 0.0, to: samples, offsets: (0.0, 0.0) }];
    }
    let mut found = Vec::new();
    let mut rest = stamps;
    let mut first = 0.0;
    while !rest.is_empty() {
        let (run, after) = rest.split_at(next_gap(rest).unwrap_or(rest.len()));
        let end = after.first().map_or(samples, |stamp| stamp.count);
        append_run(run, (first, end), range, &mut found);
        (rest, first) = (after, end);
    }
    found
}

/// The index of the next stamp before which sound is missing or there twice.
fn next_gap(stamps: &[Stamp]) -> Option<usize> {
    let jump = |n: usize| Some(stamps.get(n)?.offset() - stamps.get(n.checked_sub(1)?)?.offset());
    (1..stamps.len()).find(|n| {
        let (before, after) = stamps.split_at(*n);
        jump(*n).is_some_and(|jump| jump.abs() > SUSPICIOUS)
            && (usual(after.iter()) - usual(before.iter().rev())).abs() >= GAP
    })
}

/// The median offset of the first stamps.
fn usual<'a>(stamps: impl Iterator<Item = &'a Stamp>) -> f64 {
    let mut start = None;
    let near = |(n, stamp): &(usize, &Stamp)| {
        let start = *start.get_or_insert(stamp.count);
        *n < 3 || (stamp.count - start).abs() <= WITNESSES
    };
    let mut offsets: Vec<f64> = stamps.enumerate().take_while(near).map(|(_, stamp)| stamp.offset()).collect();
    let middle = offsets.len() / 2;
    if offsets.is_empty() { 0.0 } else { *offsets.select_nth_unstable_by(middle, f64::total_cmp).1 }
}

/// Appends the pieces of a run without a gap: samples `first .. end`.
fn append_run(run: &[Stamp], (first, end): (f64, f64), range: (f64, f64), found: &mut Vec<Piece>) {
    let (Some(earliest), Some(latest)) = (run.first(), run.last()) else { return };
    let (from, to) = (earliest.time.max(range.0 - STEP), latest.time.min(range.1 + STEP));
    let instants = (from / STEP).floor() as i64 + 1..=(to / STEP).ceil() as i64 - 1;
    let mut knots: Vec<(f64, f64)> = Vec::new();
    for time in
        std::iter::once(earliest.time).chain(instants.map(|n| n as f64 * STEP)).chain(std::iter::once(latest.time))
    {
        let offset = offset_at(run, time);
        // Time only goes on, however the line bends.
        if knots.last().is_none_or(|(before, known)| time - before > (offset - known).abs()) {
            knots.push((time, offset));
        }
    }
    let (Some((_, start)), Some((_, last))) = (knots.first().copied(), knots.last().copied()) else { return };
    // The ends: what precedes the first knot and follows the last moves with them.
    knots.insert(0, (first + start, start));
    knots.push((end + last, last));
    let piece = |pair: &[(f64, f64)]| match pair {
        [(from, one), (to, other)] if to > from => Some(Piece { from: *from, to: *to, offsets: (*one, *other) }),
        _ => None,
    };
    found.extend(knots.windows(2).filter_map(piece));
}

/// The offset at `time`: a line through those around it, nearer ones counting more.
fn offset_at(run: &[Stamp], time: f64) -> f64 {
    let from = run.partition_point(|stamp| stamp.time <= time - REACH * 1.5);
    let near = || {
        let rest = run.get(from..).unwrap_or_default().iter();
        let all = rest.take_while(|stamp| stamp.time < time + REACH * 1.5);
        all.map(|stamp| (1.0 - (stamp.time - time).abs() / REACH, stamp.time - time, stamp.offset()))
            .filter(|(weight, _, _)| *weight > 0.0)
    };
    let sum = |of: &dyn Fn(f64, f64, f64) -> f64| near().map(|(w, x, y)| w * of(w, x, y)).sum::<f64>();
    let weight = sum(&|_, _, _| 1.0);
    if weight <= 0.0 {
        let distance = |stamp: &&Stamp| (stamp.time - time).abs();
        let nearest = run.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
        return nearest.map_or(0.0, Stamp::offset);
    }
    let (x_mean, y_mean) = (sum(&|_, x, _| x) / weight, sum(&|_, _, y| y) / weight);
    let spread = sum(&|_, x, _| (x - x_mean).powi(2));
    let slope = if spread > 1.0 { sum(&|_, x, y| (x - x_mean) * (y - y_mean)) / spread } else { 0.0 };
    y_mean - slope.clamp(-MAX_DRIFT, MAX_DRIFT) * x_mean
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: (f64, f64) = (-1e7, 1e7);

    /// Frames of `length` samples over `seconds`, whose times are `shape` of the true ones in seconds.
    fn stamps(length: f64, seconds: f64, shape: impl Fn(u32, f64) -> f64) -> Vec<Stamp> {
        let count = (seconds * SECOND / length) as u32;
        (0..count)
            .map(|n| Stamp { count: f64::from(n) * length, time: shape(n, f64::from(n) * length / SECOND) * SECOND })
            .collect()
    }

    /// A pseudo-random number within ±`most`.
    fn noise(n: u32, most: f64) -> f64 {
        (f64::from(n.wrapping_mul(2_654_435_761) >> 8) / f64::from(1u32 << 23) - 1.0) * most
    }

    fn total(stamps: &[Stamp], length: f64) -> f64 {
        stamps.last().map_or(0.0, |last| last.count + length)
    }

    #[test]
    fn exact_times_move_sound_by_whole_samples() {
        let exact = stamps(1024.0, 30.0, |_, t| t + 0.5);
        let found = pieces(&exact, total(&exact, 1024.0), ALL);
        assert!(found.iter().all(|piece| piece.whole() == Some(24_000)), "{found:?}");
        let (first, last) = (found.first().unwrap(), found.last().unwrap());
        assert_eq!((first.first(), last.end()), (24_000, 24_000 + total(&exact, 1024.0) as i64));
        assert!(found.windows(2).all(|pair| pair[0].to == pair[1].from));
    }

    #[test]
    fn jitter_leaves_no_hole_and_bends_no_tone() {
        for (length, most) in [(960.0, 0.015), (2880.0, 0.015), (1024.0, 0.0005), (960.0, 0.04)] {
            let jittery = stamps(length, 60.0, |n, t| t + noise(n, most));
            let found = pieces(&jittery, total(&jittery, length), ALL);
            assert!(found.windows(2).all(|pair| (pair[0].to - pair[1].from).abs() < 1e-6), "{most}: a hole");
            for piece in &found {
                let bend = (piece.offsets.1 - piece.offsets.0).abs() / (piece.to - piece.from).max(SECOND);
                assert!(bend < 0.002, "{most}: bent by {bend}");
                assert!(piece.offsets.0.abs() < 0.008 * SECOND, "{most}: moved by {}", piece.offsets.0);
            }
        }
    }

    #[test]
    fn a_slow_clock_is_followed() {
        let slow = stamps(960.0, 120.0, |n, t| t * 1.002 + noise(n, 0.003));
        let found = pieces(&slow, total(&slow, 960.0), ALL);
        for x in [1.0, 30.0, 60.0, 100.0, 119.0].map(|s| s * SECOND) {
            let piece = found.iter().find(|piece| (piece.from..piece.to).contains(&x)).unwrap();
            let error = piece.sample_at(x) - x / 1.002;
            assert!(error.abs() < 0.002 * SECOND, "{error} samples off at {x}");
        }
        assert!(found.windows(2).all(|pair| (pair[0].to - pair[1].from).abs() < 1e-6));
    }

    #[test]
    fn missing_sound_is_silence_of_its_length_and_a_late_arrival_is_not() {
        let paused = stamps(960.0, 40.0, |n, t| t + noise(n, 0.01) + if t < 20.0 { 0.0 } else { 0.3 });
        let found = pieces(&paused, total(&paused, 960.0), ALL);
        let holes: Vec<f64> = found.windows(2).map(|p| p[1].from - p[0].to).filter(|gap| gap.abs() > 1.0).collect();
        assert!(holes.len() == 1 && (holes[0] / SECOND - 0.3).abs() < 0.01, "{holes:?}");
        // A stall: ten packets wait and then arrive at once.
        let stalled = stamps(960.0, 40.0, |n, t| if (500..510).contains(&n) { 10.2 } else { t });
        let found = pieces(&stalled, total(&stalled, 960.0), ALL);
        assert!(found.windows(2).all(|pair| (pair[0].to - pair[1].from).abs() < 1e-6), "{found:?}");
        // One packet in a hundred is lost, which nobody hears.
        let lossy = stamps(960.0, 40.0, |n, t| t + f64::from(n / 100) * 0.02);
        assert!(
            pieces(&lossy, total(&lossy, 960.0), ALL).windows(2).all(|pair| (pair[0].to - pair[1].from).abs() < 1e-6)
        );
    }

    #[test]
    fn times_without_sense_cost_nothing() {
        let wild = stamps(960.0, 20.0, |n, t| if n % 2 == 0 { t } else { 1e12 });
        let found = pieces(&wild, total(&wild, 960.0), (0.0, 20.0 * SECOND));
        assert!(found.len() < 3000, "{}", found.len());
        assert_eq!(pieces(&[], 7.0, ALL), [Piece { from: 0.0, to: 7.0, offsets: (0.0, 0.0) }]);
    }

    #[test]
    fn tasks_that_begin_elsewhere_agree() {
        let all = stamps(960.0, 120.0, |n, t| t * 0.999 + noise(n, 0.015));
        let from = |at: f64| -> Vec<Stamp> {
            let later: Vec<Stamp> = all.iter().filter(|s| s.time >= (60.0 - at) * SECOND).copied().collect();
            let first = later[0].count;
            later.iter().map(|s| Stamp { count: s.count - first, ..*s }).collect()
        };
        let before: Vec<Stamp> = all.iter().filter(|s| s.time < 66.1 * SECOND).copied().collect();
        let (early, late) = (pieces(&before, total(&before, 960.0), ALL), from(6.1));
        let shift = before.len() as f64 * 960.0 - {
            let overlap = before.iter().filter(|s| s.time >= 53.9 * SECOND).count();
            overlap as f64 * 960.0
        };
        let late = pieces(&late, total(&late, 960.0), ALL);
        for x in [59.7, 60.0, 60.05].map(|s| s * SECOND) {
            let at = |all: &[Piece]| all.iter().find(|p| (p.from..p.to).contains(&x)).unwrap().sample_at(x);
            assert!((at(&early) - shift - at(&late)).abs() < 0.001, "{} and {}", at(&early) - shift, at(&late));
        }
    }
}

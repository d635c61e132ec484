//! The frame grid that all renditions share, and the segments on it.
//!
//! Segment `n` holds the frames `n × frames_per_segment ..` of one constant frame rate, so that segments
//! begin at a frame wherever the source's key frames are. Audio is divided at the AAC frame nearest to the same instants.

use serde::{Deserialize, Serialize};

/// Samples in one AAC-LC frame (ISO/IEC 14496-3).
pub const AAC_FRAME: u64 = 1024;
/// The sample rate of every audio rendition, in hertz.
pub const AUDIO_RATE: u32 = 48_000;

/// A frame rate as a fraction, in frames per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameRate {
    /// Numerator, at least 1.
    pub num: u32,
    /// Denominator, at least 1.
    pub den: u32,
}

/// The standard rates, which cameras and recorders often write inexactly.
pub const STANDARD_RATES: &[FrameRate] = &[
    FrameRate::new(5, 1),
    FrameRate::new(8, 1),
    FrameRate::new(10, 1),
    FrameRate::new(12, 1),
    FrameRate::new(15, 1),
    FrameRate::new(20, 1),
    FrameRate::new(24_000, 1001),
    FrameRate::new(24, 1),
    FrameRate::new(25, 1),
    FrameRate::new(30_000, 1001),
    FrameRate::new(30, 1),
    FrameRate::new(48, 1),
    FrameRate::new(50, 1),
    FrameRate::new(60_000, 1001),
    FrameRate::new(60, 1),
];

impl FrameRate {
    /// `num / den` frames per second; zeros become ones.
    pub const fn new(num: u32, den: u32) -> Self {
        Self { num: if num == 0 { 1 } else { num }, den: if den == 0 { 1 } else { den } }
    }

    /// Frames per second.
    pub fn fps(self) -> f64 {
        f64::from(self.num) / f64::from(self.den.max(1))
    }

    /// The constant rate for a source whose container names `base` (the rate that its timestamps fit) and whose
    /// frames come at `average`. Where the base is a frame rate at all it is kept, so that no frame of a variable
    /// source is lost; else the nearest standard rate within 1.5 % of the average, or the next one above. At most 60.
    pub fn constant(base: Option<FrameRate>, average: Option<FrameRate>) -> FrameRate {
        let close = |a: FrameRate, b: FrameRate, within: f64| (a.fps() - b.fps()).abs() <= within * b.fps();
        let sane = |r: &FrameRate| r.fps() >= 0.5 && r.fps() <= 60.5;
        match (base.filter(sane), average.filter(|r| r.fps() > 0.0)) {
            (Some(base), _) => base.standardised(),
            (_, Some(average)) => STANDARD_RATES
                .iter()
                .filter(|r| close(**r, average, 0.015))
                .min_by(|a, b| (a.fps() - average.fps()).abs().total_cmp(&(b.fps() - average.fps()).abs()))
                .or_else(|| STANDARD_RATES.iter().find(|r| r.fps() >= average.fps()))
                .copied()
                .unwrap_or(FrameRate::new(60, 1)),
            (None, None) => FrameRate::new(25, 1),
        }
    }

    /// The standard rate that equals this one up to rounding (`2997/100` is `30000/1001`), else itself.
    pub fn standardised(self) -> FrameRate {
        let near = |r: &&FrameRate| (r.fps() - self.fps()).abs() < 0.0005 * self.fps();
        STANDARD_RATES.iter().find(near).copied().unwrap_or(self)
    }
}

impl Default for FrameRate {
    fn default() -> Self {
        FrameRate::new(25, 1)
    }
}

/// The grid of one lesson.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    /// The constant frame rate.
    pub rate: FrameRate,
    /// Frames in each segment but the last, at least 1.
    pub frames_per_segment: u32,
    /// The number of frames of the lesson, at least 1.
    pub frames: u64,
}

impl Grid {
    /// The grid for `duration_us` microseconds with segments of about `segment_ms` milliseconds.
    pub fn new(rate: FrameRate, segment_ms: u64, duration_us: u64) -> Self {
        let rate = FrameRate::new(rate.num, rate.den);
        let round = |n: u128, d: u128| (n + d / 2) / d.max(1);
        let scale = u128::from(rate.den);
        let per = round(u128::from(segment_ms) * u128::from(rate.num), 1000 * scale).max(1);
        // A last frame counts when three quarters of it fit: container durations include audio padding.
        let quarters = u128::from(duration_us) * 4 * u128::from(rate.num) / (1_000_000 * scale);
        let frames = ((quarters + 1) / 4).max(1);
        Self {
            rate,
            frames_per_segment: u32::try_from(per).unwrap_or(u32::MAX),
            frames: u64::try_from(frames).unwrap_or(u64::MAX),
        }
    }

    fn per(&self) -> u64 {
        u64::from(self.frames_per_segment.max(1))
    }

    /// The number of segments. A tail under an eighth of a segment joins the segment before it, so that none is shorter
    /// than an audio frame.
    pub fn segments(&self) -> u32 {
        let (whole, tail) = (self.frames / self.per(), self.frames % self.per());
        let count = whole + u64::from(tail * 8 >= self.per() || whole == 0);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The first frame of segment `n`; the number of all frames for `n` at or past the end.
    pub fn first_frame(&self, n: u32) -> u64 {
        if n >= self.segments() { self.frames } else { (u64::from(n) * self.per()).min(self.frames) }
    }

    /// How many frames segment `n` holds.
    pub fn segment_frames(&self, n: u32) -> u64 {
        self.first_frame(n.saturating_add(1)).saturating_sub(self.first_frame(n))
    }

    /// Ticks per second of video tracks, and ticks per frame. At least 10,000 a second.
    pub fn timescale(&self) -> (u32, u32) {
        let factor = if self.rate.num < 10_000 { 1000 } else { 1 };
        (self.rate.num.saturating_mul(factor), self.rate.den.saturating_mul(factor))
    }

    /// When frame `frame` is shown, in units of `per_second` (rounded down).
    pub fn frame_time(&self, frame: u64, per_second: u64) -> u64 {
        let ticks =
            u128::from(frame) * u128::from(self.rate.den) * u128::from(per_second) / u128::from(self.rate.num.max(1));
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// The whole length, in milliseconds.
    pub fn duration_ms(&self) -> u64 {
        self.frame_time(self.frames, 1000)
    }

    /// The first AAC frame of segment `n`, counted from the lesson's start; past the end the number of all.
    pub fn first_audio_frame(&self, n: u32) -> u64 {
        let frame = self.first_frame(n);
        let ticks = u128::from(frame) * u128::from(self.rate.den) * u128::from(AUDIO_RATE);
        let per = u128::from(self.rate.num.max(1)) * u128::from(AAC_FRAME);
        let count = if n >= self.segments() { ticks.div_ceil(per) } else { (ticks + per / 2) / per };
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn inexact_rates_become_standard_ones() {
        let r = FrameRate::new;
        for (base, average, wanted) in [
            (Some(r(25, 1)), Some(r(25, 1)), r(25, 1)),
            (Some(r(2997, 100)), Some(r(2997, 100)), r(30_000, 1001)),
            (Some(r(90_000, 1)), Some(r(29_830, 1000)), r(30_000, 1001)),
            (Some(r(120, 1)), Some(r(61, 4)), r(20, 1)),
            (Some(r(30, 1)), Some(r(19, 1)), r(30, 1)),
            (Some(r(8, 1)), Some(r(8, 1)), r(8, 1)),
            (Some(r(240, 1)), Some(r(240, 1)), r(60, 1)),
            (None, None, r(25, 1)),
        ] {
            assert_eq!(FrameRate::constant(base, average), wanted, "{base:?} {average:?}");
        }
    }

    #[test]
    fn four_seconds_of_ntsc_are_4004_milliseconds() {
        let grid = Grid::new(FrameRate::new(30_000, 1001), 4000, 60_000_000);
        assert_eq!(grid.frames_per_segment, 120);
        assert_eq!(grid.frame_time(grid.first_frame(1), 1000), 4004);
        assert_eq!(grid.timescale(), (30_000, 1001));
        assert_eq!(Grid::new(FrameRate::new(25, 1), 4000, 1).segments(), 1);
    }

    proptest! {
        #[test]
        fn segments_cover_every_frame_once(num in 1u32..70_000, den in 1u32..1100, ms in 500u64..10_000, us in 1u64..20_000_000_000) {
            let grid = Grid::new(FrameRate::new(num, den), ms, us);
            prop_assume!(grid.segments() < 10_000);
            let (mut frames, mut audio) = (0, 0);
            for n in 0..grid.segments() {
                prop_assert_eq!(grid.first_frame(n), frames);
                prop_assert_eq!(grid.first_audio_frame(n), audio);
                prop_assert!(grid.segment_frames(n) > 0);
                frames += grid.segment_frames(n);
                audio = grid.first_audio_frame(n + 1);
            }
            prop_assert_eq!(frames, grid.frames);
        }

        #[test]
        fn audio_boundaries_lie_within_half_a_frame_of_the_video_s(fps in 5u32..61, n in 0u32..2000) {
            let grid = Grid::new(FrameRate::new(fps, 1), 4000, 9_000_000_000);
            let picture = grid.first_frame(n) as f64 / f64::from(fps);
            let sound = grid.first_audio_frame(n) as f64 * 1024.0 / 48_000.0;
            prop_assert!((picture - sound).abs() <= 0.5 * 1024.0 / 48_000.0 + 1e-9);
        }
    }
}

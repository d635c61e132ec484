//! Decoded frames on the lesson's constant frame grid.

use std::sync::Arc;

use ffmpeg_next as ff;
use lyceum_packaging::FrameRate;

/// A frame on the grid.
pub(super) struct GridFrame {
    pub(super) frame: Arc<ff::frame::Video>,
    /// Its index on the grid, counted from the start of the lesson.
    pub(super) index: u64,
    /// Whether it is the first frame of a segment.
    pub(super) key: bool,
}

/// The grid index nearest to a timestamp, halves rounded up. Exact integer arithmetic.
pub(super) fn place(pts: i64, base: ff::Rational, origin_us: i64, rate: FrameRate) -> i64 {
    let (num, den) = (i128::from(base.numerator()), i128::from(base.denominator().max(1)));
    let time = i128::from(pts) * num * 1_000_000 - i128::from(origin_us) * den;
    let numerator = time * i128::from(rate.num);
    let denominator = den * 1_000_000 * i128::from(rate.den);
    let place = (numerator * 2 + denominator).div_euclid(denominator * 2);
    i64::try_from(place).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_nearest_and_do_not_drift() {
        let ntsc = FrameRate::new(30_000, 1001);
        for n in [0i64, 1, 2, 1000, 107_892, 10_000_000] {
            assert_eq!(place(n * 1001, ff::Rational(1, 30_000), 0, ntsc), n);
            let millis = (n * 1001 * 1000 + 15_000) / 30_000;
            assert_eq!(place(millis + 777, ff::Rational(1, 1000), 777_000, ntsc), n, "{n}");
        }
        assert_eq!(place(-20, ff::Rational(1, 1000), 0, FrameRate::new(25, 1)), 0);
        assert_eq!(place(-21, ff::Rational(1, 1000), 0, FrameRate::new(25, 1)), -1);
    }
}

//! Timestamps of FFmpeg: ticks of a time base, possibly unset.

use ffmpeg_next as ff;

/// Microseconds from ticks of a time base.
pub(super) fn micros(ticks: i64, base: ff::Rational) -> i64 {
    let (num, den) = (i128::from(base.numerator()), i128::from(base.denominator().max(1)));
    i64::try_from(i128::from(ticks) * 1_000_000 * num / den).unwrap_or(0)
}

/// The value of a timestamp that may be unset.
pub(super) fn known(ticks: i64) -> Option<i64> {
    (ticks != ff::ffi::AV_NOPTS_VALUE).then_some(ticks)
}

/// A frame's best-effort timestamp, or else its presentation timestamp.
pub(super) fn timestamp(frame: &ff::frame::Video) -> Option<i64> {
    frame.timestamp().and_then(known).or_else(|| frame.pts())
}

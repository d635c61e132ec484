//! Stereo sound at 48 kHz: as decoded, with its times, and as it lies on the lesson's timeline.

use std::cell::LazyCell;

use ffmpeg_next as ff;

use super::limiter;
use super::sound_clock::{self, Piece, Stamp};
use super::stretch::Interpolator;

/// Sound as decoded, without holes, and its times.
#[derive(Default)]
pub(super) struct DecodedSound {
    /// Left and right, at 48 kHz.
    pub(super) channels: [Vec<f32>; 2],
    pub(super) stamps: Vec<Stamp>,
}

impl DecodedSound {
    /// How many samples each channel has.
    pub(super) fn len(&self) -> usize {
        self.channels.iter().map(Vec::len).min().unwrap_or(0)
    }

    /// Where it belongs on the lesson's timeline, of which `range` is needed.
    fn pieces(&self, range: (f64, f64)) -> Vec<Piece> {
        sound_clock::pieces(&self.stamps, self.len() as f64, range)
    }

    /// Adds resampled samples.
    pub(super) fn append(&mut self, frame: &ff::frame::Audio) {
        for (plane, channel) in self.channels.iter_mut().enumerate().take(frame.planes()) {
            let finite = |sample: &f32| if sample.is_finite() { sample.clamp(-8.0, 8.0) } else { 0.0 };
            channel.extend(frame.plane::<f32>(plane).iter().map(finite));
        }
    }
}

/// Stereo samples of a range of the lesson's timeline, silent where the source has none.
pub(super) struct StereoBuffer {
    pub(super) from: u64,
    pub(super) channels: [Vec<f32>; 2],
}

impl StereoBuffer {
    /// Silence for a range of samples of the lesson's timeline.
    pub(super) fn new(from: u64, to: u64) -> Self {
        let length = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
        Self { from, channels: [vec![0.0; length], vec![0.0; length]] }
    }

    /// Silence of the same range.
    pub(super) fn silent(&self) -> Self {
        Self { from: self.from, channels: self.channels.each_ref().map(|channel| vec![0.0; channel.len()]) }
    }

    /// The first sample after it.
    pub(super) fn end(&self) -> i64 {
        let [left, _] = &self.channels;
        i64::try_from(self.from).unwrap_or(i64::MAX).saturating_add(i64::try_from(left.len()).unwrap_or(i64::MAX))
    }

    /// Writes sound that was decoded, by what its times say. For measurements it need not be `exact`.
    pub(super) fn place(&mut self, decoded: &DecodedSound, exact: bool) {
        let start = i64::try_from(self.from).unwrap_or(i64::MAX);
        let interpolator = LazyCell::new(Interpolator::new);
        for piece in decoded.pieces((start as f64, self.end() as f64)) {
            let from = piece.first().max(start);
            let to = piece.end().min(self.end());
            let (Ok(first), Ok(end)) = (usize::try_from(from - start), usize::try_from(to - start)) else { continue };
            let [Some(left), Some(right)] = self.channels.each_mut().map(|channel| channel.get_mut(first..end)) else {
                continue;
            };
            let [left_samples, right_samples] = &decoded.channels;
            if let Some(moved) = piece.whole().or_else(|| (!exact).then(|| piece.offsets.0.round() as i64)) {
                copy(left, left_samples, from.saturating_sub(moved));
                copy(right, right_samples, from.saturating_sub(moved));
                continue;
            }
            for (x, (left, right)) in (from..).zip(left.iter_mut().zip(right)) {
                let kernel = interpolator.kernel(piece.sample_at(x as f64));
                (*left, *right) = (kernel.apply(left_samples), kernel.apply(right_samples));
            }
        }
    }

    /// Applies a gain and the limiter.
    pub(super) fn amplify(&mut self, gain_db: f64) {
        if gain_db != 0.0 {
            let factor = 10f64.powf(gain_db / 20.0) as f32;
            self.channels.iter_mut().flatten().for_each(|sample| *sample *= factor);
        }
        limiter::limit(&mut self.channels);
    }
}

/// Copies samples from `first` on, of which some may lie before the first or after the last.
fn copy(room: &mut [f32], samples: &[f32], first: i64) {
    let skipped = usize::try_from(first.saturating_neg().max(0)).unwrap_or(usize::MAX);
    let from = usize::try_from(first.max(0)).unwrap_or(usize::MAX);
    let to = room.get_mut(skipped..).unwrap_or_default();
    to.iter_mut().zip(samples.get(from..).unwrap_or_default()).for_each(|(to, from)| *to = *from);
}

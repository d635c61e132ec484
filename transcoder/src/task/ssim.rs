//! Quality of a rendition: structural similarity (SSIM; Wang, Bovik, Sheikh, Simoncelli 2004) between the encoder's
//! input and output, for the luma of some frames of one segment.
//!
//! The segment's packets are decoded as they leave the encoder. Only frames that are compared are kept, a few at a time.

use std::collections::VecDeque;

use ff::codec::{self, decoder, encoder};
use ffmpeg_next as ff;

use super::error::TaskError;
use super::ffi;

/// Compared frames per segment.
const COMPARED_FRAMES: u64 = 8;
/// The most source frames that wait for their decoded counterpart; further ones are not compared.
const MAX_PENDING_FRAMES: usize = 8;

/// The measurement of one segment of one rendition.
pub(super) struct SsimMeter {
    decoder: decoder::Video,
    /// The frame range of the segment, end exclusive.
    frames: (u64, u64),
    /// The next frame to keep.
    next: u64,
    kept: VecDeque<(i64, ff::frame::Video)>,
    sum: f64,
    count: u32,
}

impl SsimMeter {
    /// Measures the frames `first .. end` of `encoder`'s output.
    pub(super) fn new(encoder: &encoder::video::Encoder, first: u64, end: u64) -> Result<Self, TaskError> {
        let failed = TaskError::ffmpeg("opening a decoder to measure with");
        let context = codec::Context::from_parameters(codec::Parameters::from(encoder)).map_err(&failed)?;
        let decoder = context.decoder().video().map_err(&failed)?;
        Ok(Self { decoder, frames: (first, end), next: first, kept: VecDeque::new(), sum: 0.0, count: 0 })
    }

    /// Records the source `frame` at grid index `index`.
    pub(super) fn add_source(&mut self, index: u64, frame: &ff::frame::Video) -> Result<(), TaskError> {
        let (first, end) = self.frames;
        if index >= self.next && index < end && self.kept.len() < MAX_PENDING_FRAMES {
            let at = i64::try_from(index).unwrap_or(i64::MAX);
            self.kept.push_back((at, ffi::share(frame)?));
            self.next = index + (end - first).div_ceil(COMPARED_FRAMES).max(1);
        }
        Ok(())
    }

    /// Decodes and compares a `packet` of the segment.
    pub(super) fn add_packet(&mut self, packet: &ff::Packet) {
        // Packets that can't be decoded are not measured: measuring must not fail the task.
        if self.decoder.send_packet(packet).is_ok() {
            self.compare();
        }
    }

    /// The mean SSIM of the compared frames, after all packets were added; `None` without any.
    pub(super) fn finish(mut self) -> Option<f64> {
        if self.decoder.send_eof().is_ok() {
            self.compare();
        }
        (self.count > 0).then(|| (self.sum / f64::from(self.count) * 1e5).round() / 1e5)
    }

    fn compare(&mut self) {
        let mut frame = ff::frame::Video::empty();
        while self.decoder.receive_frame(&mut frame).is_ok() {
            let Some(at) = frame.pts() else { continue };
            while self.kept.front().is_some_and(|(kept, _)| *kept < at) {
                self.kept.pop_front();
            }
            // The front is now this frame's source or a later one.
            if self.kept.front().is_none_or(|(kept, _)| *kept != at) {
                continue;
            }
            if let Some((_, source)) = self.kept.pop_front()
                && let Some(alike) = ssim(&Luma::of(&source), &Luma::of(&frame))
            {
                self.sum += alike;
                self.count += 1;
            }
        }
    }
}

/// The luma of a frame of eight bits.
struct Luma<'a> {
    bytes: &'a [u8],
    stride: usize,
    width: usize,
    height: usize,
}

impl<'a> Luma<'a> {
    fn of(frame: &'a ff::frame::Video) -> Self {
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        Self { bytes: frame.data(0), stride: frame.stride(0).max(1), width, height }
    }

    fn rows(&self) -> impl Iterator<Item = &'a [u8]> {
        let width = self.width;
        self.bytes.chunks(self.stride).take(self.height).map(move |row| row.get(..width).unwrap_or(row))
    }
}

/// Sums over a square of 4 by 4 samples of both pictures.
#[derive(Clone, Copy, Default)]
struct Sums {
    one: u32,
    other: u32,
    squares: u32,
    products: u32,
}

impl std::ops::Add for Sums {
    type Output = Self;
    fn add(self, more: Self) -> Self {
        Self {
            one: self.one + more.one,
            other: self.other + more.other,
            squares: self.squares + more.squares,
            products: self.products + more.products,
        }
    }
}

/// Mean SSIM over windows of 8 by 8 samples, four apart. `None` if sizes differ or no window fits.
fn ssim(one: &Luma<'_>, other: &Luma<'_>) -> Option<f64> {
    if (one.width, one.height) != (other.width, other.height) {
        return None;
    }
    let one: Vec<&[u8]> = one.rows().collect();
    let other: Vec<&[u8]> = other.rows().collect();
    let bands = one.chunks_exact(4).zip(other.chunks_exact(4)).map(|(a, b)| squares(a, b));
    let (mut sum, mut count, mut above) = (0.0, 0u32, Vec::<Sums>::new());
    for band in bands {
        for (above, below) in above.windows(2).zip(band.windows(2)) {
            let window = above.iter().chain(below).fold(Sums::default(), |all, next| all + *next);
            sum += similarity(window);
            count += 1;
        }
        above = band;
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// Sums of the 4 by 4 squares of a band of four rows.
fn squares(one: &[&[u8]], other: &[&[u8]]) -> Vec<Sums> {
    let count = one.first().map_or(0, |row| row.len() / 4);
    let mut all = vec![Sums::default(); count];
    for (a, b) in one.iter().zip(other) {
        for ((a, b), sums) in a.chunks_exact(4).zip(b.chunks_exact(4)).zip(&mut all) {
            for (a, b) in a.iter().zip(b) {
                let (a, b) = (u32::from(*a), u32::from(*b));
                sums.one += a;
                sums.other += b;
                sums.squares += a * a + b * b;
                sums.products += a * b;
            }
        }
    }
    all
}

/// SSIM of one window of 64 samples, with the constants of the paper for levels up to 255.
fn similarity(sums: Sums) -> f64 {
    const C1: f64 = 0.01 * 0.01 * 255.0 * 255.0;
    const C2: f64 = 0.03 * 0.03 * 255.0 * 255.0;
    let (one, other) = (f64::from(sums.one) / 64.0, f64::from(sums.other) / 64.0);
    let variances = f64::from(sums.squares) / 64.0 - one * one - other * other;
    let covariance = f64::from(sums.products) / 64.0 - one * other;
    (2.0 * one * other + C1) * (2.0 * covariance + C2) / ((one * one + other * other + C1) * (variances + C2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luma(bytes: &[u8]) -> Luma<'_> {
        Luma { bytes, stride: 64, width: 60, height: 32 }
    }

    #[test]
    fn equal_pictures_have_one_and_others_less() {
        let picture: Vec<u8> = (0..64 * 32u32).map(|n| (n * 7 % 64 * 3) as u8 + 20).collect();
        let with = |change: &dyn Fn(usize, u8) -> u8| -> Vec<u8> {
            picture.iter().enumerate().map(|(n, level)| change(n, *level)).collect()
        };
        let of = |other: &[u8]| ssim(&luma(&picture), &luma(other)).expect("one size");
        assert!((of(&picture) - 1.0).abs() < 1e-9);
        let little = of(&with(&|n, level| level + (n % 3) as u8));
        let more = of(&with(&|n, level| level.wrapping_add((n * 31 % 40) as u8)));
        let flat = of(&with(&|_, _| 100));
        assert!(little > 0.98 && more < little && flat < more && flat < 0.1, "{little} {more} {flat}");
        // Padding of rows does not count.
        assert!((of(&with(&|n, level| if n % 64 >= 60 { 0 } else { level })) - 1.0).abs() < 1e-9);
        assert!(ssim(&luma(&picture), &Luma { width: 30, ..luma(&picture) }).is_none());
    }
}

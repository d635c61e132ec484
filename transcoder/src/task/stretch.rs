//! Sound between its samples: band-limited interpolation, for stretching by fractions of a percent and for shifts of a
//! part of a sample.

use std::f64::consts::PI;

/// Samples around a point that count, and points between two samples for which their weights are known.
const TAPS: usize = 24;
const PHASES: usize = 256;
/// The shape of the Kaiser window: side lobes below −80 dB.
const BETA: f64 = 8.0;
/// What passes, as a part of half the sample rate: 22 kHz at 48 kHz.
const CUT_OFF: f64 = 0.92;

/// Weights of the samples around a point.
pub(super) struct Interpolator {
    weights: Vec<[f32; TAPS]>,
}

impl Interpolator {
    /// Computes the weights.
    pub(super) fn new() -> Self {
        let phase = |n: usize| {
            let fraction = n as f64 / PHASES as f64;
            let mut all: [f64; TAPS] = std::array::from_fn(|tap| {
                let x = tap as f64 - (TAPS / 2 - 1) as f64 - fraction;
                let inside = 1.0 - (x / (TAPS / 2) as f64).powi(2);
                let window = if inside > 0.0 { bessel(BETA * inside.sqrt()) / bessel(BETA) } else { 0.0 };
                window * if x.abs() < 1e-9 { CUT_OFF } else { (PI * CUT_OFF * x).sin() / (PI * x) }
            });
            let sum: f64 = all.iter().sum();
            all.iter_mut().for_each(|weight| *weight /= sum);
            all.map(|weight| weight as f32)
        };
        Self { weights: (0..=PHASES).map(phase).collect() }
    }

    /// The weights for a point between samples.
    pub(super) fn kernel(&self, point: f64) -> Kernel {
        let whole = point.floor();
        let place = (point - whole) * PHASES as f64;
        let (phase, part) = (place as usize, (place - place.floor()) as f32);
        let mut weights = [0.0; TAPS];
        if let (Some(one), Some(two)) = (self.weights.get(phase), self.weights.get(phase + 1)) {
            for (weight, (one, two)) in weights.iter_mut().zip(one.iter().zip(two)) {
                *weight = one + (two - one) * part;
            }
        }
        Kernel { first: (whole as i64).saturating_sub((TAPS / 2 - 1) as i64), weights }
    }
}

/// The weights of the samples around one point.
pub(super) struct Kernel {
    first: i64,
    weights: [f32; TAPS],
}

impl Kernel {
    /// The value of `samples` at the point; silence lies around them.
    pub(super) fn apply(&self, samples: &[f32]) -> f32 {
        let inside = usize::try_from(self.first).ok().and_then(|first| samples.get(first..first.checked_add(TAPS)?));
        if let Some(near) = inside {
            // Four sums at once, as processors add.
            let mut sums = [0.0f32; 4];
            for (samples, weights) in near.chunks_exact(4).zip(self.weights.chunks_exact(4)) {
                for ((sum, sample), weight) in sums.iter_mut().zip(samples).zip(weights) {
                    *sum += sample * weight;
                }
            }
            return sums.iter().sum();
        }
        let sample = |n: i64| usize::try_from(n).ok().and_then(|n| samples.get(n)).copied().unwrap_or(0.0);
        (0..).zip(&self.weights).map(|(tap, weight)| sample(self.first.saturating_add(tap)) * weight).sum()
    }
}

/// The modified Bessel function of the first kind, of order zero.
fn bessel(x: f64) -> f64 {
    let mut term = 1.0;
    (1..40).fold(1.0, |sum, n| {
        term *= (x / 2.0 / f64::from(n)).powi(2);
        sum + term
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tones_pass_between_the_samples() {
        let interpolator = Interpolator::new();
        for hertz in [50.0, 997.0, 5_000.0, 12_000.0, 16_000.0] {
            let tone = |at: f64| (at * hertz / 48_000.0 * std::f64::consts::TAU).sin();
            let samples: Vec<f32> = (0..2000).map(|n| tone(f64::from(n)) as f32).collect();
            for n in 0..3000 {
                let at = 100.0 + f64::from(n) * 0.5009;
                let error = f64::from(interpolator.kernel(at).apply(&samples)) - tone(at);
                assert!(error.abs() < 0.001, "{hertz} Hz: {error} at {at}");
            }
        }
        assert_eq!(interpolator.kernel(1e12).apply(&[1.0; 8]), 0.0);
        assert_eq!(interpolator.kernel(-1e12).apply(&[]), 0.0);
    }
}

//! A limiter with look-ahead for stereo sound.

use std::collections::VecDeque;

/// The highest absolute sample value that passes: −2 dBFS. Peaks between samples can exceed the samples by about half a
/// decibel, so true peaks stay below −1.5 dBTP.
const CEILING: f32 = 0.794;
/// Samples that the limiter looks ahead: 5 ms at 48 kHz.
const LOOK_AHEAD_SAMPLES: usize = 240;
/// How much the gain rises with each sample after a peak: from 0 to 1 in 100 ms at 48 kHz.
const RELEASE_PER_SAMPLE: f32 = 1.0 / 4_800.0;

/// Keeps peaks below [`CEILING`] by one gain for both channels. The gain falls before a peak and recovers slowly after it.
pub(super) fn limit(channels: &mut [Vec<f32>; 2]) {
    let [left, right] = channels;
    let needed = |(l, r): (&f32, &f32)| {
        let peak = l.abs().max(r.abs());
        if peak > CEILING { CEILING / peak } else { 1.0 }
    };
    let mut gain: Vec<f32> = left.iter().zip(right.iter()).map(needed).collect();
    if gain.iter().all(|g| *g >= 1.0) {
        return;
    }
    lowest_ahead(&mut gain);
    let mut last = 1.0f32;
    for g in &mut gain {
        last = g.min(last + RELEASE_PER_SAMPLE);
        *g = last;
    }
    // The mean of the gains of the last 5 ms: because of the look-ahead, each of them suffices for this sample.
    let mut sum = LOOK_AHEAD_SAMPLES as f64;
    let delayed: Vec<f32> = std::iter::repeat_n(1.0, LOOK_AHEAD_SAMPLES).chain(gain.iter().copied()).collect();
    for ((l, r), (new, old)) in left.iter_mut().zip(right.iter_mut()).zip(gain.iter().zip(&delayed)) {
        sum += f64::from(*new) - f64::from(*old);
        let smooth = ((sum / LOOK_AHEAD_SAMPLES as f64) as f32).clamp(0.0, 1.0);
        *l = (*l * smooth).clamp(-CEILING, CEILING);
        *r = (*r * smooth).clamp(-CEILING, CEILING);
    }
}

/// Replaces each gain by the lowest of the gains within the look-ahead after it.
fn lowest_ahead(gain: &mut [f32]) {
    let mut lowest: VecDeque<(usize, f32)> = VecDeque::new();
    for at in (0..gain.len()).rev() {
        let Some(here) = gain.get_mut(at) else { continue };
        while lowest.back().is_some_and(|(_, g)| *g >= *here) {
            lowest.pop_back();
        }
        lowest.push_back((at, *here));
        while lowest.front().is_some_and(|(index, _)| *index > at + LOOK_AHEAD_SAMPLES) {
            lowest.pop_front();
        }
        *here = lowest.front().map_or(1.0, |(_, g)| *g);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: usize = 48_000;

    fn tone(hertz: f64, amplitude: f64, seconds: usize) -> [Vec<f32>; 2] {
        let sample = |n: usize| (amplitude * (n as f64 * hertz * std::f64::consts::TAU / RATE as f64).sin()) as f32;
        let channel: Vec<f32> = (0..seconds * RATE).map(sample).collect();
        [channel.clone(), channel]
    }

    #[test]
    fn the_limiter_holds_peaks_and_leaves_the_rest_alone() {
        let mut loud = tone(440.0, 1.5, 1);
        let before: Vec<f32> = tone(440.0, 0.3, 1)[0].clone();
        loud[0].splice(0..0, before.iter().copied());
        loud[1].splice(0..0, before.iter().copied());
        limit(&mut loud);
        assert!(loud[0].iter().all(|s| s.abs() <= CEILING));
        assert_eq!(loud[0][..40_000], before[..40_000]);
        // Limited, not clipped: a sine keeps the ratio of its RMS to its peak.
        let part = &loud[0][60_000..80_000];
        let effective = (part.iter().map(|s| s * s).sum::<f32>() / part.len() as f32).sqrt();
        assert!((effective / CEILING - std::f32::consts::FRAC_1_SQRT_2).abs() < 0.03, "{effective}");
    }
}

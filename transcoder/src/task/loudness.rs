//! How loud sound is (ITU-R BS.1770-4, gated as EBU R 128 has it), and a limiter that holds its peaks down.

/// Samples per second that the filters below are made for.
const RATE: usize = 48_000;
/// A gating block is 400 ms, and one begins every 100 ms.
const STEP: usize = RATE / 10;
const STEPS_IN_BLOCK: usize = 4;
/// Blocks below this are silence, in LUFS.
const SILENCE: f64 = -70.0;
/// The highest sample that the limiter lets through: −2 dBFS, which leaves half a decibel for what lies between
/// samples, so that true peaks stay below −1.5 dBTP.
const CEILING: f32 = 0.794;
/// The limiter looks ahead by 5 ms, and lets go over about 100 ms.
const LOOK_AHEAD: usize = 240;
const RELEASE: f32 = 1.0 / 4_800.0;

/// A filter of second order.
#[derive(Clone, Copy)]
struct Biquad {
    b: [f64; 3],
    a: [f64; 2],
    z: [f64; 2],
}

impl Biquad {
    fn run(&mut self, x: f64) -> f64 {
        let ([b0, b1, b2], [a1, a2], [z1, z2]) = (self.b, self.a, self.z);
        let y = b0 * x + z1;
        self.z = [b1 * x - a1 * y + z2, b2 * x - a2 * y];
        y
    }
}

/// The K-weighting of BS.1770: a shelf for the head, then a high-pass.
fn weighting() -> [Biquad; 2] {
    let z = [0.0; 2];
    [
        Biquad {
            b: [1.53512485958697, -2.69169618940638, 1.19839281085285],
            a: [-1.69065929318241, 0.73248077421585],
            z,
        },
        Biquad { b: [1.0, -2.0, 1.0], a: [-1.99004745483398, 0.99007225036621], z },
    ]
}

/// Measures stretches of stereo sound.
#[derive(Default)]
pub(super) struct Meter {
    /// The power of each gating block.
    blocks: Vec<f64>,
    peak: f32,
}

impl Meter {
    /// Takes a stretch; its first tenth of a second only fills the filters.
    pub(super) fn add(&mut self, channels: &[Vec<f32>; 2]) {
        let length = channels.iter().map(Vec::len).min().unwrap_or(0);
        let mut steps = vec![0.0f64; length / STEP];
        for channel in channels {
            let [mut shelf, mut high_pass] = weighting();
            for (step, samples) in steps.iter_mut().zip(channel.chunks_exact(STEP)) {
                for sample in samples {
                    let weighted = high_pass.run(shelf.run(f64::from(*sample)));
                    *step += weighted * weighted;
                    self.peak = self.peak.max(sample.abs());
                }
            }
        }
        let blocks = steps.get(1..).unwrap_or_default().windows(STEPS_IN_BLOCK);
        self.blocks.extend(blocks.map(|steps| steps.iter().sum::<f64>() / (STEPS_IN_BLOCK * STEP) as f64));
    }

    /// Integrated loudness in LUFS; nothing where all is silent.
    pub(super) fn loudness(&self) -> Option<f64> {
        let loud = |power: f64| -0.691 + 10.0 * power.max(1e-12).log10();
        let mean = |gate: f64| {
            let heard: Vec<f64> = self.blocks.iter().copied().filter(|power| loud(*power) > gate).collect();
            (!heard.is_empty()).then(|| loud(heard.iter().sum::<f64>() / heard.len() as f64))
        };
        let ungated = mean(SILENCE)?;
        mean(SILENCE.max(ungated - 10.0))
    }

    /// The highest sample, in dBFS.
    pub(super) fn peak(&self) -> Option<f64> {
        (self.peak > 0.0).then(|| 20.0 * f64::from(self.peak).log10())
    }
}

/// Holds peaks below the ceiling: one gain for both channels that is there before the peak comes and goes gently.
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
        last = g.min(last + RELEASE);
        *g = last;
    }
    // The mean of the gains of the last 5 ms, each of which already holds for this sample.
    let mut sum = LOOK_AHEAD as f64;
    let delayed: Vec<f32> = std::iter::repeat_n(1.0, LOOK_AHEAD).chain(gain.iter().copied()).collect();
    for ((l, r), (new, old)) in left.iter_mut().zip(right.iter_mut()).zip(gain.iter().zip(&delayed)) {
        sum += f64::from(*new) - f64::from(*old);
        let smooth = ((sum / LOOK_AHEAD as f64) as f32).clamp(0.0, 1.0);
        *l = (*l * smooth).clamp(-CEILING, CEILING);
        *r = (*r * smooth).clamp(-CEILING, CEILING);
    }
}

/// Each gain becomes the lowest of those within the look-ahead after it.
fn lowest_ahead(gain: &mut [f32]) {
    let mut lowest: std::collections::VecDeque<(usize, f32)> = std::collections::VecDeque::new();
    for at in (0..gain.len()).rev() {
        let Some(here) = gain.get_mut(at) else { continue };
        while lowest.back().is_some_and(|(_, g)| *g >= *here) {
            lowest.pop_back();
        }
        lowest.push_back((at, *here));
        while lowest.front().is_some_and(|(index, _)| *index > at + LOOK_AHEAD) {
            lowest.pop_front();
        }
        *here = lowest.front().map_or(1.0, |(_, g)| *g);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hertz: f64, amplitude: f64, seconds: usize) -> [Vec<f32>; 2] {
        let sample = |n: usize| (amplitude * (n as f64 * hertz * std::f64::consts::TAU / RATE as f64).sin()) as f32;
        let channel: Vec<f32> = (0..seconds * RATE).map(sample).collect();
        [channel.clone(), channel]
    }

    #[test]
    fn a_full_tone_is_as_loud_as_the_standard_says() {
        // EBU Tech 3341, case 1: a stereo sine of 1 kHz at −23 dBFS reads −23 LUFS.
        let mut meter = Meter::default();
        meter.add(&tone(1000.0, 10f64.powf(-23.0 / 20.0), 5));
        let loudness = meter.loudness().unwrap();
        assert!((loudness + 23.0).abs() < 0.1, "{loudness}");
        assert!((meter.peak().unwrap() + 23.0).abs() < 0.01);
    }

    #[test]
    fn quiet_passages_are_left_out() {
        // EBU Tech 3341, case 3: −36, −23 and −36 dBFS read −23 LUFS.
        let mut meter = Meter::default();
        for (level, seconds) in [(-36.0, 10), (-23.0, 60), (-36.0, 10)] {
            meter.add(&tone(1000.0, 10f64.powf(level / 20.0), seconds));
        }
        assert!((meter.loudness().unwrap() + 23.0).abs() < 0.1);
        assert_eq!(Meter::default().loudness(), None);
        let mut silent = Meter::default();
        silent.add(&[vec![0.0; 96_000], vec![0.0; 96_000]]);
        assert_eq!((silent.loudness(), silent.peak()), (None, None));
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
        // Limited smoothly, not cut: the tone's crest stays a sine's.
        let part = &loud[0][60_000..80_000];
        let effective = (part.iter().map(|s| s * s).sum::<f32>() / part.len() as f32).sqrt();
        assert!((effective / CEILING - std::f32::consts::FRAC_1_SQRT_2).abs() < 0.03, "{effective}");
    }
}

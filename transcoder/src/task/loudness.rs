//! Integrated loudness of windows of stereo sound (ITU-R BS.1770-4, gated as EBU R 128 requires).

use ebur128::{EbuR128, Mode};
use lyceum_packaging::grid::AUDIO_RATE;

/// Samples that only settle the filters of a window: 100 ms.
const SETTLING_SAMPLES: usize = AUDIO_RATE as usize / 10;

/// Measures windows of stereo sound at 48 kHz. Gating blocks of 400 ms, one every 100 ms, never span two windows.
#[derive(Default)]
pub(super) struct LoudnessMeter {
    windows: Vec<EbuR128>,
    peak: f32,
}

impl LoudnessMeter {
    /// Adds a window. Its first 100 ms settle the filters and are not measured, except for the peak.
    pub(super) fn add(&mut self, channels: &[Vec<f32>; 2]) -> Result<(), ebur128::Error> {
        self.peak = channels.iter().flatten().fold(self.peak, |peak, sample| peak.max(sample.abs()));
        let [left, right] = channels;
        let length = left.len().min(right.len());
        let settling = length.min(SETTLING_SAMPLES);
        let (Some(settle_left), Some(settle_right), Some(left), Some(right)) =
            (left.get(..settling), right.get(..settling), left.get(settling..length), right.get(settling..length))
        else {
            return Ok(());
        };
        let mut meter = EbuR128::new(2, AUDIO_RATE, Mode::I)?;
        meter.seed_frames_planar_f32(&[settle_left, settle_right])?;
        meter.add_frames_planar_f32(&[left, right])?;
        self.windows.push(meter);
        Ok(())
    }

    /// Integrated loudness of all windows in LUFS; `None` if all is silence.
    pub(super) fn loudness(&self) -> Option<f64> {
        EbuR128::loudness_global_multiple(self.windows.iter()).ok().filter(|loudness| loudness.is_finite())
    }

    /// The highest absolute sample value, in dBFS; `None` if all is silence.
    pub(super) fn peak(&self) -> Option<f64> {
        (self.peak > 0.0).then(|| 20.0 * f64::from(self.peak).log10())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: usize = AUDIO_RATE as usize;

    /// BS.1770-4 written down independently of the library, with the filter coefficients of its tables 1 and 2.
    mod reference {
        const STEP: usize = super::RATE / 10;

        fn biquad(samples: &[f64], b: [f64; 3], a: [f64; 2]) -> Vec<f64> {
            let mut z = [0.0; 2];
            let step = |x: &f64| {
                let y = b[0] * x + z[0];
                z = [b[1] * x - a[0] * y + z[1], b[2] * x - a[1] * y];
                y
            };
            samples.iter().map(step).collect()
        }

        /// The powers of the gating blocks of a window, without its first 100 ms.
        fn blocks(channels: &[Vec<f32>; 2]) -> Vec<f64> {
            let mut steps = vec![0.0; channels[0].len() / STEP];
            for channel in channels {
                let samples: Vec<f64> = channel.iter().map(|sample| f64::from(*sample)).collect();
                let shelf =
                    ([1.53512485958697, -2.69169618940638, 1.19839281085285], [-1.69065929318241, 0.73248077421585]);
                let high_pass = ([1.0, -2.0, 1.0], [-1.99004745483398, 0.99007225036621]);
                let weighted = biquad(&biquad(&samples, shelf.0, shelf.1), high_pass.0, high_pass.1);
                for (step, samples) in steps.iter_mut().zip(weighted.chunks_exact(STEP)) {
                    *step += samples.iter().map(|s| s * s).sum::<f64>();
                }
            }
            steps[1..].windows(4).map(|steps| steps.iter().sum::<f64>() / (4 * STEP) as f64).collect()
        }

        pub(super) fn loudness(windows: &[[Vec<f32>; 2]]) -> Option<f64> {
            let blocks: Vec<f64> = windows.iter().flat_map(blocks).collect();
            let lufs = |power: f64| -0.691 + 10.0 * power.max(1e-12).log10();
            let gated = |gate: f64| {
                let kept: Vec<f64> = blocks.iter().copied().filter(|power| lufs(*power) > gate).collect();
                (!kept.is_empty()).then(|| lufs(kept.iter().sum::<f64>() / kept.len() as f64))
            };
            gated((gated(-70.0)? - 10.0).max(-70.0))
        }
    }

    fn measured(windows: &[[Vec<f32>; 2]]) -> Option<f64> {
        let mut meter = LoudnessMeter::default();
        windows.iter().for_each(|window| meter.add(window).unwrap());
        meter.loudness()
    }

    fn sine(dbfs: f64, seconds: f64) -> Vec<f32> {
        let amplitude = 10f64.powf(dbfs / 20.0);
        let sample = |n: usize| (amplitude * (n as f64 * 1000.0 * std::f64::consts::TAU / RATE as f64).sin()) as f32;
        (0..(seconds * RATE as f64) as usize).map(sample).collect()
    }

    /// Stereo sines of 1 kHz, one after the other: level in dBFS and seconds.
    fn sines(parts: &[(f64, f64)]) -> [Vec<f32>; 2] {
        let channel: Vec<f32> = parts.iter().flat_map(|(dbfs, seconds)| sine(*dbfs, *seconds)).collect();
        [channel.clone(), channel]
    }

    /// EBU Tech 3341 (version 3), table 1, cases 1 to 5: sines of 1 kHz, their integrated loudness within 0.1 LU.
    #[test]
    fn the_cases_of_ebu_tech_3341_read_as_required() {
        let cases: [(&[(f64, f64)], f64); 5] = [
            (&[(-23.0, 20.0)], -23.0),
            (&[(-33.0, 20.0)], -33.0),
            (&[(-36.0, 10.0), (-23.0, 60.0), (-36.0, 10.0)], -23.0),
            (&[(-72.0, 10.0), (-36.0, 10.0), (-23.0, 60.0), (-36.0, 10.0), (-72.0, 10.0)], -23.0),
            (&[(-26.0, 20.0), (-20.0, 20.1), (-26.0, 20.0)], -23.0),
        ];
        for (parts, expected) in cases {
            let window = [sines(parts)];
            let found = measured(&window).unwrap();
            assert!((found - expected).abs() < 0.1, "{parts:?}: {found}");
            assert!((found - reference::loudness(&window).unwrap()).abs() < 0.01, "{parts:?}: {found}");
        }
    }

    #[test]
    fn levels_in_separate_windows_are_gated_together() {
        let windows = [-36.0, -23.0, -23.0, -23.0, -36.0].map(|dbfs| sines(&[(dbfs, 3.0)]));
        let found = measured(&windows).unwrap();
        assert!((found + 23.0).abs() < 0.1, "{found}");
        assert!((found - reference::loudness(&windows).unwrap()).abs() < 0.01);
    }

    #[test]
    fn silence_and_too_short_windows_have_no_loudness() {
        assert_eq!(LoudnessMeter::default().loudness(), None);
        let mut meter = LoudnessMeter::default();
        meter.add(&[vec![0.0; 2 * RATE], vec![0.0; 2 * RATE]]).unwrap();
        meter.add(&[Vec::new(), Vec::new()]).unwrap();
        meter.add(&[vec![0.0; 10], vec![0.0; 10]]).unwrap();
        assert_eq!((meter.loudness(), meter.peak()), (None, None));
    }

    #[test]
    fn the_peak_is_that_of_the_highest_sample() {
        let mut meter = LoudnessMeter::default();
        meter.add(&sines(&[(-23.0, 1.0)])).unwrap();
        assert!((meter.peak().unwrap() + 23.0).abs() < 0.01);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Noise of changing level and colour, different in the two channels, in windows of three seconds.
        #[test]
        fn any_sound_reads_as_by_the_standard(
            seed in any::<u64>(),
            levels in prop::collection::vec(-90.0..6.0f64, 6..30),
            smooth in 0.0..0.99f64,
        ) {
            let mut state = seed | 1;
            let mut noise = |last: &mut f64, dbfs: f64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *last = *last * smooth + (state as f64 / u64::MAX as f64 - 0.5) * (1.0 - smooth);
                (*last * 10f64.powf(dbfs / 20.0)) as f32
            };
            let windows: Vec<[Vec<f32>; 2]> = levels.chunks(6).map(|levels| {
                let mut channel = |change: f64| -> Vec<f32> {
                    let mut last = 0.0;
                    levels.iter().flat_map(|dbfs| vec![*dbfs + change; RATE / 2])
                        .map(|dbfs| noise(&mut last, dbfs)).collect()
                };
                [channel(0.0), channel(-3.0)]
            }).collect();
            match (measured(&windows), reference::loudness(&windows)) {
                (Some(found), Some(expected)) => prop_assert!((found - expected).abs() < 0.01, "{found} {expected}"),
                (found, expected) => prop_assert_eq!(found, expected),
            }
        }
    }
}

//! Which rendition comes next: a throughput estimate and a rule over it. Pure.
//!
//! The estimate is the lower of two exponentially weighted means, a quick one and a slow one, so that it falls at once
//! and rises with caution; the rule goes up only with room to spare and down without delay. That is how the players
//! in wide use behave, and a load generator that adapted otherwise would load a server otherwise.

use std::time::Duration;

/// How the rendition is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// By measured throughput, from the lowest rendition on.
    Throughput,
    /// Always the lowest.
    Lowest,
    /// Always the highest.
    Highest,
}

const QUICK_HALF_LIFE_SECONDS: f64 = 3.0;
const SLOW_HALF_LIFE_SECONDS: f64 = 9.0;
/// Shares of the estimate that a rendition may take to be kept, and to be gone up to.
const MAX_SHARE_TO_KEEP: f64 = 0.95;
const MAX_SHARE_TO_CLIMB: f64 = 0.7;
/// Transfers below this many bytes measure round trips, not throughput.
const MIN_SAMPLE_BYTES: u64 = 16 << 10;

/// Throughput as seen by one viewer.
#[derive(Clone, Debug, Default)]
pub struct Throughput {
    quick: Mean,
    slow: Mean,
}

/// An exponentially weighted mean by transfer time, with the bias of its start taken out.
#[derive(Clone, Debug, Default)]
struct Mean {
    value: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: f64, seconds: f64, half_life: f64) {
        let keep = 0.5f64.powf(seconds / half_life);
        self.value = self.value * keep + value * (1.0 - keep);
        self.weight = self.weight * keep + (1.0 - keep);
    }

    fn get(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.value / self.weight)
    }
}

impl Throughput {
    /// A body of `bytes` took `took` from the request to its last byte.
    pub fn sample(&mut self, bytes: u64, took: Duration) {
        if bytes < MIN_SAMPLE_BYTES {
            return;
        }
        let seconds = took.as_secs_f64().max(0.001);
        let rate = bytes as f64 * 8.0 / seconds;
        self.quick.add(rate, seconds, QUICK_HALF_LIFE_SECONDS);
        self.slow.add(rate, seconds, SLOW_HALF_LIFE_SECONDS);
    }

    /// Bits per second; `None` before the first sample.
    pub fn estimate(&self) -> Option<f64> {
        Some(self.quick.get()?.min(self.slow.get()?))
    }
}

impl Policy {
    /// The index into `bandwidths` (peaks, rising) to take next, coming from `current`. With less than `scarce` of
    /// `buffered` media nothing goes up: the risk would be a stall, the gain a few seconds of sharper picture.
    pub fn choose(
        self,
        bandwidths: &[u64],
        current: usize,
        estimate: Option<f64>,
        buffered: Duration,
        scarce: Duration,
    ) -> usize {
        let highest = bandwidths.len().saturating_sub(1);
        let current = current.min(highest);
        match self {
            Self::Lowest => 0,
            Self::Highest => highest,
            Self::Throughput => {
                let Some(estimate) = estimate else {
                    return current;
                };
                let fits =
                    |share: f64| bandwidths.iter().rposition(|needs| *needs as f64 <= estimate * share).unwrap_or(0);
                let (kept, climbed) = (fits(MAX_SHARE_TO_KEEP), fits(MAX_SHARE_TO_CLIMB));
                if climbed > current { if buffered < scarce { current } else { climbed } } else { kept.min(current) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LADDER: [u64; 4] = [400_000, 900_000, 2_000_000, 5_000_000];
    const PLENTY: Duration = Duration::from_secs(20);
    const SCARCE: Duration = Duration::from_secs(4);

    #[test]
    fn the_estimate_falls_at_once_and_rises_with_caution() {
        let mut throughput = Throughput::default();
        assert_eq!(throughput.estimate(), None);
        let second = Duration::from_secs(1);
        for _ in 0..20 {
            throughput.sample(1_000_000, second);
        }
        let steady = throughput.estimate().unwrap();
        assert!((steady - 8e6).abs() < 1e3, "{steady}");
        let mut risen = throughput.clone();
        risen.sample(4_000_000, second);
        throughput.sample(250_000, second);
        let fell = 8e6 - throughput.estimate().unwrap();
        let rose = risen.estimate().unwrap() - 8e6;
        assert!(fell > 1e6, "a quarter of the throughput shows within one second: {fell}");
        assert!(rose / 24e6 < fell / 6e6 / 2.0, "rising takes more than twice as long: {rose} {fell}");
    }

    #[test]
    fn small_bodies_measure_nothing() {
        let mut throughput = Throughput::default();
        throughput.sample(700, Duration::from_millis(1));
        assert_eq!(throughput.estimate(), None);
    }

    #[test]
    fn going_up_wants_room_and_a_buffer_and_going_down_does_not_wait() {
        let choose = |current, estimate: f64, buffered| {
            Policy::Throughput.choose(&LADDER, current, Some(estimate), buffered, SCARCE)
        };
        assert_eq!(choose(0, 3e6, PLENTY), 2);
        assert_eq!(choose(0, 2.5e6, PLENTY), 1, "2 Mbit/s do not fit into seven tenths of 2.5");
        assert_eq!(choose(2, 2.5e6, PLENTY), 2, "and are not left for it");
        assert_eq!(choose(0, 3e6, Duration::from_secs(1)), 0);
        assert_eq!(choose(3, 1e6, Duration::from_secs(1)), 1);
        assert_eq!(choose(3, 1e3, PLENTY), 0, "nothing fits: the lowest");
    }

    proptest! {
        #[test]
        fn a_choice_is_always_on_the_ladder(
            mut ladder in prop::collection::vec(1u64..1_000_000_000, 0..8), current in 0usize..20,
            estimate in prop::option::of(0.0f64..1e10), buffered in 0u64..100,
            policy in prop::sample::select(vec![Policy::Throughput, Policy::Lowest, Policy::Highest]),
        ) {
            ladder.sort_unstable();
            let chosen = policy.choose(&ladder, current, estimate, Duration::from_secs(buffered), SCARCE);
            prop_assert!(chosen < ladder.len().max(1));
            // More throughput never means a lower rendition.
            if let Some(estimate) = estimate {
                let better = policy.choose(&ladder, current, Some(estimate * 2.0), Duration::from_secs(buffered), SCARCE);
                prop_assert!(better >= chosen);
            }
        }
    }
}

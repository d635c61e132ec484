//! Time to first byte: a histogram for each cache outcome, and a count of the responses that took no waiting.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Atomic as _, Collector, Desc};
use prometheus::proto::{Bucket, Histogram as Sampled, MetricFamily};
use prometheus::{Histogram, HistogramVec, Registry};

use crate::cache_status::CacheOutcome;
use lyceum_core::telemetry::{self, StripedCounter};

const LABEL: &str = "outcome";

/// Clones share their values.
#[derive(Clone, Debug)]
pub(crate) struct FirstByte {
    family: HistogramVec,
    waited: [Histogram; CacheOutcome::ALL.len()],
    /// Hits in memory, which wait for nothing. Reading the clock would cost as much as the hit itself, so they count as
    /// zero seconds.
    at_once: Arc<[StripedCounter; CacheOutcome::ALL.len()]>,
}

impl FirstByte {
    pub(crate) fn new(registry: &Registry) -> Self {
        // Not registered by itself: collected as a part of this collector.
        let family = telemetry::histograms(
            &Registry::new(),
            "lyceum_edge_first_byte_seconds",
            "Time from a request's header to the first byte of its answer being there; none for hits that wait for nothing.",
            &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
            &[LABEL],
        );
        let waited = CacheOutcome::ALL.map(|outcome| family.with_label_values(&[outcome.name()]));
        let at_once = Arc::new(CacheOutcome::ALL.map(|_| StripedCounter::new(0)));
        telemetry::registered(registry, Self { family, waited, at_once })
    }

    pub(crate) fn observe(&self, outcome: CacheOutcome, took: Duration) {
        if let Some(histogram) = self.waited.get(outcome.index()) {
            histogram.observe(took.as_secs_f64());
        }
    }

    pub(crate) fn at_once(&self, outcome: CacheOutcome) {
        if let Some(count) = self.at_once.get(outcome.index()) {
            count.inc_by(1);
        }
    }
}

impl Collector for FirstByte {
    fn desc(&self) -> Vec<&Desc> {
        self.family.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.family.collect();
        for metric in families.iter_mut().flat_map(MetricFamily::mut_metric) {
            let is_of = |outcome: &CacheOutcome| {
                metric.get_label().iter().any(|label| label.name() == LABEL && label.value() == outcome.name())
            };
            let outcome = CacheOutcome::ALL.iter().find(|outcome| is_of(outcome));
            let more = outcome.and_then(|outcome| self.at_once.get(outcome.index())).map_or(0, |count| count.get());
            metric.set_histogram(with(metric.get_histogram(), more));
        }
        families
    }
}

/// The histogram with `more` observations of zero seconds: they are in every bucket and add nothing to the sum.
fn with(sampled: &Sampled, more: u64) -> Sampled {
    let mut all = sampled.clone();
    all.set_sample_count(sampled.get_sample_count() + more);
    let bucket = |bucket: &Bucket| {
        let mut with = bucket.clone();
        with.set_cumulative_count(bucket.cumulative_count() + more);
        with
    };
    all.set_bucket(sampled.get_bucket().iter().map(bucket).collect());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_at_once_is_in_the_first_bucket() {
        let registry = Registry::new();
        let first_byte = FirstByte::new(&registry);
        first_byte.observe(CacheOutcome::Hit, Duration::from_millis(200));
        (0..3).for_each(|_| first_byte.at_once(CacheOutcome::Hit));
        first_byte.observe(CacheOutcome::Miss, Duration::from_micros(200));
        let text = String::from_utf8(telemetry::render(&registry)).unwrap();
        for line in [
            "_bucket{outcome=\"hit\",le=\"0.0001\"} 3",
            "_bucket{outcome=\"hit\",le=\"0.1\"} 3",
            "_bucket{outcome=\"hit\",le=\"0.25\"} 4",
            "_bucket{outcome=\"hit\",le=\"+Inf\"} 4",
            "_count{outcome=\"hit\"} 4",
            "_sum{outcome=\"hit\"} 0.2",
            "_bucket{outcome=\"miss\",le=\"0.0001\"} 0",
            "_count{outcome=\"miss\"} 1",
        ] {
            assert!(text.contains(&format!("lyceum_edge_first_byte_seconds{line}\n")), "{line} in {text}");
        }
    }
}

//! The registry of metrics and the log.
//!
//! Metrics are named `lyceum_<part>_<thing>_<unit>[_total]` in base units, with labels of few values (never a
//! user or a token). A module registers once and keeps its handles: a look-up by label costs more than an increment.

mod log_queue;
mod log_rate;
pub mod logs;
mod striped_counter;

use std::collections::HashMap;

use prometheus::core::{Collector, GenericCounter, GenericCounterVec, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

pub use striped_counter::StripedCounter;

/// A counter that every request adds to.
pub type HotCounter = GenericCounter<StripedCounter>;

/// The media type of [`render`] (Prometheus text format 0.0.4).
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of a registry as text.
pub fn render(registry: &Registry) -> Vec<u8> {
    let mut text = Vec::new();
    if let Err(cause) = TextEncoder::new().encode(&registry.gather(), &mut text) {
        tracing::error!(%cause, "metrics could not be written");
    }
    text
}

/// Registers a collector.
pub fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    if let Err(cause) = registry.register(Box::new(collector.clone())) {
        tracing::error!(%cause, "a metric could not be registered");
    }
    collector
}

/// Registers a collector. A name that is taken or malformed is a bug: it is logged, the
/// metric is not exported, and nothing else is affected.
fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
    fallback: fn() -> C,
) -> C {
    let registered = made.and_then(|collector| registry.register(Box::new(collector.clone())).map(|()| collector));
    registered.unwrap_or_else(|cause| {
        tracing::error!(%cause, "a metric could not be registered");
        fallback()
    })
}

macro_rules! spare {
    ($made:expr) => {
        || match $made {
            Ok(collector) => collector,
            // The literals below are valid names, so this arm is never reached.
            Err(_) => std::process::abort(),
        }
    };
}

/// A counter of whole things.
pub fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help), spare!(IntCounter::new("spare_total", "spare")))
}

/// A family of counters.
pub fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let made = IntCounterVec::new(Opts::new(name, help), labels);
    register(registry, made, spare!(IntCounterVec::new(Opts::new("spare_total", "spare"), &["label"])))
}

/// A family of counters that every request adds to.
pub fn hot_counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GenericCounterVec<StripedCounter> {
    let made = GenericCounterVec::new(Opts::new(name, help), labels);
    register(registry, made, spare!(GenericCounterVec::new(Opts::new("spare_total", "spare"), &["label"])))
}

/// A counter of seconds or other fractions.
pub fn fractions(registry: &Registry, name: &str, help: &str) -> prometheus::Counter {
    let made = prometheus::Counter::new(name, help);
    register(registry, made, spare!(prometheus::Counter::new("spare_total", "spare")))
}

/// A whole number that rises and falls.
pub fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help), spare!(IntGauge::new("spare", "spare")))
}

/// A family of whole numbers that rise and fall.
pub fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let made = IntGaugeVec::new(Opts::new(name, help), labels);
    register(registry, made, spare!(IntGaugeVec::new(Opts::new("spare", "spare"), &["label"])))
}

/// A number with a fraction that rises and falls.
pub fn level(registry: &Registry, name: &str, help: &str) -> Gauge {
    register(registry, Gauge::new(name, help), spare!(Gauge::new("spare", "spare")))
}

/// A family of numbers with fractions that rise and fall.
pub fn levels(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    let made = GaugeVec::new(Opts::new(name, help), labels);
    register(registry, made, spare!(GaugeVec::new(Opts::new("spare", "spare"), &["label"])))
}

/// Removes the series of a family that have all of these labels: what they are about is no more.
pub fn remove_series<T: MetricVecBuilder>(family: &MetricVec<T>, labels: &[(&str, &str)]) {
    let families = family.collect();
    for metric in families.iter().flat_map(MetricFamily::get_metric) {
        let of: HashMap<&str, &str> = metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
        if labels.iter().all(|(name, value)| of.get(name) == Some(value)) {
            // An error means that another removed it.
            let _ = family.remove(&of);
        }
    }
}

/// A distribution; `buckets` are upper bounds in the metric's unit, ascending.
pub fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let made = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()));
    register(registry, made, spare!(Histogram::with_opts(HistogramOpts::new("spare", "spare"))))
}

/// A family of distributions.
pub fn histograms(registry: &Registry, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
    let made = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels);
    register(registry, made, spare!(HistogramVec::new(HistogramOpts::new("spare", "spare"), &["label"])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let registry = Registry::new();
        counters(&registry, "lyceum_test_things_total", "Things.", &["kind"]).with_label_values(&["a"]).inc();
        let text = String::from_utf8(render(&registry)).unwrap();
        assert!(text.contains("lyceum_test_things_total{kind=\"a\"} 1"), "{text}");
    }

    #[test]
    fn series_of_what_is_no_more_are_removed() {
        let registry = Registry::new();
        let family = counters(&registry, "lyceum_test_things_total", "Things.", &["pool", "kind", "origin"]);
        for (pool, origin) in [("a", "1"), ("a", "2"), ("b", "1")] {
            ["x", "y"].iter().for_each(|kind| family.with_label_values(&[pool, kind, origin]).inc());
        }
        remove_series(&family, &[("pool", "a"), ("origin", "1")]);
        let text = String::from_utf8(render(&registry)).unwrap();
        assert!(!text.contains("origin=\"1\",pool=\"a\""), "{text}");
        assert_eq!(text.matches("\nlyceum_test_things_total{").count(), 4, "{text}");
    }

    #[test]
    fn a_name_taken_twice_stops_nothing() {
        let registry = Registry::new();
        counter(&registry, "lyceum_test_total", "Once.").inc();
        counter(&registry, "lyceum_test_total", "Twice.").inc();
        assert!(String::from_utf8(render(&registry)).unwrap().contains("lyceum_test_total 1"));
    }
}

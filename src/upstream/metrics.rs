//! The metrics of all pools of a process.

use lyceum_core::telemetry;
use prometheus::Registry;

/// Handles of the metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) requests: prometheus::IntCounterVec,
    pub(crate) up: prometheus::IntGaugeVec,
    pub(crate) in_flight: prometheus::IntGaugeVec,
    pub(crate) first_byte: prometheus::HistogramVec,
}

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> Self {
        let origin = &["pool", "origin"];
        Self {
            requests: telemetry::counters(
                registry,
                "lyceum_upstream_requests_total",
                "Requests to origins by what came of them.",
                &["pool", "origin", "result"],
            ),
            up: telemetry::gauges(
                registry,
                "lyceum_upstream_origin_up",
                "Whether an origin is used (1) or out (0).",
                origin,
            ),
            in_flight: telemetry::gauges(
                registry,
                "lyceum_upstream_in_flight_requests",
                "Requests to an origin whose body has not ended.",
                origin,
            ),
            first_byte: telemetry::histograms(
                registry,
                "lyceum_upstream_first_byte_seconds",
                "Time from asking an origin to the header of its answer.",
                &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
                &["pool"],
            ),
        }
    }
}

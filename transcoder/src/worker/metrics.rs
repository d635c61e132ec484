//! Metrics of a worker.

use lyceum_core::telemetry;
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

/// The metrics.
pub(super) struct Metrics {
    pub(super) tasks: IntCounterVec,
    pub(super) task_seconds: HistogramVec,
    pub(super) running: IntGauge,
    pub(super) leases: IntCounterVec,
    pub(super) object_bytes: IntCounter,
    pub(super) source_bytes: IntCounter,
}

impl Metrics {
    /// Registers them.
    pub(super) fn new(registry: &Registry, slots: u64) -> Self {
        let buckets = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 150.0, 600.0, 3600.0];
        telemetry::gauge(registry, "lyceum_worker_slots", "Tasks that this worker runs at once.")
            .set(i64::try_from(slots).unwrap_or(i64::MAX));
        Self {
            tasks: telemetry::counters(
                registry,
                "lyceum_worker_tasks_total",
                "Tasks by kind and how they ended.",
                &["task", "result"],
            ),
            task_seconds: telemetry::histograms(
                registry,
                "lyceum_worker_task_seconds",
                "How long tasks took.",
                &buckets,
                &["task"],
            ),
            running: telemetry::gauge(registry, "lyceum_worker_tasks_running", "Tasks under way."),
            leases: telemetry::counters(
                registry,
                "lyceum_worker_leases_total",
                "Requests for a task by what came of them.",
                &["result"],
            ),
            object_bytes: telemetry::counter(
                registry,
                "lyceum_worker_object_bytes_total",
                "Bytes of objects handed over.",
            ),
            source_bytes: telemetry::counter(registry, "lyceum_worker_source_bytes_total", "Bytes read of sources."),
        }
    }
}

//! The metrics of the disk tier.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use lyceum_core::telemetry;

/// Sizes, reads and writes.
#[derive(Clone, Debug)]
pub(super) struct DiskMetrics {
    pub(super) bytes: IntGauge,
    pub(super) objects: IntGauge,
    pub(super) reads: IntCounterVec,
    pub(super) writes: IntCounterVec,
    pub(super) evicted: IntCounter,
}

impl DiskMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let metrics = Self {
            bytes: telemetry::gauge(registry, "lyceum_edge_disk_bytes", "Disk that stored responses take."),
            objects: telemetry::gauge(registry, "lyceum_edge_disk_objects", "Responses that are stored on disk."),
            reads: telemetry::counters(
                registry,
                "lyceum_edge_disk_reads_total",
                "Stored responses looked for on disk by what came of it.",
                &["result"],
            ),
            writes: telemetry::counters(
                registry,
                "lyceum_edge_disk_writes_total",
                "Responses to be written to disk by what came of it.",
                &["result"],
            ),
            evicted: telemetry::counter(
                registry,
                "lyceum_edge_disk_evictions_total",
                "Responses that made room for others on disk.",
            ),
        };
        // A series that appears with its first count hides that count from rate().
        for result in ["hit", "corrupt", "gone", "failed"] {
            metrics.reads.with_label_values(&[result]);
        }
        for result in ["ok", "renewed", "too_large", "purged", "queue_full", "failed", "resting"] {
            metrics.writes.with_label_values(&[result]);
        }
        metrics
    }

    pub(super) fn read(&self, result: &str) {
        self.reads.with_label_values(&[result]).inc();
    }

    pub(super) fn wrote(&self, result: &str) {
        self.writes.with_label_values(&[result]).inc();
    }
}

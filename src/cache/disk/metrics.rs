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
            bytes: telemetry::gauge(registry, "lyceum_edge_disk_bytes", "Bytes on disk that stored responses take."),
            objects: telemetry::gauge(registry, "lyceum_edge_disk_objects", "Responses that are stored on disk."),
            reads: telemetry::counters(
                registry,
                "lyceum_edge_disk_reads_total",
                "Reads of stored responses from disk by result.",
                &["result"],
            ),
            writes: telemetry::counters(
                registry,
                "lyceum_edge_disk_writes_total",
                "Writes of responses to disk by result.",
                &["result"],
            ),
            evicted: telemetry::counter(
                registry,
                "lyceum_edge_disk_evictions_total",
                "Responses evicted from disk to make room.",
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

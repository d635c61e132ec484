//! What came of reading configuration and certificates again: where it fails, what was in force stays, and nothing else
//! shows that.

use lyceum_core::telemetry;
use prometheus::{IntCounterVec, IntGaugeVec, Registry};

/// What is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reloaded {
    Configuration,
    Certificates,
}

impl Reloaded {
    fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Certificates => "certificates",
        }
    }
}

/// Handles of the metrics.
pub(super) struct ReloadMetrics {
    reloads: IntCounterVec,
    failed: IntGaugeVec,
}

impl ReloadMetrics {
    /// Registers them.
    pub(super) fn new(registry: &Registry) -> Self {
        let metrics = Self {
            reloads: telemetry::counters(
                registry,
                "lyceum_front_reloads_total",
                "Times that configuration and certificates were read again, by what came of it.",
                &["what", "result"],
            ),
            failed: telemetry::gauges(
                registry,
                "lyceum_front_reload_failed",
                "Whether the last reload failed (1), so that what was in force before stays.",
                &["what"],
            ),
        };
        for what in [Reloaded::Configuration, Reloaded::Certificates] {
            metrics.failed.with_label_values(&[what.name()]);
            for result in ["ok", "failed"] {
                metrics.reloads.with_label_values(&[what.name(), result]);
            }
        }
        metrics
    }

    /// Notes one reload.
    pub(super) fn reloaded(&self, what: Reloaded, ok: bool) {
        self.reloads.with_label_values(&[what.name(), if ok { "ok" } else { "failed" }]).inc();
        self.failed.with_label_values(&[what.name()]).set(i64::from(!ok));
    }
}

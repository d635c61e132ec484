//! The metrics of origins that a reload took out: an origin that is configured no more is not down.

use lyceum_core::telemetry;

use crate::metrics::Metrics;
use crate::pool::Pool;

/// Removes the series of pools and origins that are in `former` and not in `in_force`. Their requests under way count no
/// more.
pub fn remove_retired(metrics: &Metrics, former: &[&Pool], in_force: &[&Pool]) {
    for pool in former {
        let same: Vec<&&Pool> = in_force.iter().filter(|other| other.name() == pool.name()).collect();
        let is_in_force = |label: &str| same.iter().any(|other| other.labels().any(|one| one == label));
        for origin in pool.labels().filter(|label| !is_in_force(label)) {
            let labels = [("pool", pool.name()), ("origin", origin)];
            telemetry::remove_series(&metrics.up, &labels);
            telemetry::remove_series(&metrics.in_flight, &labels);
            telemetry::remove_series(&metrics.requests, &labels);
        }
        if same.is_empty() {
            telemetry::remove_series(&metrics.first_byte, &[("pool", pool.name())]);
        }
    }
}

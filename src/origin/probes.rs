//! The probes behind [`crate::readiness`]: a write to the database and one to the object store, again and again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use lyceum_core::units::Span;

use crate::readiness::Part;
use crate::state::App;

/// Time between two probes while one part does not take writes.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Probes until the origin drains.
pub(super) async fn run(app: Arc<App>) {
    loop {
        let config = app.config().readiness;
        let (database, store) = tokio::join!(
            within(config.timeout, app.db.probe(app.clock.unix_millis())),
            within(config.timeout, app.store.probe()),
        );
        let mut all = true;
        for (part, outcome) in [(Part::Database, database), (Part::Store, store)] {
            let written = app.readiness.note(part, &outcome);
            app.metrics.writable.with_label_values(&[part.label()]).set(i64::from(written));
            all &= written;
        }
        let wait = if all { config.interval.get() } else { RETRY_INTERVAL };
        tokio::select! {
            () = sleep(wait) => {}
            () = app.shutdown.draining() => return,
        }
    }
}

async fn within<E: fmt::Display>(limit: Span, write: impl Future<Output = Result<(), E>>) -> Result<(), String> {
    match timeout(limit.get(), write).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it does not answer within {limit}")),
    }
}

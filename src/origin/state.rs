//! What requests and background work share: one [`App`] for each origin process.

use std::sync::Arc;

use tokio::sync::Notify;

use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::Clock;
use lyceum_storage::db::Db;
use lyceum_storage::store::Store;
use lyceum_storage::upload::Uploads;

use crate::attempts::Attempts;
use crate::config::{Config, Live};
use crate::ingest::context::Ingest;
use crate::keys::sealing::Sealer;
use crate::keys::signing::SigningKeys;
use crate::keys::worker_key::WorkerKey;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::waiting::Waiting;

/// What requests and background work share.
pub(crate) struct App {
    pub(crate) config: Live,
    pub(crate) clock: Clock,
    pub(crate) db: Db,
    pub(crate) store: Store,
    pub(crate) signing_keys: SigningKeys,
    pub(crate) sealer: Sealer,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) uploads: Uploads,
    pub(crate) shutdown: Shutdown,
    pub(crate) metrics: Metrics,
    pub(crate) worker_key: WorkerKey,
    /// Wrong keys of logins, by address.
    pub(crate) login_attempts: Attempts,
    /// Wrong keys of requests, by address.
    pub(crate) request_attempts: Attempts,
    /// Event streams and long polls under way.
    pub(crate) waiting: Waiting,
    /// Notified when the feed of revocations has grown.
    pub(crate) revoked: Notify,
    /// Whether database and object store take writes.
    pub(crate) readiness: Readiness,
}

impl App {
    /// The configuration in force. Held no longer than one use: a reload replaces it.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }
}

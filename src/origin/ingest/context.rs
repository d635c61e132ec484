//! What all steps of the ingest share.

use std::sync::Arc;

use tokio::sync::Notify;

use lyceum_core::ids::Id;
use lyceum_core::time::Clock;
use lyceum_storage::db::{Db, DbError, Tx};
use lyceum_storage::store::Store;
use lyceum_storage::upload::Uploads;

use crate::config::Live;
use crate::ingest::snapshot::{Snapshot, Snapshots};
use crate::keys::sealing::Sealer;

/// What all steps of the ingest share.
pub(crate) struct Ingest {
    pub(crate) db: Db,
    pub(crate) store: Store,
    pub(crate) uploads: Uploads,
    pub(crate) clock: Clock,
    pub(crate) config: Live,
    pub(crate) sealer: Sealer,
    pub(crate) snapshots: Snapshots,
    /// Seconds from a complete upload to a lesson that plays.
    pub(crate) playable: prometheus::Histogram,
    /// Notified when a lesson has changed or a task waits.
    pub(crate) changed: Notify,
}

impl Ingest {
    /// The committed state of a version, kept for the next reader; `None` while it is not planned.
    pub(crate) async fn snapshot(&self, tx: &mut Tx, version: &Id) -> Result<Option<Arc<Snapshot>>, DbError> {
        let snapshot = self.snapshots.load(tx, version).await?;
        if let Some(snapshot) = &snapshot {
            self.snapshots.keep(version, snapshot);
        }
        Ok(snapshot)
    }
}

//! Why an origin can't start.

use lyceum_storage::db::DbError;
use lyceum_storage::store::StoreError;
use lyceum_token::KeyError;

use crate::keys::sealing::SealError;

/// Why an origin can't start. The text names the key of `origin.toml` that leads to the cause.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database.
    #[error("`database`: {0}")]
    Database(#[from] DbError),
    /// The object store.
    #[error("`store`: {0}")]
    Store(#[from] StoreError),
    /// The keys that sign tokens.
    #[error("`tokens.keys`: {0}")]
    Keys(#[from] KeyError),
    /// The keys that seal lessons' content keys.
    #[error("`encryption.sealing_keys`: {0}")]
    Sealing(#[from] SealError),
    /// Metrics registered twice.
    #[error("the metrics can't be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The transcoding processes.
    #[error("`workers`: {0}")]
    Workers(String),
}

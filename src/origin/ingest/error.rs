//! Why a step of the ingest could not be done. Knows nothing of HTTP: `api::refusal` says what a client is told.

use lyceum_storage::db::DbError;
use lyceum_storage::store::StoreError;
use lyceum_storage::upload::UploadError;

use crate::keys::sealing::SealError;

/// Why a step of the ingest could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    /// The task is another worker's by now, or nobody's.
    #[error("the lease was lost")]
    LeaseLost,
    /// A retry was asked for a lesson that has not failed.
    #[error("the lesson has not failed")]
    NotFailed,
    /// No failed task of the lesson is worth another try.
    #[error("another try would end as the first one did")]
    NothingToRetry,
    /// What a worker reports does not fit the plan or what is in the store; a whole sentence.
    #[error("{0}")]
    InvalidReport(String),
    /// No object can have this path.
    #[error("not the path of an object")]
    InvalidPath,
    /// Uploads, except for what their store or database refused.
    #[error(transparent)]
    Upload(UploadError),
    /// The object store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A content key can't be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// What is kept can't be read or written as it should: a fault of this program or of the data.
    #[error("{0}")]
    Internal(String),
}

impl IngestError {
    /// Whether the database or the object store does not answer, which may pass.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Db(error) => error.is_transient(),
            Self::Store(error) => error.is_transient(),
            _ => false,
        }
    }
}

impl From<UploadError> for IngestError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Store(error) => Self::Store(error),
            UploadError::Db(error) => Self::Db(error),
            other => Self::Upload(other),
        }
    }
}

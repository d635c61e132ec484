//! Why an upload, or a request for one, was refused.

use crate::db::error::DbError;
use crate::store::error::StoreError;

/// Why a request for an upload was refused.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// There is no upload of that id.
    #[error("there is no upload of that id")]
    NotFound,
    /// It was ended by its client, or it expired.
    #[error("the upload was ended or its time is over")]
    Gone,
    /// The store lost bytes that were acknowledged: the client has to begin again.
    #[error("the store no longer has what was uploaded; begin again")]
    Lost,
    /// The offset is not the one that was acknowledged last.
    #[error("the offset is not {expected}")]
    WrongOffset {
        /// The acknowledged one, in bytes.
        expected: u64,
    },
    /// More bytes than the upload has.
    #[error("the body is longer than what is left of the upload")]
    TooLong,
    /// The whole upload is larger than allowed.
    #[error("an upload may have {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// More bytes than its owner may keep; what came before is kept.
    #[error("there is no room left for this upload under its owner's quota")]
    OverQuota,
    /// The key has too many unfinished uploads.
    #[error("{limit} unfinished uploads are there already; GET /v1/uploads lists them, and DELETE ends one")]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// The length contradicts an earlier one, or what was received.
    #[error("the length contradicts what is known")]
    WrongLength,
    /// The body does not match its checksum; none of it was kept.
    #[error("the body does not match its checksum")]
    ChecksumMismatch,
    /// A newer request for the upload took over.
    #[error("a newer request for this upload took over")]
    Superseded,
    /// The body ended early; what came before is kept.
    #[error("the body broke off: {0}")]
    BrokenBody(String),
    /// It takes no bytes: it is whole, or a final one.
    #[error("the upload takes no bytes")]
    NotWritable,
    /// A part of a final upload can't be used.
    #[error("a part is not there, not whole, or not a part: {0}")]
    WrongPart(String),
    /// The store.
    #[error(transparent)]
    Store(StoreError),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<StoreError> for UploadError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Lost(what) => {
                tracing::error!(what, "the store lost bytes of an upload");
                Self::Lost
            }
            other => Self::Store(other),
        }
    }
}

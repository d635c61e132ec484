//! What can go wrong with the object store, and whether it may pass.

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("there is no object of that key")]
    NotFound,
    /// Bytes that were stored are gone, and no request brings them back: a bucket's rule or a person removed them.
    #[error("what was stored is gone: {0}")]
    Lost(String),
    /// The range asked for lies outside of the object.
    #[error("the range lies outside of the object's {size} bytes")]
    RangeNotSatisfiable {
        /// The object's size in bytes.
        size: u64,
    },
    /// Another writer has the growing object open.
    #[error("the growing object is held by another writer")]
    Held,
    /// The disk or the quota is full.
    #[error("the store is full: {0}")]
    Full(String),
    /// It does not answer, or is overloaded: the same request may succeed in a moment.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It refused, and will refuse again: access rights, a missing bucket, a lost part.
    #[error("the store refused: {0}")]
    Refused(String),
    /// The body to be stored ended early: its sender's fault.
    #[error("the body to be stored ended early: {0}")]
    Source(String),
}

impl StoreError {
    /// Whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full(_) | Self::Held)
    }

    pub(crate) fn io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::NotFound => Self::NotFound,
            Kind::StorageFull | Kind::QuotaExceeded => Self::Full(error.to_string()),
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem | Kind::NotADirectory | Kind::IsADirectory => {
                Self::Refused(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

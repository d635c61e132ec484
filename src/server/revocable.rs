//! Responses whose authorization may be revoked while they are being sent.
//!
//! A body is polled for its next piece only when its client has taken the last one, so it can't notice a revocation while
//! the client takes nothing. A handler puts a [`RevocationCheck`] into its response's extensions: the connection is then
//! ended soon after the revocation.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// An authorization that may be revoked.
pub trait Revocable: Send + Sync {
    /// A channel that changes when [`Revocable::is_valid`] may have changed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Whether it has not been revoked.
    fn is_valid(&self) -> bool;
}

/// A response extension by which the server checks a [`Revocable`].
#[derive(Clone)]
pub struct RevocationCheck(Arc<dyn Revocable>);

impl RevocationCheck {
    /// A check of `revocable`.
    pub fn new(revocable: impl Revocable + 'static) -> Self {
        Self(Arc::new(revocable))
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.0.is_valid()
    }
}

impl fmt::Debug for RevocationCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RevocationCheck").field(&self.is_valid()).finish()
    }
}

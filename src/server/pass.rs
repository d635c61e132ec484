//! What a response under way was given for, looked at also while its client takes nothing.
//!
//! A body is asked for its next piece only when its client takes the last one. A handler whose leave may end before
//! puts a [`Pass`] into its response's extensions: the connection then ends soon after the leave does.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// Leave that may end while a response goes out.
pub trait Permit: Send + Sync {
    /// Changes when [`Permit::holds`] may have changed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Whether it still holds.
    fn holds(&self) -> bool;
}

/// A [`Permit`] as a response carries it.
#[derive(Clone)]
pub struct Pass(Arc<dyn Permit>);

impl Pass {
    /// For the extensions of a response.
    pub fn new(permit: impl Permit + 'static) -> Self {
        Self(Arc::new(permit))
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }

    pub(super) fn holds(&self) -> bool {
        self.0.holds()
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pass").field(&self.holds()).finish()
    }
}

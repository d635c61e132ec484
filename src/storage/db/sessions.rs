//! Which of PostgreSQL's sessions may be used again. After a failover, sessions stay with the server that is a standby
//! now and refuses each write (SQLSTATE 25006); only a new session reaches the new primary.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lyceum_core::time::{Instant, monotonic};

use crate::db::error::DbError;

/// Sessions are given up at most this often: while no primary is there, reads go on over those that there are.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of the sessions of a pool; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    /// When a session refused a write because its server is read-only: those that began before are given up.
    refused: Arc<Mutex<Option<Instant>>>,
}

impl Sessions {
    /// Looks at an error of a statement, and passes it on.
    pub(super) fn note(&self, error: sqlx::Error) -> DbError {
        let error = DbError::from(error);
        if error.is_read_only() {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            let now = monotonic();
            if refused.is_none_or(|at| now.duration_since(at) >= MIN_INTERVAL) {
                *refused = Some(now);
                tracing::warn!("the database server is read-only; its sessions are given up for new ones");
            }
        }
        error
    }

    /// Whether a session of that age may be used.
    pub(super) fn may_use(&self, age: Duration) -> bool {
        let refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.is_none_or(|at| age < at.elapsed())
    }
}

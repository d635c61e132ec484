//! Which of PostgreSQL's sessions may be used again. After a failover, sessions stay with the server that is a standby
//! now and refuses each write (SQLSTATE 25006); only a new session reaches the new primary.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lyceum_core::time::{Instant, monotonic};

use crate::db::error::DbError;

/// For how long after a refused write the next ones are looked at before they begin: a session that only read until now
/// may be with the standby too.
const SUSPICION: Duration = Duration::from_secs(60);

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
            self.give_up();
        }
        error
    }

    /// Gives up the sessions that there are; each is closed before it would be used again.
    pub(super) fn give_up(&self) {
        if !self.are_suspect() {
            tracing::warn!("the database server is read-only; its sessions are given up for new ones");
        }
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(monotonic());
    }

    /// Whether a session of that age may be used.
    pub(super) fn may_use(&self, age: Duration) -> bool {
        self.since_refusal().is_none_or(|since| age < since)
    }

    /// Whether a write was refused a short while ago.
    pub(super) fn are_suspect(&self) -> bool {
        self.since_refusal().is_some_and(|since| since < SUSPICION)
    }

    fn since_refusal(&self) -> Option<Duration> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }
}

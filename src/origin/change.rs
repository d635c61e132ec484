//! A change that a caller makes: one transaction that locks what is changed, checks that the caller may, writes the
//! audit log, and on commit wakes whoever waits for it. What a handler or a rule does in between is all that differs.

use crate::access::{AccessError, Caller, own_lesson, visible_course};
use crate::state::App;
use lyceum_catalog::{self as catalog, Course, Lesson};
use lyceum_core::ids::Id;
use lyceum_storage::db::{DbError, Tx};

/// A change under way; dropped without [`Change::commit`], nothing of it remains.
pub(crate) struct Change<'a> {
    pub(crate) tx: Tx,
    app: &'a App,
    caller: &'a Caller,
}

/// Who has to hear of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Streams of lesson events, and workers that wait for a task.
    Lessons,
    /// Edges that wait for the feed of revocations.
    Revocations,
}

impl<'a> Change<'a> {
    /// Begins the transaction.
    pub(crate) async fn begin(app: &'a App, caller: &'a Caller) -> Result<Self, DbError> {
        Ok(Self { tx: app.db.begin().await?, app, caller })
    }

    /// Now, in milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> i64 {
        self.app.clock.unix_millis()
    }

    /// Locks a course that the caller may change until the end of the transaction.
    pub(crate) async fn lock_course(&mut self, id: &Id) -> Result<Course, AccessError> {
        self.tx.lock("course", id.as_str()).await?;
        let course = visible_course(&mut self.tx, self.caller, id).await?;
        self.caller.may_change(&course.owner)?;
        Ok(course)
    }

    /// Locks a lesson that the caller may change until the end of the transaction.
    pub(crate) async fn lock_lesson(&mut self, id: &Id) -> Result<Lesson, AccessError> {
        self.tx.lock("lesson", id.as_str()).await?;
        own_lesson(&mut self.tx, self.caller, id).await
    }

    /// Writes to the audit log what the caller did.
    pub(crate) async fn note(&mut self, action: &'static str, subject: &str, detail: &str) -> Result<(), DbError> {
        let now = self.now();
        catalog::add_audit_entry(&mut self.tx, now, self.caller.id(), action, subject, detail).await
    }

    /// Commits, then wakes those who wait.
    pub(crate) async fn commit(self, wake: &[Wake]) -> Result<(), DbError> {
        self.tx.commit().await?;
        for who in wake {
            match who {
                Wake::Lessons => self.app.ingest.changed.notify_waiters(),
                Wake::Revocations => self.app.revoked.notify_waiters(),
            }
        }
        Ok(())
    }
}

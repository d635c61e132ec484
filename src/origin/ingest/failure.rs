//! How a version fails, and how a lesson that failed is tried again.

use lyceum_catalog as catalog;
use lyceum_core::ids::Id;
use lyceum_storage::db::{DbError, Tx};
use lyceum_storage::queue;

use crate::ingest::context::Ingest;
use crate::ingest::error::IngestError;

/// A newer upload ends the work on one that nobody will see.
pub(super) async fn replace_unfinished(tx: &mut Tx, newest: Option<&Id>, now: i64) -> Result<(), DbError> {
    let Some(id) = newest else { return Ok(()) };
    let sentence = "A newer upload took this one's place.";
    if catalog::fail_version(tx, id, "replaced", sentence, now).await? {
        queue::cancel(tx, id, now).await?;
    }
    Ok(())
}

/// Ends a version, and the work on it, with a reason that a creator understands.
pub(super) async fn fail_version(
    ingest: &Ingest,
    tx: &mut Tx,
    version: &Id,
    code: &str,
    detail: &str,
) -> Result<(), DbError> {
    let now = ingest.clock.unix_millis();
    if catalog::fail_version(tx, version, code, detail, now).await? {
        queue::cancel(tx, version, now).await?;
        if let Some(version) = catalog::version(tx, version).await? {
            catalog::bump_lesson_revision(tx, &version.lesson).await?;
        }
        tracing::warn!(%version, code, detail, "a version failed");
    }
    Ok(())
}

/// Takes up a lesson that failed where its work stopped: what is there of it stays.
pub(crate) async fn retry(
    ingest: &Ingest,
    tx: &mut Tx,
    lesson: &catalog::Lesson,
    actor: &str,
) -> Result<(), IngestError> {
    let Some(version) = &lesson.newest else { return Err(IngestError::NotFailed) };
    tx.lock("version", version.as_str()).await?;
    if !catalog::retry_version(tx, version).await? {
        return Err(IngestError::NotFailed);
    }
    let now = ingest.clock.unix_millis();
    if queue::revive(tx, version, now).await? == 0 {
        return Err(IngestError::NothingToRetry);
    }
    catalog::bump_lesson_revision(tx, &lesson.id).await?;
    catalog::add_audit_entry(tx, now, actor, "lesson.retry", lesson.id.as_str(), version.as_str()).await?;
    Ok(())
}

//! What is given up, deleted or replaced: first hidden in a transaction, then removed from the store in the background.

use serde_json::json;

use lyceum_catalog as catalog;
use lyceum_core::ids::Id;
use lyceum_storage::db::Tx;
use lyceum_storage::queue;
use lyceum_storage::store::Key;
use lyceum_storage::upload::Upload;

use crate::ingest::context::Ingest;
use crate::ingest::error::IngestError;
use crate::ingest::object_keys::{lesson_prefix, version_prefix};

/// Lessons of a deleted course that one transaction deletes.
const LESSONS_PER_TRANSACTION: i64 = 500;
/// How long a purge stays in the feed, in milliseconds: as long as an edge may keep the lesson under a token of the
/// longest life.
const PURGE_KEPT_MS: i64 = 30 * 24 * 3_600_000;
/// How long after a removal the store is looked at again, in milliseconds: longer than any request to it takes.
const LATE_WRITES_MS: i64 = 2 * 3_600_000;

/// Deletes lessons of a course that is marked as deleted, a transaction's worth at once. Answers false when there was
/// none left, and the course is forgotten.
pub(crate) async fn delete_lessons_of(
    ingest: &Ingest,
    tx: &mut Tx,
    actor: &str,
    course: &Id,
) -> Result<bool, IngestError> {
    let page = catalog::Page { after: (0, String::new()), limit: LESSONS_PER_TRANSACTION };
    let lessons = catalog::lessons(tx, course, &page).await?;
    for lesson in &lessons {
        delete_lesson(ingest, tx, actor, &lesson.id).await?;
    }
    if lessons.is_empty() {
        catalog::forget_course(tx, course).await?;
    }
    Ok(!lessons.is_empty())
}

/// Hides a lesson, ends its work and its sessions, and has edges purge it. Its objects are removed later by
/// [`remove_lesson`].
pub(crate) async fn delete_lesson(ingest: &Ingest, tx: &mut Tx, actor: &str, lesson: &Id) -> Result<(), IngestError> {
    let now = ingest.clock.unix_millis();
    tx.lock("lesson", lesson.as_str()).await?;
    let versions = catalog::versions_of(tx, lesson).await?;
    for (version, _) in &versions {
        // Before any row is held: a worker's report holds this, and then waits for the lesson's row.
        tx.lock("version", version.as_str()).await?;
    }
    if !catalog::mark_lesson_deleted(tx, lesson, now).await? {
        return Ok(());
    }
    ingest.uploads.end_all_of(tx, lesson).await?;
    catalog::add_audit_entry(tx, now, actor, "lesson.delete", lesson.as_str(), "").await?;
    for (version, _) in &versions {
        queue::cancel(tx, version, now).await?;
    }
    catalog::revoke_lesson_sessions(tx, lesson, now).await?;
    let purge = json!({ "purge": { "tag": format!("lesson-{lesson}"), "soft": false } });
    catalog::add_event(tx, &purge.to_string(), now.saturating_add(PURGE_KEPT_MS)).await?;
    Ok(())
}

/// Removes an upload that its client gave up or whose time is over; `actor` is who did that.
pub(crate) async fn end_upload(ingest: &Ingest, id: &Id, actor: &str) -> Result<(), IngestError> {
    let known = ingest.uploads.peek(id).await?;
    let mut tx = ingest.db.begin().await?;
    // In the order in which all others take the two.
    if let Some(lesson) = &known.lesson {
        tx.lock("lesson", lesson.as_str()).await?;
    }
    let upload: Upload = ingest.uploads.terminate(&mut tx, id).await?;
    if let Some(lesson) = &upload.lesson {
        catalog::clear_uploading(&mut tx, lesson, id).await?;
        catalog::add_audit_entry(
            &mut tx,
            ingest.clock.unix_millis(),
            actor,
            "upload.end",
            lesson.as_str(),
            id.as_str(),
        )
        .await?;
    }
    tx.commit().await?;
    ingest.changed.notify_waiters();
    if let Err(error) = ingest.uploads.clear(&upload).await {
        tracing::warn!(upload = %id, %error, "the bytes of an ended upload are still there; it will be tried again");
    }
    Ok(())
}

/// Removes what is left of a deleted lesson, then forgets it. Can be repeated from any point.
pub(crate) async fn remove_lesson(ingest: &Ingest, lesson: &Id) -> Result<(), IngestError> {
    let mut tx = ingest.db.read().await?;
    let versions = catalog::versions_of(&mut tx, lesson).await?;
    let uploads = ingest.uploads.ended_of(&mut tx, lesson).await?;
    drop(tx);
    for upload in &uploads {
        ingest.uploads.clear(upload).await?;
    }
    for (_, source) in &versions {
        if let Ok(key) = Key::parse(source) {
            ingest.store.delete(&key).await?;
        }
    }
    let prefix = lesson_prefix(lesson)?;
    ingest.store.delete_under(&prefix).await?;
    let mut tx = ingest.db.begin().await?;
    look_again(ingest, &mut tx, &prefix).await?;
    for (version, _) in &versions {
        queue::forget(&mut tx, version).await?;
    }
    catalog::forget_lesson(&mut tx, lesson).await?;
    Ok(tx.commit().await?)
}

/// Has [`remove_late`] look at a removed prefix again.
async fn look_again(ingest: &Ingest, tx: &mut Tx, prefix: &Key) -> Result<(), IngestError> {
    let due = ingest.clock.unix_millis().saturating_add(LATE_WRITES_MS);
    Ok(catalog::add_removal(tx, prefix.as_str(), due).await?)
}

/// Removes what came to deleted lessons and versions after their removal: a request that the store was still working on
/// when its origin died.
pub(crate) async fn remove_late(ingest: &Ingest, limit: i64) -> Result<(), IngestError> {
    let now = ingest.clock.unix_millis();
    let due = catalog::removals_due(&mut ingest.db.read().await?, now, limit).await?;
    for prefix in due {
        if let Ok(key) = Key::parse(&prefix) {
            ingest.store.delete_under(&key).await?;
        }
        let mut tx = ingest.db.begin().await?;
        catalog::forget_removal(&mut tx, &prefix).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Removes the objects of a version that was replaced long enough ago.
pub(crate) async fn remove_version(ingest: &Ingest, lesson: &Id, version: &Id) -> Result<(), IngestError> {
    let mut tx = ingest.db.read().await?;
    let source = catalog::version(&mut tx, version).await?.map(|version| version.source);
    drop(tx);
    let prefix = version_prefix(lesson, version)?;
    ingest.store.delete_under(&prefix).await?;
    if let Some(key) = source.and_then(|source| Key::parse(&source).ok()) {
        ingest.store.delete(&key).await?;
    }
    let mut tx = ingest.db.begin().await?;
    look_again(ingest, &mut tx, &prefix).await?;
    queue::forget(&mut tx, version).await?;
    catalog::forget_version(&mut tx, version).await?;
    Ok(tx.commit().await?)
}

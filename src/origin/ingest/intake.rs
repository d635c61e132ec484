//! Bytes of an upload come in; a whole upload becomes a version of its lesson.

use lyceum_catalog::{self as catalog, NewVersion};
use lyceum_core::ids::Id;
use lyceum_packaging::TaskSpec;
use lyceum_storage::queue;
use lyceum_storage::upload::{AppendRequest, Upload, UploadError, UploadKind};

use crate::ingest::context::Ingest;
use crate::ingest::error::IngestError;
use crate::ingest::{failure, loss, planning};

/// Appends a request's bytes to an upload, and takes it once all are there.
pub(crate) async fn append(ingest: &Ingest, id: &Id, request: AppendRequest) -> Result<Upload, IngestError> {
    let outcome = ingest.uploads.append(id, request).await;
    let upload = loss::unless_lost(ingest, id, outcome).await?.upload;
    if upload.is_whole() && upload.kind != UploadKind::Partial {
        take_upload(ingest, &upload).await?;
    }
    Ok(upload)
}

/// The upload as its client may go on with it, once an older writer has left.
pub(crate) async fn settle(ingest: &Ingest, id: &Id) -> Result<Upload, IngestError> {
    loss::unless_lost(ingest, id, ingest.uploads.settle(id).await).await
}

/// Takes an upload whose bytes are all there. Can be repeated; the first one makes the version.
pub(crate) async fn take_upload(ingest: &Ingest, upload: &Upload) -> Result<(), IngestError> {
    let sealed = ingest.uploads.seal(upload).await;
    let source = loss::unless_lost(ingest, &upload.id, sealed).await?;
    let now = ingest.clock.unix_millis();
    let Some(lesson_id) = &upload.lesson else { return Ok(()) };
    let mut tx = ingest.db.begin().await?;
    tx.lock("lesson", lesson_id.as_str()).await?;
    if let Some(newest) = catalog::lesson(&mut tx, lesson_id).await?.and_then(|lesson| lesson.newest) {
        // Before any row is held: a worker's report holds this, and then waits for the lesson's row.
        tx.lock("version", newest.as_str()).await?;
    }
    match ingest.uploads.mark_complete(&mut tx, &upload.id).await {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(error) => {
            drop(tx);
            if let UploadError::Gone = error {
                // It ended while it was turned into an object, maybe after its bytes were removed.
                ingest.uploads.clear(upload).await?;
            }
            return Err(error.into());
        }
    }
    catalog::clear_uploading(&mut tx, lesson_id, &upload.id).await?;
    let lesson = catalog::lesson(&mut tx, lesson_id).await?;
    let wanted = lesson.is_some();
    if let Some(lesson) = lesson {
        let version = NewVersion {
            id: Id::random(),
            lesson: lesson_id.clone(),
            source: source.to_string(),
            source_bytes: upload.received,
            filename: upload.filename.clone(),
        };
        failure::replace_unfinished(&mut tx, lesson.newest.as_ref(), now).await?;
        catalog::add_version(&mut tx, &version, now).await?;
        if upload.received == 0 {
            let sentence = "The file has no bytes: the recording may not have been saved before it was uploaded.";
            failure::fail_version(ingest, &mut tx, &version.id, "media_empty", sentence).await?;
        } else {
            let probe = planning::new_task(&version.id, &lesson.owner, &TaskSpec::Probe, 0, 0)?;
            queue::add(&mut tx, &probe, now).await?;
        }
        catalog::add_audit_entry(&mut tx, now, &upload.owner, "upload.taken", lesson_id.as_str(), upload.id.as_str())
            .await?;
        tracing::info!(lesson = %lesson_id, version = %version.id, bytes = upload.received, "upload taken");
    }
    tx.commit().await?;
    if !wanted {
        // The lesson was deleted meanwhile.
        ingest.store.delete(&source).await?;
    }
    // A crash here leaves them to their expiry.
    ingest.uploads.remove_parts(upload).await?;
    ingest.changed.notify_waiters();
    Ok(())
}

/// Joins the parts of a final upload and takes it. Can be repeated from any point.
pub(crate) async fn join(ingest: &Ingest, id: &Id) -> Result<(), IngestError> {
    let outcome = ingest.uploads.concatenate(id).await;
    let upload = loss::unless_lost(ingest, id, outcome).await?;
    if upload.is_whole() { take_upload(ingest, &upload).await } else { Ok(()) }
}

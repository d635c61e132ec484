//! Recordings whose bytes the store lost after they were acknowledged: a bucket's rule for unfinished uploads, or a
//! person, removed them. The upload ends, so that its client begins again, and the lesson says why; nothing is retried.

use lyceum_catalog::{self as catalog, NewVersion, VersionState};
use lyceum_core::ids::Id;
use lyceum_storage::db::Tx;
use lyceum_storage::queue;
use lyceum_storage::upload::{self, Upload, UploadError};

use crate::ingest::context::Ingest;
use crate::ingest::error::IngestError;
use crate::ingest::failure;

/// The code of a lesson whose recording was lost.
const CODE: &str = "upload_lost";

/// Ends the upload if `outcome` says that its bytes were lost.
pub(crate) async fn unless_lost<T>(
    ingest: &Ingest,
    upload: &Id,
    outcome: Result<T, UploadError>,
) -> Result<T, IngestError> {
    if let Err(UploadError::Lost) = outcome {
        end_upload(ingest, upload).await?;
    }
    Ok(outcome?)
}

async fn end_upload(ingest: &Ingest, id: &Id) -> Result<(), IngestError> {
    let known = ingest.uploads.peek(id).await?;
    let now = ingest.clock.unix_millis();
    let mut tx = ingest.db.begin().await?;
    if let Some(lesson) = &known.lesson {
        tx.lock("lesson", lesson.as_str()).await?;
    }
    let upload = match ingest.uploads.terminate(&mut tx, id).await {
        // Somebody else ended it, or finished it.
        Err(UploadError::Gone | UploadError::NotWritable) => return Ok(()),
        other => other?,
    };
    if let Some(lesson) = &upload.lesson {
        catalog::clear_uploading(&mut tx, lesson, id).await?;
        catalog::add_audit_entry(&mut tx, now, "origin", "upload.lost", lesson.as_str(), id.as_str()).await?;
        tell_lesson(ingest, &mut tx, lesson, &upload, now).await?;
    }
    tx.commit().await?;
    ingest.changed.notify_waiters();
    tracing::error!(upload = %id, bytes = upload.received, "an upload was ended: the store lost its bytes");
    // What is left of it, and of its parts.
    ingest.uploads.remove_parts(&upload).await?;
    Ok(ingest.uploads.clear(&upload).await?)
}

/// Leaves a failed version, unless the lesson's work on an earlier upload is still under way.
async fn tell_lesson(ingest: &Ingest, tx: &mut Tx, id: &Id, upload: &Upload, now: i64) -> Result<(), IngestError> {
    let Some(lesson) = catalog::lesson(tx, id).await? else { return Ok(()) };
    if let Some(newest) = &lesson.newest {
        let newest = catalog::version(tx, newest).await?;
        if newest.is_some_and(|it| matches!(it.state, VersionState::Queued | VersionState::Transcoding)) {
            return Ok(());
        }
    }
    let version = NewVersion {
        id: Id::random(),
        lesson: id.clone(),
        source: upload::source_key(&upload.id)?.to_string(),
        source_bytes: 0,
        filename: upload.filename.clone(),
    };
    catalog::add_version(tx, &version, now).await?;
    let sentence = "The store removed what was uploaded before the upload was complete. Upload the recording again.";
    Ok(failure::fail_version(ingest, tx, &version.id, CODE, sentence).await?)
}

/// Fails the version whose recording a worker was to read and the store no longer has.
pub(crate) async fn source_is_gone(ingest: &Ingest, task: &queue::Task) -> Result<(), IngestError> {
    let mut tx = ingest.db.begin().await?;
    tx.lock("version", task.version.as_str()).await?;
    let sentence = "The store no longer has the recording. Upload it again.";
    failure::fail_version(ingest, &mut tx, &task.version, CODE, sentence).await?;
    tx.commit().await?;
    ingest.changed.notify_waiters();
    Ok(())
}

//! How an upload begins: whose lesson it is for, and whether the owner's quota has room for it. Asked before anything is
//! created in the store, and again in the transaction that begins it.

use lyceum_catalog as catalog;
use lyceum_core::ids::Id;
use lyceum_storage::db::{DbError, Tx};
use lyceum_storage::store::{Growth, StoreError};
use lyceum_storage::upload::{self, NewUpload, Upload, UploadError, UploadKind, UploadState};

use crate::access::{AccessError, Caller, own_lesson};
use crate::ingest::context::Ingest;
use crate::ingest::quota::{self, Quota};

/// Why an upload can't begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    /// The caller may not upload to the lesson.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The owner keeps too much already.
    #[error("the quota of {} bytes has no room beside {}", .0.bytes, .0.used)]
    OverQuota(Quota),
    /// Uploads, except for what their store or database refused.
    #[error(transparent)]
    Upload(UploadError),
    /// The object store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<UploadError> for BeginError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Store(error) => Self::Store(error),
            UploadError::Db(error) => Self::Db(error),
            other => Self::Upload(other),
        }
    }
}

/// An upload that may begin, and what the store has made ready for it.
pub(crate) struct Prepared {
    new: NewUpload,
    growth: Growth,
}

impl Prepared {
    /// Asks whether the upload may begin, and makes the store ready.
    pub(crate) async fn new(ingest: &Ingest, caller: &Caller, new: NewUpload) -> Result<Self, BeginError> {
        let mut tx = ingest.db.read().await?;
        if let Some(lesson) = &new.lesson {
            own_lesson(&mut tx, caller, lesson).await?;
        }
        check_quota(ingest, &mut tx, caller, &new).await?;
        drop(tx);
        let growth = ingest.uploads.prepare(&new).await?;
        Ok(Self { new, growth })
    }

    /// The id that it will have.
    pub(crate) fn id(&self) -> &Id {
        &self.new.id
    }

    /// It does not begin: the store gives up what it made ready.
    pub(crate) async fn abandon(self, ingest: &Ingest) -> Result<(), BeginError> {
        Ok(ingest.store.abandon_growth(&upload::source_key(&self.new.id)?, &self.growth).await?)
    }

    /// Begins it in `tx`: its lesson shows it from the commit on.
    pub(crate) async fn begin(self, ingest: &Ingest, tx: &mut Tx, caller: &Caller) -> Result<Upload, BeginError> {
        let new = &self.new;
        if let Some(lesson) = &new.lesson {
            // The deletion of a lesson ends the uploads that it sees.
            tx.lock("lesson", lesson.as_str()).await?;
        }
        tx.lock("quota of", &new.owner).await?;
        check_quota(ingest, tx, caller, new).await?;
        let upload = ingest.uploads.create(tx, new, &self.growth).await?;
        if let Some(lesson) = &new.lesson {
            own_lesson(tx, caller, lesson).await?;
            catalog::set_uploading(tx, lesson, &new.id).await?;
            let now = ingest.clock.unix_millis();
            catalog::add_audit_entry(tx, now, &new.owner, "upload.begin", lesson.as_str(), new.id.as_str()).await?;
        }
        Ok(upload)
    }
}

/// Whether the quota has room for the whole upload. The parts of a final upload are counted already.
async fn check_quota(ingest: &Ingest, tx: &mut Tx, caller: &Caller, new: &NewUpload) -> Result<(), BeginError> {
    if new.kind == UploadKind::Final {
        return Ok(());
    }
    match quota::of(ingest, tx, caller).await? {
        // Of unknown length: at least one byte must fit.
        Some(quota) if quota.left() < new.length.unwrap_or(1) => Err(BeginError::OverQuota(quota)),
        _ => Ok(()),
    }
}

/// How large an upload of unknown length may become: what is left of its owner's quota.
pub(crate) async fn max_length(ingest: &Ingest, caller: &Caller, upload: &Upload) -> Result<Option<u64>, DbError> {
    if upload.length.is_some() {
        return Ok(None);
    }
    let quota = quota::of(ingest, &mut ingest.db.read().await?, caller).await?;
    Ok(quota.map(|quota| quota.left().saturating_add(upload.received)))
}

/// An upload that was begun before, unless it was ended since.
pub(crate) async fn begun_before(ingest: &Ingest, id: &Id) -> Result<Option<Upload>, BeginError> {
    match ingest.uploads.peek(id).await {
        Ok(upload) if upload.state != UploadState::Ended => Ok(Some(upload)),
        Ok(_) | Err(UploadError::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

//! Uploads from their creation to their end, but for the bytes that come between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use lyceum_core::ids::Id;
use lyceum_core::time::Clock;

use crate::db::database::Db;
use crate::db::error::DbError;
use crate::db::tx::Tx;
use crate::store::error::StoreError;
use crate::store::growth::Growth;
use crate::store::key::Key;
use crate::store::object_store::Store;
use crate::upload::config::Config;
use crate::upload::error::UploadError;
use crate::upload::record::{self, Upload, UploadKind, UploadState};

/// Uploads over a database and a store; clones share their state.
#[derive(Clone)]
pub struct Uploads {
    pub(super) db: Db,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) config: Arc<Config>,
    /// The newest writer of each upload in this process.
    pub(super) active: Arc<Mutex<HashMap<Id, ActiveWriter>>>,
}

/// A writer in this process.
pub(super) struct ActiveWriter {
    pub(super) ticket: i64,
    /// Cancelled when a newer request takes over, or the upload ends.
    pub(super) stop: CancellationToken,
}

/// What makes an upload.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// Its id.
    pub id: Id,
    /// The API key that makes it.
    pub owner: String,
    /// The lesson that it is for; a part has none.
    pub lesson: Option<Id>,
    /// What it is.
    pub kind: UploadKind,
    /// Its length in bytes, when that is known.
    pub length: Option<u64>,
    /// `Upload-Metadata`, as it was sent.
    pub metadata: String,
    /// The name of the file.
    pub filename: String,
    /// The parts of a final one, in order.
    pub partials: Vec<Id>,
}

impl Uploads {
    /// Uploads under `config`.
    pub fn new(db: Db, store: Store, clock: Clock, config: Config) -> Self {
        Self { db, store, clock, config: Arc::new(config), active: Arc::default() }
    }

    /// The limits in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn expiry(&self) -> i64 {
        let span = i64::try_from(self.config.expires.get().as_millis()).unwrap_or(i64::MAX);
        self.clock.unix_millis().saturating_add(span)
    }

    /// Makes what the store needs before [`Self::create`] can commit. A crash between the two leaves an empty multipart
    /// upload on S3 at most.
    pub async fn prepare(&self, new: &NewUpload) -> Result<Growth, UploadError> {
        if new.length.is_some_and(|length| length > self.config.size.0) {
            return Err(UploadError::TooLarge { limit: self.config.size.0 });
        }
        Ok(self.store.start_growth(&source_key(&new.id)?, CONTENT_TYPE, new.length).await?)
    }

    /// Adds a new upload inside the caller's transaction.
    pub async fn create(&self, tx: &mut Tx, new: &NewUpload, growth: &Growth) -> Result<Upload, UploadError> {
        tx.lock("uploads of", &new.owner).await?;
        if record::open_of(tx, &new.owner).await? >= self.config.open_per_key {
            return Err(UploadError::TooMany { limit: self.config.open_per_key });
        }
        let upload = Upload {
            id: new.id.clone(),
            owner: new.owner.clone(),
            lesson: new.lesson.clone(),
            kind: new.kind,
            state: UploadState::Open,
            length: new.length,
            received: 0,
            fence: 0,
            writer: None,
            growth: growth.clone(),
            metadata: new.metadata.clone(),
            filename: new.filename.clone(),
            partials: new.partials.clone(),
            expires: self.expiry(),
        };
        record::insert(tx, &upload, self.clock.unix_millis()).await?;
        Ok(upload)
    }

    /// An upload as it is recorded now, whoever may be writing.
    pub async fn peek(&self, id: &Id) -> Result<Upload, UploadError> {
        let mut tx = self.db.read().await?;
        record::get(&mut tx, id).await?.ok_or(UploadError::NotFound)
    }

    /// Ends an upload. The caller's transaction must commit before
    /// [`Self::clear`].
    pub async fn terminate(&self, tx: &mut Tx, id: &Id) -> Result<Upload, UploadError> {
        tx.lock("upload", id.as_str()).await?;
        let upload = record::get(tx, id).await?.ok_or(UploadError::NotFound)?;
        match upload.state {
            UploadState::Open => {}
            UploadState::Ended => return Err(UploadError::Gone),
            UploadState::Complete => return Err(UploadError::NotWritable),
        }
        record::set_state(tx, id, UploadState::Ended).await?;
        self.tell_local_writer(id, i64::MAX);
        Ok(upload)
    }

    /// Ends a lesson's open uploads and stops their writers. The caller removes their bytes, see [`Self::ended_of`].
    pub async fn end_all_of(&self, tx: &mut Tx, lesson: &Id) -> Result<(), UploadError> {
        for id in record::end_all_of(tx, lesson).await? {
            self.tell_local_writer(&id, i64::MAX);
        }
        Ok(())
    }

    /// A lesson's uploads that have ended.
    pub async fn ended_of(&self, tx: &mut Tx, lesson: &Id) -> Result<Vec<Upload>, UploadError> {
        Ok(record::ended_of(tx, lesson).await?)
    }

    /// Removes all that the store has of an upload that has ended. Can be repeated; [`Self::to_clear`] tells of what did
    /// not come to its end.
    pub async fn clear(&self, upload: &Upload) -> Result<(), UploadError> {
        let key = source_key(&upload.id)?;
        self.store.abandon_growth(&key, &upload.growth).await?;
        // It may have been sealed.
        self.store.delete(&key).await?;
        let mut tx = self.db.begin().await?;
        record::set_cleared(&mut tx, &upload.id).await?;
        Ok(tx.commit().await?)
    }

    /// Ended uploads of which the store may still have something.
    pub async fn to_clear(&self, limit: i64) -> Result<Vec<Upload>, UploadError> {
        Ok(record::to_clear(&mut self.db.read().await?, limit).await?)
    }

    /// Unfinished uploads after a place in the list (time of creation in milliseconds, id), the oldest first, each with
    /// the time of its creation: `owner`'s, or everybody's.
    pub async fn open_after(
        &self,
        tx: &mut Tx,
        owner: Option<&str>,
        after: (i64, &str),
        limit: i64,
    ) -> Result<Vec<(i64, Upload)>, UploadError> {
        Ok(record::open_after(tx, owner, after, limit).await?)
    }

    /// Turns the bytes of a whole upload into an object; its key. Can be repeated.
    pub async fn seal(&self, upload: &Upload) -> Result<Key, UploadError> {
        let key = source_key(&upload.id)?;
        self.store.finish_growth(&key, CONTENT_TYPE, upload.received, &upload.growth).await?;
        Ok(key)
    }

    /// Notes, in the caller's transaction, that an upload is whole and processed; answers false when it was before.
    pub async fn mark_complete(&self, tx: &mut Tx, id: &Id) -> Result<bool, UploadError> {
        tx.lock("upload", id.as_str()).await?;
        let upload = record::get(tx, id).await?.ok_or(UploadError::NotFound)?;
        match upload.state {
            UploadState::Complete => Ok(false),
            UploadState::Ended => Err(UploadError::Gone),
            UploadState::Open => {
                record::set_state(tx, id, UploadState::Complete).await.map(|()| true).map_err(Into::into)
            }
        }
    }

    /// Uploads that are whole but not processed yet: a crash came between.
    pub async fn whole_but_open(&self, limit: i64) -> Result<Vec<Upload>, UploadError> {
        Ok(record::whole_but_open(&mut self.db.read().await?, limit).await?)
    }

    /// Open uploads that have expired, or that nobody has begun to write.
    pub async fn overdue(&self, limit: i64) -> Result<Vec<Id>, UploadError> {
        let now = self.clock.unix_millis();
        let unused = i64::try_from(self.config.unused.get().as_millis()).unwrap_or(i64::MAX);
        Ok(record::overdue(&mut self.db.read().await?, now, now.saturating_sub(unused), limit).await?)
    }

    /// Forgets old uploads that are ended or complete; until then a client can ask about them.
    pub async fn forget_old(&self) -> Result<(), UploadError> {
        let mut tx = self.db.begin().await?;
        record::forget_old(&mut tx, self.clock.unix_millis()).await?;
        Ok(tx.commit().await?)
    }

    /// Tells a writer in this process whose ticket is lower to stop.
    pub(super) fn tell_local_writer(&self, id: &Id, ticket: i64) {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = active.get(id).filter(|writer| writer.ticket < ticket) {
            writer.stop.cancel();
        }
    }
}

/// How many bytes an owner's unfinished uploads have announced, or have received where they announced no length. Final
/// uploads are counted with their parts.
pub async fn announced(tx: &mut Tx, owner: &str) -> Result<u64, DbError> {
    record::announced(tx, owner).await
}

/// The bytes that an upload has and its length, as the caller's transaction sees them.
pub async fn lengths(tx: &mut Tx, id: &Id) -> Result<Option<(u64, Option<u64>)>, DbError> {
    Ok(record::get(tx, id).await?.map(|upload| (upload.received, upload.length)))
}

pub(super) fn usable(upload: Upload) -> Result<Upload, UploadError> {
    if upload.state == UploadState::Ended { Err(UploadError::Gone) } else { Ok(upload) }
}

/// The stored type of a recording: only workers read it.
const CONTENT_TYPE: &str = "application/octet-stream";

/// The key of an upload's object.
pub fn source_key(id: &Id) -> Result<Key, UploadError> {
    Key::parse(&format!("uploads/{id}")).map_err(|error| StoreError::Refused(error.to_string()).into())
}

//! Uploads after tus 1.0 (<https://tus.io/protocols/resumable-upload>): core, creation, creation-with-upload,
//! creation-defer-length, termination, checksum, expiration and concatenation, as a state machine over the store.
//!
//! Bytes go to the store as they arrive. *Acknowledged* means stored: the length that a client is told was made
//! durable first and then committed. Of two requests for one upload the newest wins, on whichever origin it arrives:
//! it takes a higher ticket, the older writer sees that, keeps what it has, and leaves. Nothing here knows HTTP or
//! what is done with an upload that is whole.

pub mod headers;
mod join;
mod record;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

pub use record::{Kind, State, Upload};
pub use writer::{Appended, Incoming, Request};

use crate::db::{Db, DbError, Tx};
use crate::store::{Key, Store, StoreError};
use lyceum_core::ids::Id;
use lyceum_core::time::Clock;
use lyceum_core::units::{self, ByteSize, Span};

/// `[uploads]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The largest upload. From 1MiB to 100TiB, default 100GiB.
    #[serde(deserialize_with = "units::size::<_, 1_048_576, 109_951_162_777_600>")]
    pub size: ByteSize,
    /// Media types that may be uploaded, `*` for all of a kind; a file whose type is not known is probed.
    /// From 1 to 100, default video, sound and the containers of both.
    #[serde(deserialize_with = "media_types")]
    pub types: Vec<String>,
    /// How many bytes of recordings a creator's key may keep that has no quota of its own. From 1MiB to 1PiB, default none.
    #[serde(deserialize_with = "quota")]
    pub quota: Option<ByteSize>,
    /// The longest `Upload-Metadata`. From 256B to 64KiB, default 4KiB.
    #[serde(deserialize_with = "units::size::<_, 256, 65_536>")]
    pub metadata: ByteSize,
    /// Unfinished uploads at once, one API key's. From 1 to 10,000, default 100.
    #[serde(deserialize_with = "units::number::<_, 1, 10_000>")]
    pub open_per_key: u64,
    /// An upload that takes no bytes for so long is removed. From 1m to 90d, default 3d.
    #[serde(deserialize_with = "units::span::<_, 60_000, 7_776_000_000>")]
    pub expires: Span,
    /// How long the newest request waits for an older one to leave before it takes the upload from it.
    /// From 100ms to 30s, default 3s.
    #[serde(deserialize_with = "units::span::<_, 100, 30_000>")]
    pub takeover: Span,
    /// How often a writer looks whether a newer request has come to another origin. From 50ms to 10s, default 250ms.
    #[serde(deserialize_with = "units::span::<_, 50, 10_000>")]
    pub watch: Span,
    /// A request whose body stands still for so long ends; what came is kept. From 1s to 10m, default 30s.
    #[serde(deserialize_with = "units::span::<_, 1_000, 600_000>")]
    pub idle: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            size: ByteSize(100 << 30),
            types: TYPES.map(str::to_owned).into(),
            quota: None,
            metadata: ByteSize::kib(4),
            open_per_key: 100,
            expires: Span::secs(3 * 24 * 3600),
            takeover: Span::secs(3),
            watch: Span::millis(250),
            idle: Span::secs(30),
        }
    }
}

/// Recordings: pictures and sound, and containers whose registered names begin otherwise.
const TYPES: [&str; 8] = [
    "video/*",
    "audio/*",
    "application/mp4",
    "application/mxf",
    "application/ogg",
    "application/x-matroska",
    "application/vnd.ms-asf",
    "application/vnd.rn-realmedia",
];

fn media_types<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let types = Vec::<String>::deserialize(from)?;
    let plain = |text: &String| text.contains('/') && text.len() <= 100 && text.bytes().all(|b| b.is_ascii_graphic());
    if !(1..=100).contains(&types.len()) || !types.iter().all(plain) {
        return Err(serde::de::Error::custom("name 1 to 100 media types such as \"video/*\" or \"application/mxf\""));
    }
    Ok(types.into_iter().map(|text| text.to_ascii_lowercase()).collect())
}

fn quota<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<ByteSize>, D::Error> {
    units::size::<_, 1_048_576, 1_125_899_906_842_624>(from).map(Some)
}

/// Why a request for an upload was refused.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// There is none of that id.
    #[error("there is no upload of that id")]
    NotFound,
    /// It was removed, by its client or because its time was over.
    #[error("the upload was ended or its time is over")]
    Gone,
    /// The offset is not the one that was acknowledged last.
    #[error("the offset is not {expected}")]
    WrongOffset {
        /// The acknowledged one, in bytes.
        expected: u64,
    },
    /// More bytes than the upload has.
    #[error("the body is longer than what is left of the upload")]
    TooLong,
    /// The whole upload is larger than allowed.
    #[error("an upload may have {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// More bytes than its owner may keep; what came before is kept.
    #[error("there is no room left for this upload under its owner's quota")]
    OverQuota,
    /// The key has too many unfinished uploads.
    #[error("{limit} unfinished uploads are there already")]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// The length was said before, or can't be so.
    #[error("the length contradicts what is known")]
    WrongLength,
    /// The body does not match its checksum; none of it was kept.
    #[error("the body does not match its checksum")]
    ChecksumMismatch,
    /// A newer request for the upload took over.
    #[error("a newer request for this upload took over")]
    Superseded,
    /// The body broke off; what came before is kept.
    #[error("the body broke off: {0}")]
    BrokenBody(String),
    /// It can't be written to: whole already, or a final one.
    #[error("the upload takes no bytes")]
    NotWritable,
    /// What a final upload names can't be joined.
    #[error("a part is not there, not whole, or not a part: {0}")]
    WrongPart(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Uploads over a database and a store; clones are one.
#[derive(Clone)]
pub struct Uploads {
    db: Db,
    store: Store,
    clock: Clock,
    config: Arc<Config>,
    active: Arc<Mutex<HashMap<Id, Active>>>,
}

/// A writer in this process.
struct Active {
    ticket: i64,
    leave: CancellationToken,
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
    pub kind: Kind,
    /// Its length in bytes, when that is known.
    pub length: Option<u64>,
    /// `Upload-Metadata`, as it was sent.
    pub metadata: String,
    /// The name of the file.
    pub filename: String,
    /// What a final one is joined of, in this order.
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

    fn expiry(&self) -> i64 {
        let span = i64::try_from(self.config.expires.get().as_millis()).unwrap_or(i64::MAX);
        self.clock.unix_millis().saturating_add(span)
    }

    /// What the store has to have before [`Self::create`] can commit; a crash between the two leaves nothing that
    /// costs more than a name on S3.
    pub async fn prepare(&self, new: &NewUpload) -> Result<crate::store::Growth, UploadError> {
        if new.length.is_some_and(|length| length > self.config.size.0) {
            return Err(UploadError::TooLarge { limit: self.config.size.0 });
        }
        Ok(self.store.start_growth(&source_key(&new.id)?, CONTENT_TYPE, new.length).await?)
    }

    /// Keeps a new upload inside the caller's transaction.
    pub async fn create(
        &self,
        tx: &mut Tx,
        new: &NewUpload,
        growth: &crate::store::Growth,
    ) -> Result<Upload, UploadError> {
        tx.lock("uploads of", &new.owner).await?;
        if record::open_of(tx, &new.owner).await? >= self.config.open_per_key {
            return Err(UploadError::TooMany { limit: self.config.open_per_key });
        }
        let upload = Upload {
            id: new.id.clone(),
            owner: new.owner.clone(),
            lesson: new.lesson.clone(),
            kind: new.kind,
            state: State::Open,
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

    /// What is known of an upload now, whoever may be writing.
    pub async fn peek(&self, id: &Id) -> Result<Upload, UploadError> {
        let mut tx = self.db.read().await?;
        record::get(&mut tx, id).await?.ok_or(UploadError::NotFound)
    }

    /// The upload with its offset, after any older writer has kept what it had and left: whoever asks means to go on.
    pub async fn settle(&self, id: &Id) -> Result<Upload, UploadError> {
        let upload = self.peek(id).await?;
        if upload.state != State::Open || upload.writer.is_none() {
            return usable(upload);
        }
        let ticket = self.take_ticket(id).await?;
        let upload = self.take_over(id, ticket, false).await?;
        usable(upload)
    }

    /// Ends an upload and removes what came of it. The caller's transaction must commit before
    /// [`Self::remove_bytes`].
    pub async fn terminate(&self, tx: &mut Tx, id: &Id) -> Result<Upload, UploadError> {
        tx.lock("upload", id.as_str()).await?;
        let upload = record::get(tx, id).await?.ok_or(UploadError::NotFound)?;
        match upload.state {
            State::Open => {}
            State::Ended => return Err(UploadError::Gone),
            State::Complete => return Err(UploadError::NotWritable),
        }
        record::set_state(tx, id, State::Ended).await?;
        self.tell_local_writer(id, i64::MAX);
        Ok(upload)
    }

    /// Ends a lesson's open uploads; their writers leave. Their bytes are the caller's to remove, by [`Self::ended_of`].
    pub async fn end_all_of(&self, tx: &mut Tx, lesson: &Id) -> Result<(), UploadError> {
        for id in record::end_all_of(tx, lesson).await? {
            self.tell_local_writer(&id, i64::MAX);
        }
        Ok(())
    }

    /// A lesson's uploads that came to nothing.
    pub async fn ended_of(&self, tx: &mut Tx, lesson: &Id) -> Result<Vec<Upload>, UploadError> {
        Ok(record::ended_of(tx, lesson).await?)
    }

    /// Removes the bytes of an upload that has ended. Can be repeated.
    pub async fn remove_bytes(&self, upload: &Upload) -> Result<(), UploadError> {
        Ok(self.store.abandon_growth(&source_key(&upload.id)?, &upload.growth).await?)
    }

    /// Turns the bytes of a whole upload into an object; its key. Can be repeated.
    pub async fn seal(&self, upload: &Upload) -> Result<Key, UploadError> {
        let key = source_key(&upload.id)?;
        self.store.finish_growth(&key, CONTENT_TYPE, upload.received, &upload.growth).await?;
        Ok(key)
    }

    /// Notes, in the caller's transaction, that an upload is whole and taken; answers false when it was before.
    pub async fn mark_complete(&self, tx: &mut Tx, id: &Id) -> Result<bool, UploadError> {
        tx.lock("upload", id.as_str()).await?;
        let upload = record::get(tx, id).await?.ok_or(UploadError::NotFound)?;
        match upload.state {
            State::Complete => Ok(false),
            State::Ended => Err(UploadError::Gone),
            State::Open => record::set_state(tx, id, State::Complete).await.map(|()| true).map_err(Into::into),
        }
    }

    /// Uploads that are whole but were not taken yet: a crash came between.
    pub async fn whole_but_open(&self, limit: i64) -> Result<Vec<Upload>, UploadError> {
        Ok(record::whole_but_open(&mut self.db.read().await?, limit).await?)
    }

    /// Open uploads whose time is over.
    pub async fn overdue(&self, limit: i64) -> Result<Vec<Id>, UploadError> {
        Ok(record::overdue(&mut self.db.read().await?, self.clock.unix_millis(), limit).await?)
    }

    /// Forgets ended and complete uploads of long ago; until then a client learns what became of them.
    pub async fn forget_old(&self) -> Result<(), UploadError> {
        let mut tx = self.db.begin().await?;
        record::forget_old(&mut tx, self.clock.unix_millis()).await?;
        Ok(tx.commit().await?)
    }

    fn tell_local_writer(&self, id: &Id, ticket: i64) {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = active.get(id).filter(|writer| writer.ticket < ticket) {
            writer.leave.cancel();
        }
    }
}

/// What an owner's unfinished uploads have announced, or have without a word of their length, in bytes. What is joined
/// of parts is counted with these.
pub async fn announced(tx: &mut Tx, owner: &str) -> Result<u64, DbError> {
    record::announced(tx, owner).await
}

/// The bytes that an upload has and will have, as the caller's transaction sees them.
pub async fn lengths(tx: &mut Tx, id: &Id) -> Result<Option<(u64, Option<u64>)>, DbError> {
    Ok(record::get(tx, id).await?.map(|upload| (upload.received, upload.length)))
}

fn usable(upload: Upload) -> Result<Upload, UploadError> {
    if upload.state == State::Ended { Err(UploadError::Gone) } else { Ok(upload) }
}

/// What a recording is kept as: nobody is served it but a worker.
const CONTENT_TYPE: &str = "application/octet-stream";

/// Where the bytes of an upload lie.
pub fn source_key(id: &Id) -> Result<Key, UploadError> {
    Key::parse(&format!("uploads/{id}")).map_err(|error| StoreError::Refused(error.to_string()).into())
}

#[cfg(test)]
mod tests;

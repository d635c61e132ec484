//! The object store: a directory, or a bucket that speaks S3. Objects appear whole or not at all, keep their
//! content type, and are read by ranges; both ways stream with bounded memory.
//!
//! An upload *grows* in the store ([`Store::grow`]): bytes are written as they arrive, a checkpoint makes them
//! durable, and what is needed to go on after a crash, on whichever machine, is a small [`Growth`] that the caller
//! keeps. This module knows no lesson, no upload and no HTTP.

mod directory;
mod directory_grow;
mod key;
mod s3;
mod s3_grow;

use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

pub use key::{InvalidKey, Key};
pub use s3::{Checksums, S3Config};

use lyceum_core::time::Clock;

/// Where objects lie: `{ directory = "data/objects" }` or `{ s3 = { … } }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Config {
    /// A directory, made when it is missing. Several origins may share it.
    Directory(PathBuf),
    /// A bucket.
    S3(S3Config),
}

/// Bytes on their way in or out.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// What failed, and whether it may work later.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("there is no object of that key")]
    NotFound,
    /// The range asked for lies outside of the object.
    #[error("the range lies outside of the object's {size} bytes")]
    RangeNotSatisfiable {
        /// The object's size in bytes.
        size: u64,
    },
    /// Something else holds the growing object.
    #[error("the growing object is held by another writer")]
    Held,
    /// The disk or the quota is full.
    #[error("the store is full: {0}")]
    Full(String),
    /// It is away, slow or overloaded: the same may work in a moment.
    #[error("the store can't be had at the moment: {0}")]
    Unavailable(String),
    /// It refuses, and will refuse again: rights, a missing bucket, a lost part.
    #[error("the store refused: {0}")]
    Refused(String),
    /// The bytes that were to be stored stopped coming; the fault of whoever sent them.
    #[error("the bytes to be stored stopped coming: {0}")]
    Source(String),
}

impl StoreError {
    /// Whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full(_) | Self::Held)
    }

    pub(crate) fn io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::NotFound => Self::NotFound,
            Kind::StorageFull | Kind::QuotaExceeded => Self::Full(error.to_string()),
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem | Kind::NotADirectory | Kind::IsADirectory => {
                Self::Refused(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Its whole size in bytes.
    pub size: u64,
    /// A strong entity tag with its quotes (RFC 9110, section 8.8.3).
    pub etag: String,
    /// Its media type.
    pub content_type: String,
}

/// An object, or the part of it that was asked for.
pub struct Object {
    /// Of the whole object.
    pub meta: Meta,
    /// The part that `body` gives: first byte and the one after the last.
    pub range: Range<u64>,
    /// The bytes of `range`.
    pub body: Body,
}

/// A part of an object (RFC 9110, section 14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first to the last byte, both included; a last byte beyond the end means the end.
    Between(u64, u64),
    /// From this byte to the end.
    From(u64),
    /// The last so many bytes.
    Last(u64),
}

impl ByteRange {
    /// First byte and the one after the last, within `size`.
    pub fn within(self, size: u64) -> Result<Range<u64>, StoreError> {
        let (start, end) = match self {
            Self::Between(first, last) => (first, last.saturating_add(1).min(size)),
            Self::From(first) => (first, size),
            Self::Last(count) => (size.saturating_sub(count), size),
        };
        if start >= end { Err(StoreError::RangeNotSatisfiable { size }) } else { Ok(start..end) }
    }
}

/// What lets a growing object go on: kept by the caller, in the same transaction as the length it answers for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Growth {
    /// In a directory the file itself is enough.
    Directory,
    /// On S3: the multipart upload.
    S3(s3_grow::Multipart),
}

/// An object that is being written. Only bytes before a checkpoint are durable.
pub enum Grower {
    /// A file that is held by a lock.
    Directory(directory_grow::Grower),
    /// A multipart upload.
    S3(Box<s3_grow::Grower>),
}

impl Grower {
    /// Waits until there is memory for more bytes; [`Self::write`] does so too, but can't be given up.
    pub async fn room(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::S3(grower) => grower.room().await,
        }
    }

    /// Takes bytes; may wait for the store. [`Self::pending`] tells how many wait for a checkpoint.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        match self {
            Self::Directory(grower) => grower.write(bytes).await,
            Self::S3(grower) => grower.write(bytes).await,
        }
    }

    /// Whether now is a good moment for a checkpoint: enough has come, or the part is full.
    pub fn wants_checkpoint(&self) -> bool {
        match self {
            Self::Directory(grower) => grower.wants_checkpoint(),
            Self::S3(grower) => grower.wants_checkpoint(),
        }
    }

    /// Bytes taken since the last checkpoint.
    pub fn pending(&self) -> u64 {
        match self {
            Self::Directory(grower) => grower.pending(),
            Self::S3(grower) => grower.pending(),
        }
    }

    /// Makes durable what was taken; answers the length and what the caller has to keep for it. `last` says that
    /// this writer takes no more, so that S3's rest under the smallest part is stored too.
    pub async fn checkpoint(&mut self, last: bool) -> Result<(u64, Growth), StoreError> {
        match self {
            Self::Directory(grower) => Ok((grower.checkpoint().await?, Growth::Directory)),
            Self::S3(grower) => {
                let (length, multipart) = grower.checkpoint(last).await?;
                Ok((length, Growth::S3(multipart)))
            }
        }
    }
}

/// A checkpoint that is made while more is written.
pub struct Beside {
    /// The length that is durable once it came to its end, in bytes.
    pub length: u64,
    growth: Growth,
    disk: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Beside {
    /// Its end, and what the caller has to keep.
    pub async fn end(self) -> Result<Growth, StoreError> {
        let said = self.disk.await.map_err(|_| StoreError::Unavailable("the program is ending".to_owned()))?;
        said.map(|()| self.growth).map_err(|error| StoreError::io(&error))
    }
}

impl Grower {
    /// Begins a checkpoint that goes on beside further writes, where the store can do that. One at a time: its end has
    /// to be heard ([`Self::heard`]) before the next begins.
    pub async fn checkpoint_beside(&mut self) -> Result<Option<Beside>, StoreError> {
        let Self::Directory(grower) = self else { return Ok(None) };
        let (length, disk) = grower.checkpoint_beside().await?;
        Ok(Some(Beside { length, growth: Growth::Directory, disk }))
    }

    /// Notes that a checkpoint beside the writes came to a good end.
    pub fn heard(&mut self, length: u64) {
        if let Self::Directory(grower) = self {
            grower.heard(length);
        }
    }

    /// Whether writes have to wait for the checkpoint beside them.
    pub fn is_ahead(&self) -> bool {
        match self {
            Self::Directory(grower) => grower.is_ahead(),
            Self::S3(_) => true,
        }
    }

    /// Takes the next stretch of another object's `range` as its next bytes, without their passing through this process,
    /// and makes them durable. Answers how far in that object it came and what [`Self::checkpoint`] answers; `None`
    /// where the bytes have to be written: where an S3 server can't copy, or where parts are too small. `last` says that
    /// nothing follows the range.
    pub async fn copy(
        &mut self,
        from: &Key,
        range: Range<u64>,
        last: bool,
    ) -> Result<Option<(u64, u64, Growth)>, StoreError> {
        let grower = match self {
            Self::Directory(grower) => {
                let (end, length) = grower.copy(from, range).await?;
                return Ok(Some((end, length, Growth::Directory)));
            }
            Self::S3(grower) => grower,
        };
        let end = grower.copied_to(range.start, range.end);
        let copied = grower.copy(from, range.start..end, last && end == range.end).await?;
        Ok(copied.map(|(length, multipart)| (end, length, Growth::S3(multipart))))
    }

    /// Says that the caller has kept what the last checkpoint gave: what that replaced may go.
    pub async fn kept(&mut self) {
        if let Self::S3(grower) = self {
            grower.kept().await;
        }
    }
}

/// A handle to the store; clones share it.
#[derive(Clone)]
pub struct Store {
    backend: Arc<Backend>,
}

enum Backend {
    Directory(directory::Directory),
    S3(s3::S3),
}

impl Store {
    /// Opens the store. A directory is made and its forgotten temporary files are removed; a bucket is not asked.
    pub async fn open(config: &Config, clock: &Clock) -> Result<Self, StoreError> {
        let backend = match config {
            Config::Directory(root) => Backend::Directory(directory::Directory::open(root, clock).await?),
            Config::S3(config) => Backend::S3(s3::S3::open(config)?),
        };
        Ok(Self { backend: Arc::new(backend) })
    }

    /// Stores an object in place of an older one, atomically and durably. Answers its size in bytes.
    pub async fn put(&self, key: &Key, content_type: &str, body: Body) -> Result<u64, StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.put(key, content_type, body, false).await.map(|(size, _)| size),
            Backend::S3(store) => store.put(key, content_type, body, false).await.map(|(size, _)| size),
        }
    }

    /// Stores an object unless one is there; answers whether it was this one that was stored.
    pub async fn put_new(&self, key: &Key, content_type: &str, body: Body) -> Result<bool, StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.put(key, content_type, body, true).await.map(|(_, stored)| stored),
            Backend::S3(store) => store.put(key, content_type, body, true).await.map(|(_, stored)| stored),
        }
    }

    /// [`Self::put`] of bytes at hand.
    pub async fn put_bytes(&self, key: &Key, content_type: &str, bytes: Bytes) -> Result<u64, StoreError> {
        self.put(key, content_type, body_of(bytes)).await
    }

    /// An object, or a part of it.
    pub async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object, StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.get(key, range).await,
            Backend::S3(store) => store.get(key, range).await,
        }
    }

    /// What is known of an object.
    pub async fn head(&self, key: &Key) -> Result<Meta, StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.head(key).await,
            Backend::S3(store) => store.head(key).await,
        }
    }

    /// Removes an object; one that is not there is no error.
    pub async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.delete(key).await,
            Backend::S3(store) => store.delete(key).await,
        }
    }

    /// Removes every object under a folder, in steps that can be repeated.
    pub async fn delete_under(&self, folder: &Key) -> Result<(), StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.delete_under(folder).await,
            Backend::S3(store) => store.delete_under(folder).await,
        }
    }

    /// Whether the store answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.ping().await,
            Backend::S3(store) => store.ping().await,
        }
    }

    /// Starts a growing object. `expected` (bytes) chooses the size of parts on S3.
    pub async fn start_growth(
        &self,
        key: &Key,
        content_type: &str,
        expected: Option<u64>,
    ) -> Result<Growth, StoreError> {
        match &*self.backend {
            Backend::Directory(_) => Ok(Growth::Directory),
            Backend::S3(store) => Ok(Growth::S3(s3_grow::start(store, key, content_type, expected).await?)),
        }
    }

    /// Goes on with a growing object that holds `length` durable bytes. `growth` must have been given by
    /// [`Growth::reserve`] since then, and kept, so that no older writer can touch what this one writes.
    pub async fn grow(&self, key: &Key, length: u64, growth: Growth) -> Result<Grower, StoreError> {
        match (&*self.backend, growth) {
            (Backend::Directory(store), Growth::Directory) => {
                Ok(Grower::Directory(directory_grow::Grower::open(store, key, length).await?))
            }
            (Backend::S3(store), Growth::S3(multipart)) => {
                Ok(Grower::S3(Box::new(s3_grow::Grower::open(store, key, length, multipart).await?)))
            }
            _ => Err(StoreError::Refused("the upload was begun on another kind of store".to_owned())),
        }
    }

    /// Turns a growing object of `length` durable bytes into an object. Can be repeated.
    pub async fn finish_growth(
        &self,
        key: &Key,
        content_type: &str,
        length: u64,
        growth: &Growth,
    ) -> Result<(), StoreError> {
        match (&*self.backend, growth) {
            (Backend::Directory(store), Growth::Directory) => {
                directory_grow::finish(store, key, content_type, length).await
            }
            (Backend::S3(store), Growth::S3(multipart)) => {
                s3_grow::finish(store, key, content_type, length, multipart).await
            }
            _ => Err(StoreError::Refused("the upload was begun on another kind of store".to_owned())),
        }
    }

    /// Throws a growing object away. Can be repeated.
    pub async fn abandon_growth(&self, key: &Key, growth: &Growth) -> Result<(), StoreError> {
        match (&*self.backend, growth) {
            (Backend::Directory(store), _) => directory_grow::abandon(store, key).await,
            (Backend::S3(store), Growth::S3(multipart)) => s3_grow::abandon(store, key, multipart).await,
            _ => Ok(()),
        }
    }
}

impl Growth {
    /// Sets apart what the next writer will write under, so that a writer that was fenced off can't overwrite it.
    /// Called, and the result kept, in the transaction that raises the fence.
    #[must_use]
    pub fn reserve(mut self) -> Self {
        if let Self::S3(multipart) = &mut self {
            multipart.reserve();
        }
        self
    }

    /// This one, with what a later one has set apart for its writer and nothing else of it.
    #[must_use]
    pub fn reserved_like(mut self, later: &Self) -> Self {
        if let (Self::S3(multipart), Self::S3(later)) = (&mut self, later) {
            multipart.reserve_like(later);
        }
        self
    }
}

/// A body of bytes at hand.
pub fn body_of(bytes: Bytes) -> Body {
    futures_util::stream::once(std::future::ready(Ok(bytes))).boxed()
}

/// A whole body in memory, refused when it is larger than `limit` bytes.
pub async fn read_all(mut body: Body, limit: usize) -> Result<Bytes, StoreError> {
    let mut all = bytes::BytesMut::new();
    while let Some(chunk) = body.try_next().await? {
        if all.len() + chunk.len() > limit {
            return Err(StoreError::Refused(format!("the object is larger than {limit} bytes")));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests;

//! A growing object in a bucket: a multipart upload. Parts are sent as they fill; the tail, smaller than a part, is an
//! object of its own until more bytes come. Part numbers are reserved before they are used, in the transaction that raises
//! the fence, so that a writer that lost its upload can only write part numbers that nobody will complete.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::store::buffers::Held;
use crate::store::error::StoreError;
use crate::store::key::Key;
use crate::store::s3::S3;

/// The smallest part that S3 takes, but for the last one.
const MIN_PART_BYTES: u64 = 5 << 20;
/// The most bytes that one request copies, so that it ends in time.
const MAX_COPY_BYTES: u64 = 256 << 20;
/// Parts that an upload of a known length is divided into at most. S3 has 10,000 part numbers, and some are used up by
/// writers that were interrupted.
const TARGET_PARTS: u64 = 2_000;
/// The highest part number of S3.
const MAX_PART_NUMBER: i32 = 10_000;

/// The state of a multipart upload, which the caller keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultipartState {
    /// S3's id of the upload.
    id: String,
    /// The size of a part in bytes.
    part: u64,
    /// The number that the present writer may use next.
    number: i32,
    /// Complete parts, by number.
    parts: Vec<Part>,
    /// The bytes after them, fewer than a part.
    tail: Option<Tail>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    number: i32,
    etag: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tail {
    /// Part of its object's name.
    number: i32,
    bytes: u64,
}

impl MultipartState {
    pub(super) fn reserve(&mut self) {
        self.number = self.number.saturating_add(1);
    }

    pub(super) fn reserve_like(&mut self, later: &Self) {
        self.number = self.number.max(later.number);
    }
}

pub(super) async fn start(
    store: &S3,
    key: &Key,
    content_type: &str,
    expected: Option<u64>,
) -> Result<MultipartState, StoreError> {
    let id = store.create_multipart(key, content_type).await?;
    // In whole mebibytes; the budget of buffers still bounds how many such parts are held.
    let part = expected.unwrap_or(0).div_ceil(TARGET_PARTS).next_multiple_of(1 << 20).clamp(store.part, 64 << 20);
    Ok(MultipartState { id, part, number: 0, parts: Vec::new(), tail: None })
}

fn other_length() -> StoreError {
    StoreError::Lost("the tail of the upload came back with another length".to_owned())
}

/// An error about a tail: one that is not there was acknowledged, and is lost.
fn of_tail(error: StoreError) -> StoreError {
    match error {
        StoreError::NotFound => StoreError::Lost("the tail of the upload is gone".to_owned()),
        other => other,
    }
}

fn tail_key(key: &Key, number: i32) -> Result<Key, StoreError> {
    Key::parse(&format!("{key}.tail-{number}")).map_err(|error| StoreError::Refused(error.to_string()))
}

/// Reads a tail back into a buffer of a part's capacity.
async fn read_tail(store: &S3, key: &Key, tail: &Tail, into: &mut BytesMut) -> Result<(), StoreError> {
    let mut object = store.get(&tail_key(key, tail.number)?, None).await.map_err(of_tail)?;
    while let Some(chunk) = object.body.try_next().await? {
        if (into.len() + chunk.len()) as u64 > tail.bytes {
            return Err(other_length());
        }
        into.extend_from_slice(&chunk);
    }
    if into.len() as u64 == tail.bytes { Ok(()) } else { Err(other_length()) }
}

/// A multipart upload that grows.
pub struct MultipartWriter {
    store: S3,
    key: Key,
    multipart: MultipartState,
    /// The part that is being filled, allocated at a part's capacity so that it never moves.
    buffer: BytesMut,
    /// Bytes of the last write that belong to the next part.
    beyond: Bytes,
    /// The share of the buffer budget that `buffer` is held under.
    held: Option<Held>,
    /// Whose upload it is.
    owner: String,
    length: u64,
    durable: u64,
    /// Tails that checkpoints have replaced; their objects are removed once the caller has saved the new state.
    stale: Vec<Tail>,
}

impl MultipartWriter {
    pub(super) async fn open(
        store: &S3,
        key: &Key,
        owner: &str,
        length: u64,
        multipart: MultipartState,
    ) -> Result<Self, StoreError> {
        let mut grower = Self {
            owner: owner.to_owned(),
            store: store.clone(),
            key: key.clone(),
            stale: Vec::new(),
            buffer: BytesMut::new(),
            beyond: Bytes::new(),
            held: None,
            length,
            durable: length,
            multipart,
        };
        if let Some(tail) = grower.multipart.tail.clone() {
            grower.room().await?;
            read_tail(store, key, &tail, &mut grower.buffer).await?;
        }
        Ok(grower)
    }

    /// The size of a part in bytes.
    fn part(&self) -> usize {
        usize::try_from(self.multipart.part).unwrap_or(usize::MAX)
    }

    /// Waits for the budget of a part, and allocates its buffer.
    pub(super) async fn room(&mut self) -> Result<(), StoreError> {
        if self.held.is_none() {
            self.held = Some(self.store.buffers.of_upload(&self.owner, self.multipart.part).await?);
        }
        self.buffer.reserve(self.part().saturating_sub(self.buffer.len()));
        Ok(())
    }

    /// Fills the part; what does not fit is kept for the next one.
    fn fill(&mut self, mut bytes: Bytes) {
        let fits = self.part().saturating_sub(self.buffer.len()).min(bytes.len());
        self.buffer.extend_from_slice(&bytes.split_to(fits));
        self.beyond = bytes;
    }

    /// Appends bytes. Once a part is full ([`Self::wants_checkpoint`]), a checkpoint has to send it before more is written.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        if !self.beyond.is_empty() {
            return Err(StoreError::Unavailable("an earlier write was interrupted".to_owned()));
        }
        self.room().await?;
        self.length += bytes.len() as u64;
        self.fill(bytes);
        Ok(())
    }

    pub(super) fn pending(&self) -> u64 {
        self.length - self.durable
    }

    pub(super) fn wants_checkpoint(&self) -> bool {
        self.buffer.len() as u64 >= self.multipart.part
    }

    /// A checkpoint sends one part at most, since one number is reserved at a time.
    pub(super) async fn checkpoint(&mut self, last: bool) -> Result<(u64, MultipartState), StoreError> {
        let number = self.multipart.number;
        if number > MAX_PART_NUMBER {
            return Err(StoreError::Refused(
                "the upload was interrupted too often: no part numbers are left".to_owned(),
            ));
        }
        if self.wants_checkpoint() {
            // Parts of exactly one size: some look-alikes demand it.
            let bytes = std::mem::take(&mut self.buffer).freeze();
            let etag = self.send_part(number, bytes.clone()).await?;
            self.multipart.parts.push(Part { number, etag });
            self.stale.extend(self.multipart.tail.take());
            self.durable = self.length - self.beyond.len() as u64;
            if self.beyond.is_empty() {
                self.held = None;
            } else {
                // Reuses the memory, unless a request that was given up still holds it.
                self.buffer = bytes.try_into_mut().unwrap_or_default();
                self.buffer.clear();
                self.room().await?;
                let beyond = std::mem::take(&mut self.beyond);
                self.fill(beyond);
            }
        }
        if last && self.pending() > 0 && self.beyond.is_empty() {
            let bytes = std::mem::take(&mut self.buffer).freeze();
            let size = bytes.len() as u64;
            let key = tail_key(&self.key, number)?;
            self.store.put_whole(&key, "application/octet-stream", bytes.clone(), false).await?;
            if !self.multipart.parts.is_empty() {
                // A tail can be stored after the bucket has removed the parts before it.
                self.store.look_at_multipart(&self.key, &self.multipart.id).await?;
            }
            // The writer may go on after it.
            self.buffer = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            self.stale.extend(self.multipart.tail.take());
            self.multipart.tail = Some(Tail { number, bytes: size });
            self.durable = self.length;
        }
        self.multipart.reserve();
        Ok((self.durable, self.multipart.clone()))
    }

    /// Sends a part. A multipart upload that the bucket removed while it had no part is begun anew: nothing was lost.
    async fn send_part(&mut self, number: i32, bytes: Bytes) -> Result<String, StoreError> {
        let sent = self.store.upload_part(&self.key, &self.multipart.id, number, bytes.clone()).await;
        match sent {
            Err(StoreError::Lost(_)) if self.multipart.parts.is_empty() => {
                self.multipart.id = self.store.create_multipart(&self.key, "application/octet-stream").await?;
                self.store.upload_part(&self.key, &self.multipart.id, number, bytes).await
            }
            other => other,
        }
    }
}

impl MultipartWriter {
    /// Has the server copy a range of another object as a part, if the bytes before it end with a part. Answers what
    /// [`Self::checkpoint`] does; `None` where the bytes have to be written instead.
    pub(super) async fn copy(
        &mut self,
        from: &Key,
        range: Range<u64>,
        last: bool,
    ) -> Result<Option<(u64, MultipartState)>, StoreError> {
        let bytes = range.end.saturating_sub(range.start);
        let at_part_boundary = self.buffer.is_empty() && self.multipart.tail.is_none();
        let number = self.multipart.number;
        if !self.store.copy
            || !at_part_boundary
            || bytes == 0
            || (bytes < MIN_PART_BYTES && !last)
            || number > MAX_PART_NUMBER
        {
            return Ok(None);
        }
        let etag = match self.store.copy_part(&self.key, &self.multipart.id, number, from, &range).await {
            Ok(etag) => etag,
            Err(StoreError::Refused(reason)) => {
                tracing::warn!(object = %self.key, reason, "the store does not copy; the bytes go through this process");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.multipart.parts.push(Part { number, etag });
        self.multipart.reserve();
        self.length += bytes;
        self.durable = self.length;
        Ok(Some((self.durable, self.multipart.clone())))
    }

    /// Where a copy that begins at `start` of an object of `end` bytes ends: all copies have about the same length.
    pub(super) fn copy_end(&self, start: u64, end: u64) -> u64 {
        let longest = MAX_COPY_BYTES.max(end.div_ceil(TARGET_PARTS));
        let left = end.saturating_sub(start);
        start + left.div_ceil(left.div_ceil(longest).max(1))
    }

    pub(super) async fn state_saved(&mut self) {
        for old in std::mem::take(&mut self.stale) {
            if let Ok(key) = tail_key(&self.key, old.number) {
                // One that is left here is removed with the upload.
                let _ = self.store.delete(&key).await;
            }
        }
    }
}

pub(super) async fn finish(
    store: &S3,
    key: &Key,
    content_type: &str,
    length: u64,
    multipart: &MultipartState,
) -> Result<(), StoreError> {
    match complete(store, key, content_type, multipart).await {
        // Unless an earlier try succeeded, and only its answer was lost.
        Err(StoreError::Lost(what)) if !is_finished(store, key, length).await? => return Err(StoreError::Lost(what)),
        Err(StoreError::Lost(_)) => {}
        result => result?,
    }
    remove_tails(store, key).await
}

/// Whether the whole object is there.
async fn is_finished(store: &S3, key: &Key, length: u64) -> Result<bool, StoreError> {
    match store.head(key).await {
        Ok(meta) => Ok(meta.size == length),
        Err(StoreError::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Looks whether the store holds all that was acknowledged; [`StoreError::Lost`] when it does not.
pub(super) async fn verify(store: &S3, key: &Key, length: u64, multipart: &MultipartState) -> Result<(), StoreError> {
    match look(store, key, multipart).await {
        Err(StoreError::Lost(_)) if is_finished(store, key, length).await? => Ok(()),
        other => other,
    }
}

async fn look(store: &S3, key: &Key, multipart: &MultipartState) -> Result<(), StoreError> {
    if !multipart.parts.is_empty() {
        store.look_at_multipart(key, &multipart.id).await?;
    }
    let Some(tail) = &multipart.tail else { return Ok(()) };
    let found = store.head(&tail_key(key, tail.number)?).await.map_err(of_tail)?;
    if found.size == tail.bytes { Ok(()) } else { Err(other_length()) }
}

async fn complete(store: &S3, key: &Key, content_type: &str, multipart: &MultipartState) -> Result<(), StoreError> {
    if multipart.parts.is_empty() {
        // No part was sent: one request stores it all, and needs no multipart upload to be there still.
        let mut bytes = BytesMut::new();
        let _held = store.buffers.of_object(multipart.tail.as_ref().map_or(0, |tail| tail.bytes)).await?;
        if let Some(tail) = &multipart.tail {
            read_tail(store, key, tail, &mut bytes).await?;
        }
        store.put_whole(key, content_type, bytes.freeze(), false).await?;
        return store.abort_multipart(key, &multipart.id).await;
    }
    let mut parts: Vec<_> = multipart.parts.iter().map(|part| (part.number, part.etag.clone())).collect();
    if let Some(tail) = &multipart.tail {
        let _held = store.buffers.of_object(tail.bytes).await?;
        let mut bytes = BytesMut::with_capacity(usize::try_from(tail.bytes.min(multipart.part)).unwrap_or(0));
        read_tail(store, key, tail, &mut bytes).await?;
        let etag = store.upload_part(key, &multipart.id, multipart.number, bytes.freeze()).await?;
        parts.push((multipart.number, etag));
    }
    store.complete_multipart(key, &multipart.id, &parts, false).await.map(drop)
}

/// Removes the objects of tails: the last one, and those that interrupted writers left.
async fn remove_tails(store: &S3, key: &Key) -> Result<(), StoreError> {
    store.delete_named(&format!("{}.tail-", store.name(key))).await
}

pub(super) async fn abandon(store: &S3, key: &Key, multipart: &MultipartState) -> Result<(), StoreError> {
    store.abort_multipart(key, &multipart.id).await?;
    remove_tails(store, key).await
}

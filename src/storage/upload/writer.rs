//! One request's bytes on their way into the store.
//!
//! A request takes a ticket and takes the upload over (`takeover`). Its writes run in a task of their own, so that what
//! came is acknowledged even when the client hangs up.

use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use lyceum_core::ids::Id;
use lyceum_core::time::monotonic;

use crate::store::error::StoreError;
use crate::store::growth::{GrowingObject, Growth};
use crate::store::key::Key;
use crate::store::object::ByteRange;
use crate::upload::error::UploadError;
use crate::upload::headers::{Checksum, RunningDigest};
use crate::upload::record::{self, Upload, UploadState};
use crate::upload::takeover::POLL_INTERVAL;
use crate::upload::uploads::{ActiveWriter, Uploads, source_key, usable};

/// The bytes of a request; errors are the connection's.
pub type IncomingBytes = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// A request to append bytes.
pub struct AppendRequest {
    /// Where its bytes belong.
    pub offset: u64,
    /// How many bytes follow, when the client says so.
    pub content_length: Option<u64>,
    /// The upload's whole length, when the client says so now.
    pub length: Option<u64>,
    /// How large an upload of unknown length may become, where its owner has a quota.
    pub max_length: Option<u64>,
    /// The checksum that the bytes should have.
    pub checksum: Option<Checksum>,
    /// The bytes.
    pub body: IncomingBytes,
}

/// A range of an object, to be concatenated with others.
#[derive(Clone, Debug)]
pub(super) struct ObjectRange {
    pub(super) key: Key,
    pub(super) range: Range<u64>,
}

/// The result of a request.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The upload after it.
    pub upload: Upload,
}

impl Uploads {
    /// Appends a request's bytes. Whatever ends it early, what came before is acknowledged.
    pub async fn append(&self, id: &Id, request: AppendRequest) -> Result<Appended, UploadError> {
        // Refused before an older writer is stopped; the offset is checked under the ticket.
        let upload = usable(self.peek(id).await?)?;
        if upload.state != UploadState::Open {
            return Err(UploadError::NotWritable);
        }
        self.append_work(id, request, Vec::new()).await
    }

    /// Appends ranges of objects in order, under the rules of [`Self::append`].
    pub(super) async fn append_objects(
        &self,
        id: &Id,
        offset: u64,
        ranges: Vec<ObjectRange>,
    ) -> Result<Appended, UploadError> {
        let body = futures_util::stream::empty().boxed();
        let request =
            AppendRequest { offset, content_length: None, length: None, max_length: None, checksum: None, body };
        self.append_work(id, request, ranges).await
    }

    async fn append_work(
        &self,
        id: &Id,
        request: AppendRequest,
        ranges: Vec<ObjectRange>,
    ) -> Result<Appended, UploadError> {
        let work = self.clone().write(id.clone(), request, ranges);
        match tokio::spawn(work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unavailable("the program is ending".to_owned()).into()),
        }
    }

    async fn write(self, id: Id, request: AppendRequest, ranges: Vec<ObjectRange>) -> Result<Appended, UploadError> {
        let ticket = self.take_ticket(&id).await?;
        let stop = CancellationToken::new();
        let _active = Registration::new(&self, &id, ticket, stop.clone());
        let upload = self.take_over(&id, ticket, true).await?;
        match self.receive(&upload, ticket, &stop, (request, ranges)).await {
            Ok(upload) => Ok(Appended { upload }),
            // A newer request may have replaced, or finished with, what this one missed.
            Err(UploadError::Lost) if self.is_superseded(&id, ticket).await? => Err(UploadError::Superseded),
            Err(error) => {
                self.release(&id, ticket).await;
                Err(error)
            }
        }
    }

    async fn is_superseded(&self, id: &Id, ticket: i64) -> Result<bool, UploadError> {
        let looked = record::fence(&mut self.db.read().await?, id).await?;
        Ok(looked.is_some_and(|(fence, _)| fence != ticket))
    }

    /// Leaves the upload without a writer after a failure before the last acknowledgement.
    async fn release(&self, id: &Id, ticket: i64) {
        let left = async {
            let mut tx = self.db.begin().await?;
            if let Some(upload) = record::get(&mut tx, id).await?.filter(|upload| upload.writer == Some(ticket)) {
                record::set_writer(&mut tx, id, None, &upload.growth).await?;
            }
            tx.commit().await
        };
        if let Err(error) = left.await {
            // The next request takes over after its wait.
            tracing::warn!(upload = %id, %error, "an upload could not be released");
        }
    }

    async fn receive(
        &self,
        upload: &Upload,
        ticket: i64,
        stop: &CancellationToken,
        (request, ranges): (AppendRequest, Vec<ObjectRange>),
    ) -> Result<Upload, UploadError> {
        let length = self.check(upload, request.offset, request.length, request.max_length).await?;
        let open_end = request.max_length.unwrap_or(u64::MAX).min(self.config.size.0);
        let room = length.unwrap_or(open_end).saturating_sub(upload.received);
        let over: fn(u64) -> UploadError = match length {
            Some(_) => |_| UploadError::TooLong,
            None if open_end < self.config.size.0 => |_| UploadError::OverQuota,
            None => |limit| UploadError::TooLarge { limit },
        };
        if request.content_length.is_some_and(|bytes| bytes > room) {
            return Err(over(self.config.size.0));
        }
        let grower = self.open(upload).await?;
        let mut writing = ActiveWrite {
            uploads: self,
            upload: Upload { length, ..upload.clone() },
            ticket,
            grower,
            digest: request.checksum.map(RunningDigest::new),
            room,
            too_long: over,
            background_checkpoint: None,
        };
        let end = match writing.take(ranges, stop).await {
            Ok(()) => writing.pump(request.body, stop).await,
            Err(error) => Err(error),
        };
        writing.finish(end).await
    }

    /// Checks offset and length under the ticket; answers the upload's length.
    async fn check(
        &self,
        upload: &Upload,
        offset: u64,
        length: Option<u64>,
        max_length: Option<u64>,
    ) -> Result<Option<u64>, UploadError> {
        if upload.state != UploadState::Open {
            return usable(upload.clone()).and(Err(UploadError::NotWritable));
        }
        if offset != upload.received {
            return Err(UploadError::WrongOffset { expected: upload.received });
        }
        match (upload.length, length) {
            (Some(known), Some(said)) if known != said => Err(UploadError::WrongLength),
            (None, Some(said)) if said < upload.received => Err(UploadError::WrongLength),
            (None, Some(said)) if said > self.config.size.0 => Err(UploadError::TooLarge { limit: self.config.size.0 }),
            (None, Some(said)) if max_length.is_some_and(|max_length| said > max_length) => Err(UploadError::OverQuota),
            (None, Some(said)) => {
                let mut tx = self.db.begin().await?;
                record::set_length(&mut tx, &upload.id, said).await?;
                tx.commit().await?;
                Ok(Some(said))
            }
            (known, _) => Ok(known),
        }
    }

    /// Opens the growing object. A writer that was fenced off may still have its file open for a moment.
    async fn open(&self, upload: &Upload) -> Result<GrowingObject, UploadError> {
        let key = source_key(&upload.id)?;
        let deadline = monotonic() + self.config.takeover.get();
        loop {
            match self.store.grow(&key, &upload.owner, upload.received, upload.growth.clone()).await {
                Err(StoreError::Held) if monotonic() < deadline => {
                    sleep(POLL_INTERVAL).await;
                }
                // All of it was turned into an object already, and that is what is written no more.
                Err(StoreError::Lost(_))
                    if self.store.verify_growth(&key, upload.received, &upload.growth).await.is_ok() =>
                {
                    return Err(UploadError::NotWritable);
                }
                other => return Ok(other?),
            }
        }
    }
}

/// A request that is being written.
struct ActiveWrite<'a> {
    uploads: &'a Uploads,
    upload: Upload,
    ticket: i64,
    grower: GrowingObject,
    digest: Option<RunningDigest>,
    /// Bytes that may still come.
    room: u64,
    /// The error for more than those, given the configured limit.
    too_long: fn(u64) -> UploadError,
    /// A checkpoint that runs while more is written; answers the length that it acknowledged.
    background_checkpoint: Option<JoinHandle<Result<u64, UploadError>>>,
}

impl ActiveWrite<'_> {
    /// Appends ranges of objects: copied by the store where it can, else read and written.
    async fn take(&mut self, ranges: Vec<ObjectRange>, stop: &CancellationToken) -> Result<(), UploadError> {
        let mut left = ranges.len();
        for ObjectRange { key, mut range } in ranges {
            left = left.saturating_sub(1);
            while range.start < range.end {
                let Some((upto, length, growth)) = self.grower.copy(&key, range.clone(), left == 0).await? else {
                    let rest = ByteRange::Between(range.start, range.end - 1);
                    let object = self.uploads.store.get(&key, Some(rest)).await?;
                    self.pump(object.body.map_err(|error| error.to_string()).boxed(), stop).await?;
                    break;
                };
                self.room = self.room.saturating_sub(upto - range.start);
                self.acknowledge(length, growth, false).await?;
                range.start = upto;
                if stop.is_cancelled() {
                    return Err(UploadError::Superseded);
                }
            }
        }
        Ok(())
    }

    /// Writes bytes until they end, or until a newer request, silence or an error ends them.
    async fn pump(&mut self, mut body: IncomingBytes, stop: &CancellationToken) -> Result<(), UploadError> {
        let config = self.uploads.config.clone();
        let mut watch = interval(config.watch.get());
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let silence = sleep(config.idle.get());
        tokio::pin!(silence);
        loop {
            let chunk = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(UploadError::Superseded),
                chunk = body.next() => chunk,
                () = &mut silence => {
                    return Err(UploadError::BrokenBody("no bytes came for too long".to_owned()));
                }
                _ = watch.tick() => {
                    self.look_for_newer().await?;
                    continue;
                }
            };
            let bytes = match chunk {
                None => return Ok(()),
                Some(Err(error)) => return Err(UploadError::BrokenBody(error)),
                Some(Ok(bytes)) => bytes,
            };
            if bytes.len() as u64 > self.room {
                return Err((self.too_long)(config.size.0));
            }
            self.room -= bytes.len() as u64;
            if let Some(digest) = &mut self.digest {
                digest.update(&bytes);
            }
            // Many uploads may wait here for memory; a newer request for this one stops the wait.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(UploadError::Superseded),
                room = self.grower.room() => room?,
            }
            self.grower.write(bytes).await?;
            if self.grower.wants_checkpoint() {
                self.start_background_checkpoint().await?;
            }
            // Time spent waiting for the store is no silence of the sender.
            silence.as_mut().reset(monotonic() + config.idle.get());
        }
    }

    /// Makes a checkpoint in the background, where the store can.
    async fn start_background_checkpoint(&mut self) -> Result<(), UploadError> {
        if self.digest.is_some() {
            return self.checkpoint().await;
        }
        if self.background_checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.is_finished())
            && !self.grower.is_ahead()
        {
            return Ok(());
        }
        self.finish_background_checkpoint().await?;
        let Some(checkpoint) = self.grower.start_background_checkpoint().await? else { return self.checkpoint().await };
        let (uploads, id, ticket) = (self.uploads.clone(), self.upload.id.clone(), self.ticket);
        self.background_checkpoint = Some(tokio::spawn(async move {
            let length = checkpoint.length;
            let growth = checkpoint.end().await?;
            acknowledge(&uploads, &id, ticket, length, &growth, false).await?;
            Ok(length)
        }));
        Ok(())
    }

    /// Waits for the background checkpoint, if there is one.
    async fn finish_background_checkpoint(&mut self) -> Result<(), UploadError> {
        let Some(checkpoint) = self.background_checkpoint.take() else { return Ok(()) };
        let ended = checkpoint.await.map_err(|_| StoreError::Unavailable("the program is ending".to_owned()))?;
        let length = ended?;
        self.grower.confirm_checkpoint(length);
        self.upload.received = length;
        Ok(())
    }

    async fn look_for_newer(&self) -> Result<(), UploadError> {
        let looked = record::fence(&mut self.uploads.db.read().await?, &self.upload.id).await?;
        match looked {
            Some((fence, true)) if fence == self.ticket => Ok(()),
            Some((_, true)) => Err(UploadError::Superseded),
            _ => Err(UploadError::Gone),
        }
    }

    /// Bytes under a checksum are not acknowledged before all of them match it; until then only the reserved part numbers
    /// are saved.
    async fn checkpoint(&mut self) -> Result<(), UploadError> {
        loop {
            let (length, growth) = self.grower.checkpoint(false).await?;
            if self.digest.is_some() {
                let reserved = self.upload.growth.clone().reserved_like(&growth);
                let received = self.upload.received;
                self.acknowledge(received, reserved, false).await?;
            } else {
                self.acknowledge(length, growth, false).await?;
                self.grower.state_saved().await;
            }
            // One read may hold more than a part.
            if !self.grower.wants_checkpoint() {
                return Ok(());
            }
        }
    }

    async fn acknowledge(&mut self, received: u64, growth: Growth, leaves: bool) -> Result<(), UploadError> {
        let expires = acknowledge(self.uploads, &self.upload.id, self.ticket, received, &growth, leaves).await?;
        self.upload = Upload { received, growth, expires, ..self.upload.clone() };
        Ok(())
    }

    /// Acknowledges what came, however it ended, and answers how it ended.
    async fn finish(mut self, end: Result<(), UploadError>) -> Result<Upload, UploadError> {
        // The disk reports an error once: after one, nothing later may be acknowledged.
        self.finish_background_checkpoint().await?;
        if let Some(digest) = self.digest.take() {
            // A part of a body can't be checked, so it is not kept.
            end?;
            if !digest.matches() {
                return Err(UploadError::ChecksumMismatch);
            }
            return self.last_checkpoint().await;
        }
        match end {
            Ok(()) => self.last_checkpoint().await,
            Err(error @ (UploadError::Store(_) | UploadError::Db(_) | UploadError::Gone | UploadError::Lost)) => {
                Err(error)
            }
            Err(error) => {
                self.last_checkpoint().await?;
                Err(error)
            }
        }
    }

    async fn last_checkpoint(mut self) -> Result<Upload, UploadError> {
        // On S3 a full part and the tail after it may need a part number each.
        if self.grower.wants_checkpoint() {
            self.checkpoint().await?;
        }
        let (length, growth) = self.grower.checkpoint(true).await?;
        self.acknowledge(length, growth, true).await?;
        self.grower.state_saved().await;
        self.upload.writer = None;
        Ok(self.upload)
    }
}

/// Records that bytes are durable, if `ticket` still writes; answers when the upload now expires.
async fn acknowledge(
    uploads: &Uploads,
    id: &Id,
    ticket: i64,
    received: u64,
    growth: &Growth,
    leaves: bool,
) -> Result<i64, UploadError> {
    let expires = uploads.expiry();
    let mut tx = uploads.db.begin().await?;
    if !record::acknowledge(&mut tx, id, ticket, received, growth, leaves, expires).await? {
        return Err(UploadError::Superseded);
    }
    tx.commit().await?;
    Ok(expires)
}

/// The writer's entry among those of this process; removed when dropped.
struct Registration<'a> {
    uploads: &'a Uploads,
    id: &'a Id,
    ticket: i64,
}

impl<'a> Registration<'a> {
    fn new(uploads: &'a Uploads, id: &'a Id, ticket: i64, stop: CancellationToken) -> Self {
        let mut active = uploads.active.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Only the newest is listed: an older one has been told to stop.
        if active.get(id).is_none_or(|other| other.ticket < ticket) {
            active.insert(id.clone(), ActiveWriter { ticket, stop });
        }
        Self { uploads, id, ticket }
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let mut active = self.uploads.active.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if active.get(self.id).is_some_and(|writer| writer.ticket == self.ticket) {
            active.remove(self.id);
        }
    }
}

//! One request's bytes on their way into the store.
//!
//! A request takes a ticket; the highest one may write. It waits until the writer before it has kept what it had and
//! left, or takes over when that one stays silent: from then on nothing of the older one can be acknowledged. The
//! writing runs in a task of its own, so that a client that hangs up still gets acknowledged what came.

use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::headers::{Checksum, Digesting};
use super::{Active, State, Upload, UploadError, Uploads, record, source_key};
use crate::store::{ByteRange, Grower, Growth, Key, StoreError};
use lyceum_core::ids::Id;
use lyceum_core::time::monotonic;

/// The bytes of a request; the error is what the connection said.
pub type Incoming = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// A request to append.
pub struct Request {
    /// Where its bytes belong.
    pub offset: u64,
    /// How many there are, when the client said so.
    pub content_length: Option<u64>,
    /// The upload's whole length, when the client says so now.
    pub length: Option<u64>,
    /// How large an upload of unknown length may become, where its owner has a quota.
    pub most: Option<u64>,
    /// What the bytes should come to.
    pub checksum: Option<Checksum>,
    /// The bytes.
    pub body: Incoming,
}

/// A stretch of an object, to be joined with others.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) key: Key,
    pub(super) range: Range<u64>,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The upload after it.
    pub upload: Upload,
}

impl Uploads {
    pub(super) async fn take_ticket(&self, id: &Id) -> Result<i64, UploadError> {
        let mut tx = self.db.begin().await?;
        let ticket = record::take_ticket(&mut tx, id).await?.ok_or(UploadError::NotFound)?;
        tx.commit().await?;
        self.tell_local_writer(id, ticket);
        Ok(ticket)
    }

    /// Waits for the writer before `ticket` to leave, or fences it off. With `write`, `ticket` writes from then on.
    pub(super) async fn take_over(&self, id: &Id, ticket: i64, write: bool) -> Result<Upload, UploadError> {
        let deadline = monotonic() + self.config.takeover.get();
        loop {
            let mut tx = self.db.begin().await?;
            tx.lock("upload", id.as_str()).await?;
            let mut upload = record::get(&mut tx, id).await?.ok_or(UploadError::NotFound)?;
            if upload.fence != ticket {
                return Err(UploadError::Superseded);
            }
            if upload.writer.is_none() || monotonic() >= deadline {
                let writer = write.then_some(ticket);
                upload.growth = upload.growth.reserve();
                upload.writer = writer;
                record::set_writer(&mut tx, id, writer, &upload.growth).await?;
                tx.commit().await?;
                return Ok(upload);
            }
            drop(tx);
            sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Appends a request's bytes. Whatever ends it early, what came before is acknowledged.
    pub async fn append(&self, id: &Id, request: Request) -> Result<Appended, UploadError> {
        // Refused before anybody is disturbed; the offset is looked at again under the ticket.
        let upload = super::usable(self.peek(id).await?)?;
        if upload.state != State::Open {
            return Err(UploadError::NotWritable);
        }
        self.append_work(id, request, Vec::new()).await
    }

    /// Appends stretches of objects behind each other, under the rules of [`Self::append`].
    pub(super) async fn append_objects(
        &self,
        id: &Id,
        offset: u64,
        pieces: Vec<Piece>,
    ) -> Result<Appended, UploadError> {
        let body = futures_util::stream::empty().boxed();
        let request = Request { offset, content_length: None, length: None, most: None, checksum: None, body };
        self.append_work(id, request, pieces).await
    }

    async fn append_work(&self, id: &Id, request: Request, pieces: Vec<Piece>) -> Result<Appended, UploadError> {
        let work = self.clone().write(id.clone(), request, pieces);
        match tokio::spawn(work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unavailable("the program is ending".to_owned()).into()),
        }
    }

    async fn write(self, id: Id, request: Request, pieces: Vec<Piece>) -> Result<Appended, UploadError> {
        let ticket = self.take_ticket(&id).await?;
        let leave = CancellationToken::new();
        let _active = Registered::new(&self, &id, ticket, leave.clone());
        let upload = self.take_over(&id, ticket, true).await?;
        match self.receive(&upload, ticket, &leave, (request, pieces)).await {
            Ok(upload) => Ok(Appended { upload }),
            Err(error) => {
                self.leave(&id, ticket).await;
                Err(error)
            }
        }
    }

    /// Gives the upload free after a failure that came before the last acknowledgement.
    async fn leave(&self, id: &Id, ticket: i64) {
        let left = async {
            let mut tx = self.db.begin().await?;
            if let Some(upload) = record::get(&mut tx, id).await?.filter(|upload| upload.writer == Some(ticket)) {
                record::set_writer(&mut tx, id, None, &upload.growth).await?;
            }
            tx.commit().await
        };
        if let Err(error) = left.await {
            // The next request takes over after its wait.
            tracing::warn!(upload = %id, %error, "an upload could not be given free");
        }
    }

    async fn receive(
        &self,
        upload: &Upload,
        ticket: i64,
        leave: &CancellationToken,
        (request, pieces): (Request, Vec<Piece>),
    ) -> Result<Upload, UploadError> {
        let length = self.check(upload, request.offset, request.length, request.most).await?;
        let open_end = request.most.unwrap_or(u64::MAX).min(self.config.size.0);
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
        let mut writing = Writing {
            uploads: self,
            upload: Upload { length, ..upload.clone() },
            ticket,
            grower,
            digest: request.checksum.map(Digesting::new),
            room,
            beyond: over,
            beside: None,
        };
        let end = match writing.take(pieces, leave).await {
            Ok(()) => writing.pump(request.body, leave).await,
            Err(error) => Err(error),
        };
        writing.finish(end).await
    }

    /// Looks at offset and length under the ticket; answers the upload's length.
    async fn check(
        &self,
        upload: &Upload,
        offset: u64,
        length: Option<u64>,
        most: Option<u64>,
    ) -> Result<Option<u64>, UploadError> {
        if upload.state != State::Open {
            return super::usable(upload.clone()).and(Err(UploadError::NotWritable));
        }
        if offset != upload.received {
            return Err(UploadError::WrongOffset { expected: upload.received });
        }
        match (upload.length, length) {
            (Some(known), Some(said)) if known != said => Err(UploadError::WrongLength),
            (None, Some(said)) if said < upload.received => Err(UploadError::WrongLength),
            (None, Some(said)) if said > self.config.size.0 => Err(UploadError::TooLarge { limit: self.config.size.0 }),
            (None, Some(said)) if most.is_some_and(|most| said > most) => Err(UploadError::OverQuota),
            (None, Some(said)) => {
                let mut tx = self.db.begin().await?;
                record::set_length(&mut tx, &upload.id, said).await?;
                tx.commit().await?;
                Ok(Some(said))
            }
            (known, _) => Ok(known),
        }
    }

    /// Opens the growing object; a writer that was fenced off may hold its file for a moment yet.
    async fn open(&self, upload: &Upload) -> Result<Grower, UploadError> {
        let key = source_key(&upload.id)?;
        let deadline = monotonic() + self.config.takeover.get();
        loop {
            match self.store.grow(&key, upload.received, upload.growth.clone()).await {
                Err(StoreError::Held) if monotonic() < deadline => {
                    sleep(std::time::Duration::from_millis(20)).await;
                }
                other => return Ok(other?),
            }
        }
    }
}

/// A request that is being written.
struct Writing<'a> {
    uploads: &'a Uploads,
    upload: Upload,
    ticket: i64,
    grower: Grower,
    digest: Option<Digesting>,
    /// Bytes that may still come.
    room: u64,
    /// What more than those are.
    beyond: fn(u64) -> UploadError,
    /// A checkpoint that goes on beside the writes: what it acknowledged.
    beside: Option<JoinHandle<Result<u64, UploadError>>>,
}

impl Writing<'_> {
    /// Takes stretches of objects: copied by the store where it can, else byte by byte.
    async fn take(&mut self, pieces: Vec<Piece>, leave: &CancellationToken) -> Result<(), UploadError> {
        let mut left = pieces.len();
        for Piece { key, mut range } in pieces {
            left = left.saturating_sub(1);
            while range.start < range.end {
                let Some((upto, length, growth)) = self.grower.copy(&key, range.clone(), left == 0).await? else {
                    let rest = ByteRange::Between(range.start, range.end - 1);
                    let object = self.uploads.store.get(&key, Some(rest)).await?;
                    self.pump(object.body.map_err(|error| error.to_string()).boxed(), leave).await?;
                    break;
                };
                self.room = self.room.saturating_sub(upto - range.start);
                self.acknowledge(length, growth, false).await?;
                range.start = upto;
                if leave.is_cancelled() {
                    return Err(UploadError::Superseded);
                }
            }
        }
        Ok(())
    }

    /// Takes bytes until they end, or something ends them.
    async fn pump(&mut self, mut body: Incoming, leave: &CancellationToken) -> Result<(), UploadError> {
        let config = self.uploads.config.clone();
        let mut watch = interval(config.watch.get());
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let silence = sleep(config.idle.get());
        tokio::pin!(silence);
        loop {
            let chunk = tokio::select! {
                biased;
                () = leave.cancelled() => return Err(UploadError::Superseded),
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
                return Err((self.beyond)(config.size.0));
            }
            self.room -= bytes.len() as u64;
            if let Some(digest) = &mut self.digest {
                digest.update(&bytes);
            }
            // Many at once wait here for the memory that others hold; a newer request need not.
            tokio::select! {
                biased;
                () = leave.cancelled() => return Err(UploadError::Superseded),
                room = self.grower.room() => room?,
            }
            self.grower.write(bytes).await?;
            if self.grower.wants_checkpoint() {
                self.checkpoint_beside().await?;
            }
            // What was waited for here is no silence of the sender's.
            silence.as_mut().reset(monotonic() + config.idle.get());
        }
    }

    /// A checkpoint that the sender need not wait for, where the store makes such.
    async fn checkpoint_beside(&mut self) -> Result<(), UploadError> {
        if self.digest.is_some() {
            return self.checkpoint().await;
        }
        if self.beside.as_ref().is_some_and(|beside| !beside.is_finished()) && !self.grower.is_ahead() {
            return Ok(());
        }
        self.hear_beside().await?;
        let Some(beside) = self.grower.checkpoint_beside().await? else { return self.checkpoint().await };
        let (uploads, id, ticket) = (self.uploads.clone(), self.upload.id.clone(), self.ticket);
        self.beside = Some(tokio::spawn(async move {
            let length = beside.length;
            let growth = beside.end().await?;
            acknowledge(&uploads, &id, ticket, length, &growth, false).await?;
            Ok(length)
        }));
        Ok(())
    }

    /// Waits for the checkpoint that goes on beside the writes, if there is one.
    async fn hear_beside(&mut self) -> Result<(), UploadError> {
        let Some(beside) = self.beside.take() else { return Ok(()) };
        let ended = beside.await.map_err(|_| StoreError::Unavailable("the program is ending".to_owned()))?;
        let length = ended?;
        self.grower.heard(length);
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

    /// Bytes under a checksum are not acknowledged before all of them have come to it; on the way only what S3 needs
    /// set apart for the next part is kept.
    async fn checkpoint(&mut self) -> Result<(), UploadError> {
        loop {
            let (length, growth) = self.grower.checkpoint(false).await?;
            if self.digest.is_some() {
                let reserved = self.upload.growth.clone().reserved_like(&growth);
                let received = self.upload.received;
                self.acknowledge(received, reserved, false).await?;
            } else {
                self.acknowledge(length, growth, false).await?;
                self.grower.kept().await;
            }
            // One read may have brought more than a part.
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

    /// Acknowledges what came, however it ended, and tells how it ended.
    async fn finish(mut self, end: Result<(), UploadError>) -> Result<Upload, UploadError> {
        // The disk tells of an error once: what comes after one that was heard here must not be built on.
        self.hear_beside().await?;
        if let Some(digest) = self.digest.take() {
            // Part of a body can't be checked, so part of it is not kept.
            end?;
            if !digest.matches() {
                return Err(UploadError::ChecksumMismatch);
            }
            return self.last_checkpoint().await;
        }
        match end {
            Ok(()) => self.last_checkpoint().await,
            Err(error @ (UploadError::Store(_) | UploadError::Db(_) | UploadError::Gone)) => Err(error),
            Err(error) => {
                self.last_checkpoint().await?;
                Err(error)
            }
        }
    }

    async fn last_checkpoint(mut self) -> Result<Upload, UploadError> {
        // On S3 a full part and the rest behind it may need a number each.
        if self.grower.wants_checkpoint() {
            self.checkpoint().await?;
        }
        let (length, growth) = self.grower.checkpoint(true).await?;
        self.acknowledge(length, growth, true).await?;
        self.grower.kept().await;
        self.upload.writer = None;
        Ok(self.upload)
    }
}

/// Keeps that bytes are durable, if `ticket` still writes; answers when the upload expires from now on.
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

/// The writer's entry in the list of this process; gone with it.
struct Registered<'a> {
    uploads: &'a Uploads,
    id: &'a Id,
    ticket: i64,
}

impl<'a> Registered<'a> {
    fn new(uploads: &'a Uploads, id: &'a Id, ticket: i64, leave: CancellationToken) -> Self {
        let mut active = uploads.active.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The newest alone is kept: an older one has been told to leave.
        if active.get(id).is_none_or(|other| other.ticket < ticket) {
            active.insert(id.clone(), Active { ticket, leave });
        }
        Self { uploads, id, ticket }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut active = self.uploads.active.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if active.get(self.id).is_some_and(|writer| writer.ticket == self.ticket) {
            active.remove(self.id);
        }
    }
}

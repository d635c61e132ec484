//! Of two requests for one upload, the newest wins, on whichever origin it arrives. It takes a ticket; the writer before
//! it is told to save what it has and leave, or is fenced off when it stays silent.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use lyceum_core::ids::Id;
use lyceum_core::time::monotonic;

use crate::store::error::StoreError;
use crate::upload::error::UploadError;
use crate::upload::record::{self, Upload, UploadState};
use crate::upload::uploads::{Uploads, source_key, usable};

/// Time between two looks at whether the older writer has left.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl Uploads {
    /// The upload with its offset, after any older writer has saved what it had and left: the client is about to go on.
    /// [`UploadError::Lost`] when the store no longer has the bytes before that offset.
    pub async fn settle(&self, id: &Id) -> Result<Upload, UploadError> {
        let upload = usable(self.peek(id).await?)?;
        if upload.state != UploadState::Open {
            return Ok(upload);
        }
        if upload.writer.is_none() {
            return self.verified(upload).await;
        }
        let ticket = self.take_ticket(id).await?;
        let upload = self.take_over(id, ticket, false).await?;
        self.verified(usable(upload)?).await
    }

    /// Refuses an upload whose bytes are gone. A store that does not answer in time has said nothing against the record.
    async fn verified(&self, upload: Upload) -> Result<Upload, UploadError> {
        let key = source_key(&upload.id)?;
        let looking = self.store.verify_growth(&key, upload.received, &upload.growth);
        match timeout(self.config.takeover.get(), looking).await {
            // Meanwhile it was taken, or a newer request has gone on with it: that one's state counts.
            Ok(Err(StoreError::Lost(_))) if self.has_moved(&upload).await? => usable(self.peek(&upload.id).await?),
            Ok(Err(lost @ StoreError::Lost(_))) => Err(lost.into()),
            Ok(Err(error)) => {
                tracing::debug!(upload = %upload.id, %error, "the store can't be asked for an upload's bytes");
                Ok(upload)
            }
            Ok(Ok(())) | Err(_) => Ok(upload),
        }
    }

    async fn has_moved(&self, upload: &Upload) -> Result<bool, UploadError> {
        let now = self.peek(&upload.id).await?;
        Ok((now.state, now.fence, now.received) != (upload.state, upload.fence, upload.received))
    }

    /// Takes the next ticket of an upload, and tells an older writer in this process to stop.
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
            sleep(POLL_INTERVAL).await;
        }
    }
}

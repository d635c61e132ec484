//! An object that is written by appending, on either kind of store, over several requests and processes.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::error::StoreError;
use crate::store::key::Key;
use crate::store::{directory_append, s3_multipart};

/// What is needed to continue a growing object. The caller saves it in the same transaction as the length that belongs
/// to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Growth {
    /// In a directory, the file itself is enough.
    Directory,
    /// On S3: the multipart upload.
    S3(s3_multipart::MultipartState),
}

/// An object that is being appended to. Only bytes before a checkpoint are durable.
pub enum GrowingObject {
    /// A file under an exclusive lock.
    Directory(directory_append::GrowingFile),
    /// A multipart upload.
    S3(Box<s3_multipart::MultipartWriter>),
}

impl GrowingObject {
    /// Waits until there is memory for more bytes. Safe to cancel, which [`Self::write`] is not.
    pub async fn room(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::S3(grower) => grower.room().await,
        }
    }

    /// Appends bytes; may wait for the store.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        match self {
            Self::Directory(grower) => grower.write(bytes).await,
            Self::S3(grower) => grower.write(bytes).await,
        }
    }

    /// Whether a checkpoint is due: enough bytes were written, or the part is full.
    pub fn wants_checkpoint(&self) -> bool {
        match self {
            Self::Directory(grower) => grower.wants_checkpoint(),
            Self::S3(grower) => grower.wants_checkpoint(),
        }
    }

    /// Bytes written since the last checkpoint.
    pub fn pending(&self) -> u64 {
        match self {
            Self::Directory(grower) => grower.pending(),
            Self::S3(grower) => grower.pending(),
        }
    }

    /// Makes durable what was written; answers the durable length, and what the caller has to save with it. `last` says
    /// that nothing more is written, so that on S3 a tail smaller than a part is stored too.
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

/// A checkpoint that runs while more is written.
pub struct BackgroundCheckpoint {
    /// The length that is durable once it has ended, in bytes.
    pub length: u64,
    growth: Growth,
    disk: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl BackgroundCheckpoint {
    /// Waits for its end; answers what the caller has to save.
    pub async fn end(self) -> Result<Growth, StoreError> {
        let said = self.disk.await.map_err(|_| StoreError::Unavailable("the program is ending".to_owned()))?;
        said.map(|()| self.growth).map_err(|error| StoreError::io(&error))
    }
}

impl GrowingObject {
    /// Starts a checkpoint that runs while more is written; `None` where the store can't do that. One at a time: its end
    /// has to be confirmed ([`Self::confirm_checkpoint`]) before the next one starts.
    pub async fn start_background_checkpoint(&mut self) -> Result<Option<BackgroundCheckpoint>, StoreError> {
        let Self::Directory(grower) = self else { return Ok(None) };
        let (length, disk) = grower.start_background_checkpoint().await?;
        Ok(Some(BackgroundCheckpoint { length, growth: Growth::Directory, disk }))
    }

    /// Notes that a background checkpoint succeeded.
    pub fn confirm_checkpoint(&mut self, length: u64) {
        if let Self::Directory(grower) = self {
            grower.confirm_checkpoint(length);
        }
    }

    /// Whether writes have to wait for the background checkpoint.
    pub fn is_ahead(&self) -> bool {
        match self {
            Self::Directory(grower) => grower.is_ahead(),
            Self::S3(_) => true,
        }
    }

    /// Appends the first bytes of another object's `range`, which do not pass through this process, and makes them
    /// durable. Answers how far in that object it came, and what [`Self::checkpoint`] answers; `None` where the bytes
    /// have to be written instead: the S3 server can't copy, or the part would be too small. `last` says that nothing
    /// follows the range.
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
        let end = grower.copy_end(range.start, range.end);
        let copied = grower.copy(from, range.start..end, last && end == range.end).await?;
        Ok(copied.map(|(length, multipart)| (end, length, Growth::S3(multipart))))
    }

    /// Tells that the caller has saved what the last checkpoint answered: what it replaced can be removed.
    pub async fn state_saved(&mut self) {
        if let Self::S3(grower) = self {
            grower.state_saved().await;
        }
    }
}

impl Growth {
    /// Reserves the part number that the next writer uses, so that a writer that was fenced off can't overwrite its part.
    /// Called, and the result saved, in the transaction that raises the fence.
    #[must_use]
    pub fn reserve(mut self) -> Self {
        if let Self::S3(multipart) = &mut self {
            multipart.reserve();
        }
        self
    }

    /// This one, with the reservations of a later one and nothing else of it.
    #[must_use]
    pub fn reserved_like(mut self, later: &Self) -> Self {
        if let (Self::S3(multipart), Self::S3(later)) = (&mut self, later) {
            multipart.reserve_like(later);
        }
        self
    }
}

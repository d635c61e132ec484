//! Memory for parts on their way to a bucket. Uploads, which come as slowly as a creator's line, have one budget, and one
//! owner at most half of it; what workers and the origin itself store has another, so that neither waits for the other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::store::config::S3Config;
use crate::store::error::StoreError;

/// Bytes that one permit of a semaphore stands for, so that the number of permits fits its type.
const BYTES_PER_PERMIT: u64 = 64 << 10;

/// The budgets; clones share them.
#[derive(Clone)]
pub(super) struct Buffers {
    uploads: Budget,
    objects: Budget,
    /// What each owner may still hold of `uploads`.
    owners: Arc<Mutex<HashMap<String, Budget>>>,
    /// How long one waits for memory.
    wait: Duration,
}

/// Memory that is held; given back when dropped.
pub(super) struct Held {
    _of_all: OwnedSemaphorePermit,
    _of_owner: Option<OwnedSemaphorePermit>,
}

#[derive(Clone)]
struct Budget {
    permits: Arc<Semaphore>,
    all: u32,
}

impl Budget {
    fn new(bytes: u64) -> Self {
        let all = u32::try_from(bytes / BYTES_PER_PERMIT).unwrap_or(u32::MAX).max(1);
        Self { permits: Arc::new(Semaphore::new(usize::try_from(all).unwrap_or(Semaphore::MAX_PERMITS))), all }
    }

    /// What is larger than the budget waits for all of it.
    async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit, StoreError> {
        let permits = u32::try_from(bytes.div_ceil(BYTES_PER_PERMIT)).unwrap_or(u32::MAX).clamp(1, self.all);
        let taken = self.permits.clone().acquire_many_owned(permits).await;
        taken.map_err(|_| StoreError::Unavailable("the program is ending".to_owned()))
    }

    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.permits) == 1
    }
}

impl Buffers {
    pub(super) fn new(config: &S3Config) -> Self {
        Self {
            uploads: Budget::new(config.buffers.0),
            objects: Budget::new(config.object_buffers.0),
            owners: Arc::default(),
            wait: config.attempt_timeout.get(),
        }
    }

    /// Waits until so many bytes of an owner's upload may be held.
    pub(super) async fn of_upload(&self, owner: &str, bytes: u64) -> Result<Held, StoreError> {
        let share = self.share(owner);
        self.within(async {
            let of_owner = share.take(bytes).await?;
            Ok(Held { _of_all: self.uploads.take(bytes).await?, _of_owner: Some(of_owner) })
        })
        .await
    }

    /// Waits until so many bytes of another object may be held.
    pub(super) async fn of_object(&self, bytes: u64) -> Result<Held, StoreError> {
        self.within(async { Ok(Held { _of_all: self.objects.take(bytes).await?, _of_owner: None }) }).await
    }

    async fn within(&self, taking: impl Future<Output = Result<Held, StoreError>>) -> Result<Held, StoreError> {
        let busy = || Err(StoreError::Unavailable("no memory for another part is free".to_owned()));
        timeout(self.wait, taking).await.unwrap_or_else(|_| busy())
    }

    fn share(&self, owner: &str) -> Budget {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        // Held permits and waiting owners count as uses.
        owners.retain(|_, share| !share.is_unused());
        let half = || Budget::new(u64::from(self.uploads.all) * BYTES_PER_PERMIT / 2);
        owners.entry(owner.to_owned()).or_insert_with(half).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffers() -> Buffers {
        let config = serde_json::json!({
            "endpoint": "http://127.0.0.1:1", "bucket": "b", "access_key": "a", "secret_key": "s",
            "buffers": "64MiB", "object_buffers": "16MiB", "attempt_timeout": "5s",
        });
        Buffers::new(&serde_json::from_value(config).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn no_purpose_and_no_owner_takes_all() {
        let (buffers, part) = (buffers(), 8 << 20);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(buffers.of_upload("ada", part).await.unwrap());
        }
        let fifth = buffers.of_upload("ada", part).await;
        assert!(matches!(fifth, Err(StoreError::Unavailable(_))), "half of it is one owner's, and the wait is bounded");
        for _ in 0..4 {
            held.push(buffers.of_upload("bob", part).await.unwrap());
        }
        assert!(buffers.of_upload("eve", part).await.is_err(), "there is no more");
        // Workers wait for no upload, and a small object needs no whole part.
        let segments: Vec<_> = futures_util::future::join_all((0..15).map(|_| buffers.of_object(1 << 20))).await;
        assert!(segments.iter().all(Result::is_ok));
        drop(held);
        assert!(buffers.of_upload("eve", 100 << 20).await.is_ok(), "a part larger than a share takes all of it");
        assert_eq!(buffers.owners.lock().unwrap().len(), 1, "those who hold nothing are forgotten");
    }
}

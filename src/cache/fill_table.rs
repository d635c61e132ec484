//! The fills in progress by key: one for each key, however many requests ask for it.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fill::Fill;
use crate::purge::PurgeTarget;
use crate::unstored::Unstored;

/// Locks that the keys are spread over.
const SHARD_COUNT: usize = 64;

pub(super) type FillShard<E> = HashMap<Box<str>, Arc<Fill<E>>>;

/// Fills in progress, in shards with a lock each.
#[derive(Debug)]
pub(super) struct FillTable<E> {
    shards: [Mutex<FillShard<E>>; SHARD_COUNT],
    hasher: RandomState,
    /// How much of a body that is not stored may wait for its slowest reader, in bytes.
    window_bytes: usize,
    /// The largest body that is stored as one entry, in bytes.
    pub(super) max_object_bytes: u64,
    /// What was fetched lately and not stored.
    pub(super) unstored: Unstored,
}

impl<E> FillTable<E> {
    pub(super) fn new(window_bytes: usize, max_object_bytes: u64, unstored: Unstored) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { shards, hasher: RandomState::new(), window_bytes, max_object_bytes, unstored }
    }

    /// Locks the shard in which the fill of `key` is registered.
    pub(super) fn lock(&self, key: &str) -> MutexGuard<'_, FillShard<E>> {
        let [first, others @ ..] = &self.shards;
        let at = (self.hasher.hash_one(key) >> 56) as usize % SHARD_COUNT;
        let shard = at.checked_sub(1).and_then(|at| others.get(at)).unwrap_or(first);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fill that is not registered under any key.
    pub(super) fn unregistered(&self) -> Arc<Fill<E>> {
        Fill::new(self.window_bytes)
    }

    /// Starts a fill of `key` in its locked shard.
    pub(super) fn start(&self, shard: &mut FillShard<E>, key: &str) -> Arc<Fill<E>> {
        let fill = self.unregistered();
        shard.insert(key.into(), Arc::clone(&fill));
        fill
    }

    /// Ends the sharing of `fill`: requests from now on start another. Does nothing where another took its place.
    pub(super) fn remove(&self, key: &str, fill: &Arc<Fill<E>>) {
        if key.is_empty() {
            return;
        }
        let mut fills = self.lock(key);
        if fills.get(key).is_some_and(|present| Arc::ptr_eq(present, fill)) {
            fills.remove(key);
        }
    }

    /// Ends the sharing of all fills that may bring a response that `target` names.
    pub(super) fn remove_matching(&self, target: &PurgeTarget) {
        for shard in &self.shards {
            let mut fills = shard.lock().unwrap_or_else(PoisonError::into_inner);
            fills.retain(|key, fill| !fill.may_hold(key, target));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}

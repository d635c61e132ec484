//! The hash table of stored responses, in shards with a lock each.
//!
//! Open addressing with linear probing. A slot holds the whole hash beside the pointer to its response, so that a look-up
//! reads one cache line of slots and no response but the right one. A removal leaves no tombstone: the entries behind it
//! move up.

use std::hash::BuildHasher as _;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::cpu_prefetch::prefetch;
use crate::stored_response::StoredResponse;

/// Keys are hashed on each request: foldhash, seeded for each process, takes a tenth of the standard hasher's time.
pub(super) type Hasher = foldhash::quality::RandomState;

/// Many more than cores, so that a writer seldom meets a reader. A power of two.
const SHARD_COUNT: usize = 256;
/// The slots of a shard with its first entry. A power of two.
const INITIAL_SLOTS: usize = 16;

/// Stored responses by key.
#[derive(Debug)]
pub(super) struct Table {
    shards: Box<[AlignedShard; SHARD_COUNT]>,
    hasher: Hasher,
}

/// A shard on a cache line of its own: cores that read different shards do not share one.
#[derive(Debug, Default)]
#[repr(align(64))]
struct AlignedShard(RwLock<Shard>);

#[derive(Debug, Default)]
struct Shard {
    /// None, or a power of two, at least a quarter of them empty.
    slots: Vec<Slot>,
    /// Slots that are not empty.
    held: usize,
}

#[derive(Debug, Default)]
struct Slot {
    hash: u64,
    stored: Option<Arc<StoredResponse>>,
}

impl Table {
    pub(super) fn new(hasher: Hasher) -> Self {
        Self { shards: Box::new(std::array::from_fn(|_| AlignedShard::default())), hasher }
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    #[inline]
    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        let [first, ..] = &*self.shards;
        // Slots go by the lowest bits.
        &self.shards.get((hash >> 48) as usize % SHARD_COUNT).unwrap_or(first).0
    }

    /// The slot where the search for `key` begins; it is being prefetched.
    #[inline]
    pub(super) fn slot(&self, key: &[u8]) -> CacheSlot<'_> {
        let hash = self.hash(key);
        let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = shard.slots.get(hash as usize & shard.mask()) {
            prefetch(slot);
        }
        CacheSlot { hash, shard }
    }

    /// What is stored under `key`.
    pub(super) fn find(&self, key: &[u8]) -> Option<Arc<StoredResponse>> {
        self.slot(key).find(key)
    }

    /// Inserts a response under the key that it knows. Gives the one that it replaces, to be dropped outside of the lock.
    pub(super) fn put(&self, stored: Arc<StoredResponse>) -> Option<Arc<StoredResponse>> {
        let hash = self.hash(stored.key());
        let mut shard = self.shard(hash).write().unwrap_or_else(PoisonError::into_inner);
        match shard.find(hash, stored.key()) {
            Some(at) => shard.slots.get_mut(at)?.stored.replace(stored),
            None => {
                shard.add(hash, stored);
                None
            }
        }
    }

    /// Removes what is stored under `key`.
    pub(super) fn take(&self, key: &[u8]) -> Option<Arc<StoredResponse>> {
        let hash = self.hash(key);
        let mut shard = self.shard(hash).write().unwrap_or_else(PoisonError::into_inner);
        let at = shard.find(hash, key)?;
        shard.take(at)
    }

    /// Calls `show` with every response, shard by shard, each under its read lock.
    pub(super) fn each(&self, mut show: impl FnMut(&Arc<StoredResponse>)) {
        for AlignedShard(shard) in self.shards.iter() {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.slots.iter().filter_map(|slot| slot.stored.as_ref()).for_each(&mut show);
        }
    }
}

/// A slot of the table where a key is looked for. While it is held, writers of its shard wait.
#[derive(Debug)]
pub struct CacheSlot<'a> {
    hash: u64,
    shard: RwLockReadGuard<'a, Shard>,
}

impl CacheSlot<'_> {
    /// Has the processor fetch the response in the slot.
    #[inline]
    pub fn prefetch(&self) {
        let slot = self.shard.slots.get(self.hash as usize & self.shard.mask());
        if let Some(stored) = slot.and_then(|slot| slot.stored.as_deref()) {
            prefetch(stored);
        }
    }

    /// What is stored under `key`, which the slot was made for.
    #[inline]
    pub(super) fn find(self, key: &[u8]) -> Option<Arc<StoredResponse>> {
        let stored = self.shard.slots.get(self.shard.find(self.hash, key)?)?.stored.as_ref()?;
        stored.prefetch();
        Some(Arc::clone(stored))
    }
}

impl Shard {
    /// A hash and this mask give the number of a slot.
    #[inline]
    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        let mask = self.mask();
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots.get(at)?;
            let stored = slot.stored.as_ref()?;
            if slot.hash == hash && stored.key() == key {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }

    fn add(&mut self, hash: u64, stored: Arc<StoredResponse>) {
        if (self.held + 1) * 4 > self.slots.len() * 3 {
            let more = (self.slots.len() * 2).max(INITIAL_SLOTS);
            let slots = std::mem::replace(&mut self.slots, (0..more).map(|_| Slot::default()).collect());
            slots.into_iter().filter(|slot| slot.stored.is_some()).for_each(|slot| self.fill_empty(slot));
        }
        self.held += 1;
        self.fill_empty(Slot { hash, stored: Some(stored) });
    }

    /// Puts a new entry into the first empty slot from its own on.
    fn fill_empty(&mut self, slot: Slot) {
        let mask = self.mask();
        let mut at = slot.hash as usize & mask;
        while let Some(present) = self.slots.get_mut(at) {
            if present.stored.is_none() {
                *present = slot;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    fn take(&mut self, at: usize) -> Option<Arc<StoredResponse>> {
        let taken = self.slots.get_mut(at)?.stored.take()?;
        self.held -= 1;
        let mask = self.mask();
        let (mut free, mut next) = (at, (at + 1) & mask);
        while let Some(slot) = self.slots.get(next).filter(|slot| slot.stored.is_some()) {
            // It moves up unless that would put it in front of its own slot.
            let own = slot.hash as usize & mask;
            if next.wrapping_sub(own) & mask >= next.wrapping_sub(free) & mask {
                self.slots.swap(free, next);
                free = next;
            }
            next = (next + 1) & mask;
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};
    use proptest::prelude::*;

    use super::*;
    use crate::key::Key;
    use lyceum_http::freshness::Freshness;

    fn stored(key: &str) -> Arc<StoredResponse> {
        let freshness = Freshness::lasting(60, 0);
        let stored = StoredResponse::whole(StatusCode::OK, HeaderMap::new(), Bytes::new(), freshness);
        stored.key.set(Key::from(key)).unwrap();
        Arc::new(stored)
    }

    proptest! {
        /// Few hashes, so that they collide.
        #[test]
        fn a_shard_finds_what_was_put_and_not_taken(
            steps in prop::collection::vec((any::<bool>(), 0_u64..6, 0_usize..12), 0..300),
        ) {
            let (mut shard, mut model) = (Shard::default(), std::collections::HashMap::new());
            for (put, hash, n) in steps {
                // Slots' own numbers, some of them at the table's end.
                let (hash, key) = (hash.wrapping_sub(3) << 1, format!("{hash}-{n}"));
                match (put, shard.find(hash, key.as_bytes())) {
                    (true, None) => {
                        prop_assert!(model.insert((hash, key.clone()), ()).is_none());
                        shard.add(hash, stored(&key));
                    }
                    (false, Some(at)) => {
                        let taken = shard.take(at).unwrap();
                        prop_assert_eq!(taken.key(), key.as_bytes());
                        prop_assert!(model.remove(&(hash, key)).is_some());
                    }
                    (_, found) => prop_assert_eq!(found.is_some(), model.contains_key(&(hash, key))),
                }
                prop_assert_eq!(shard.held, model.len());
                prop_assert_eq!(shard.slots.iter().filter(|slot| slot.stored.is_some()).count(), model.len());
                for (hash, key) in model.keys() {
                    prop_assert!(shard.find(*hash, key.as_bytes()).is_some(), "{}", key);
                }
            }
        }
    }
}

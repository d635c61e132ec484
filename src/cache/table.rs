//! The table of stored responses: by key, in parts with a lock each.
//!
//! Open addressing with linear probing. A slot holds the whole hash beside its response, so that one line of memory
//! leads to the right one, and none is touched that is not it; what is taken away leaves no mark, as those behind it move
//! up.

use std::hash::BuildHasher as _;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::Stored;
use super::cpu_prefetch::prefetch;

/// Keys are hashed on each request: foldhash, seeded for each process, takes a tenth of the standard hasher's time.
pub(super) type Hasher = foldhash::quality::RandomState;

/// How many parts there are: many more than cores, so that a writer seldom meets a reader. A power of two.
const SHARD_COUNT: usize = 256;
/// The slots of a part that holds something, at first. A power of two.
const INITIAL_SLOTS: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    shards: Box<[AlignedShard]>,
    hasher: Hasher,
}

/// On a cache line of its own: cores that read different parts do not share one.
#[derive(Debug, Default)]
#[repr(align(64))]
struct AlignedShard(RwLock<Shard>);

#[derive(Debug, Default)]
struct Shard {
    /// None, or a power of two, of which a quarter is free at least.
    slots: Vec<Slot>,
    held: usize,
}

#[derive(Debug, Default)]
struct Slot {
    hash: u64,
    stored: Option<Arc<Stored>>,
}

impl Table {
    pub(super) fn new(hasher: Hasher) -> Self {
        Self { shards: (0..SHARD_COUNT).map(|_| AlignedShard::default()).collect(), hasher }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    fn shard(&self, hash: u64) -> Option<&RwLock<Shard>> {
        // Slots go by the lowest bits.
        self.shards.get((hash >> 48) as usize % SHARD_COUNT).map(|place| &place.0)
    }

    /// Goes to the slot of `key`, and asks memory for it.
    pub(super) fn slot(&self, key: &[u8]) -> Option<CacheSlot<'_>> {
        let hash = self.hash(key);
        let shard = self.shard(hash)?.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = shard.slots.get(hash as usize & shard.mask()) {
            prefetch(slot);
        }
        Some(CacheSlot { hash, shard })
    }

    /// What is stored under `key`.
    pub(super) fn find(&self, key: &[u8]) -> Option<Arc<Stored>> {
        self.slot(key)?.find(key)
    }

    /// Puts what knows its key in its place. Gives what was there before, to be dropped outside of the lock.
    pub(super) fn put(&self, stored: Arc<Stored>) -> Option<Arc<Stored>> {
        let hash = self.hash(stored.key());
        let mut shard = self.shard(hash)?.write().unwrap_or_else(PoisonError::into_inner);
        match shard.find(hash, stored.key()) {
            Some(at) => shard.slots.get_mut(at)?.stored.replace(stored),
            None => {
                shard.add(hash, stored);
                None
            }
        }
    }

    /// Takes what is stored under `key` away.
    pub(super) fn take(&self, key: &[u8]) -> Option<Arc<Stored>> {
        let hash = self.hash(key);
        let mut shard = self.shard(hash)?.write().unwrap_or_else(PoisonError::into_inner);
        let at = shard.find(hash, key)?;
        shard.take(at)
    }

    /// Shows all of it, one part after the other, whose writers wait meanwhile.
    pub(super) fn each(&self, mut show: impl FnMut(&Arc<Stored>)) {
        for AlignedShard(shard) in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.slots.iter().filter_map(|slot| slot.stored.as_ref()).for_each(&mut show);
        }
    }
}

/// A place in the table. Writers wait while it is held.
#[derive(Debug)]
pub(super) struct CacheSlot<'a> {
    hash: u64,
    shard: RwLockReadGuard<'a, Shard>,
}

impl CacheSlot<'_> {
    /// Asks memory for what the slot leads to.
    pub(super) fn prefetch(&self) {
        let slot = self.shard.slots.get(self.hash as usize & self.shard.mask());
        if let Some(stored) = slot.and_then(|slot| slot.stored.as_deref()) {
            prefetch(stored);
        }
    }

    /// What is stored there under `key`, which led there.
    pub(super) fn find(self, key: &[u8]) -> Option<Arc<Stored>> {
        let stored = self.shard.slots.get(self.shard.find(self.hash, key)?)?.stored.as_ref()?;
        stored.prefetch();
        Some(Arc::clone(stored))
    }
}

impl Shard {
    /// What a slot's number is to be taken with.
    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

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

    fn add(&mut self, hash: u64, stored: Arc<Stored>) {
        if (self.held + 1) * 4 > self.slots.len() * 3 {
            let more = (self.slots.len() * 2).max(INITIAL_SLOTS);
            let slots = std::mem::replace(&mut self.slots, (0..more).map(|_| Slot::default()).collect());
            slots.into_iter().filter(|slot| slot.stored.is_some()).for_each(|slot| self.place(slot));
        }
        self.held += 1;
        self.place(Slot { hash, stored: Some(stored) });
    }

    /// Puts what is not there into the first free slot from its own on.
    fn place(&mut self, slot: Slot) {
        let mask = self.mask();
        let mut at = slot.hash as usize & mask;
        while let Some(place) = self.slots.get_mut(at) {
            if place.stored.is_none() {
                *place = slot;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    fn take(&mut self, at: usize) -> Option<Arc<Stored>> {
        let taken = self.slots.get_mut(at)?.stored.take()?;
        self.held -= 1;
        let mask = self.mask();
        let (mut free, mut next) = (at, (at + 1) & mask);
        while let Some(slot) = self.slots.get(next).filter(|slot| slot.stored.is_some()) {
            // It moves up unless that would put it before its own slot.
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

    use super::super::key::Key;
    use super::*;
    use lyceum_http::freshness::Freshness;

    fn stored(key: &str) -> Arc<Stored> {
        let freshness = Freshness::lasting(60, 0);
        let stored = Stored::whole(StatusCode::OK, HeaderMap::new(), Bytes::new(), freshness);
        stored.key.set(Key::from(key)).unwrap();
        Arc::new(stored)
    }

    proptest! {
        /// Few hashes, so that all of them meet.
        #[test]
        fn a_part_finds_what_was_put_and_not_taken(
            steps in prop::collection::vec((any::<bool>(), 0_u64..6, 0_usize..12), 0..300),
        ) {
            let (mut shard, mut model) = (Shard::default(), std::collections::HashMap::new());
            for (put, hash, n) in steps {
                // Slots' own numbers, some of them at the end.
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

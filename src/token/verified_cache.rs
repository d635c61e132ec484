//! A cache of verified tokens: the next request with the same token costs a look-up in place of a signature check.
//!
//! Bounded, in shards, with the CLOCK algorithm for eviction. A look-up holds a shared lock for one map access and one
//! comparison, and writes nothing but a flag. The whole text is compared, so that no hash stands for a token; the hash is
//! of its last bytes, which are signature and differ between tokens.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::grant::Verified;

/// Locks that the tokens are spread over.
const SHARD_COUNT: usize = 64;

/// How many bytes at the end of a token are hashed.
const HASHED_TAIL_BYTES: usize = 48;

/// Verified tokens by their text.
#[derive(Debug)]
pub(super) struct VerifiedCache {
    shards: Vec<RwLock<Shard>>,
    /// Seeded for each process. Only verified tokens enter the map, so no attacker chooses its keys.
    hasher: foldhash::quality::RandomState,
    max_per_shard: usize,
}

#[derive(Debug, Default)]
struct Shard {
    by_hash: HashMap<u64, usize, foldhash::quality::RandomState>,
    slots: Vec<Slot>,
    /// The slot at which the search for the next eviction begins.
    hand: usize,
}

#[derive(Debug)]
struct Slot {
    hash: u64,
    text: Box<str>,
    verified: Arc<Verified>,
    /// Whether it was used since the hand last passed.
    used: AtomicBool,
}

impl VerifiedCache {
    /// Room for about `max_tokens`; 0 caches none.
    pub(super) fn new(max_tokens: usize) -> Self {
        Self {
            shards: (0..SHARD_COUNT).map(|_| RwLock::default()).collect(),
            hasher: foldhash::quality::RandomState::default(),
            max_per_shard: max_tokens.div_ceil(SHARD_COUNT),
        }
    }

    #[inline]
    fn hash(&self, text: &str) -> u64 {
        let bytes = text.as_bytes();
        let tail = bytes.get(bytes.len().saturating_sub(HASHED_TAIL_BYTES)..).unwrap_or(bytes);
        self.hasher.hash_one(tail)
    }

    #[inline]
    fn shard(&self, hash: u64) -> Option<&RwLock<Shard>> {
        // The map uses the low bits, the shard the high ones.
        self.shards.get((hash >> 56) as usize % SHARD_COUNT)
    }

    #[inline]
    pub(super) fn get(&self, text: &str) -> Option<Arc<Verified>> {
        let hash = self.hash(text);
        let shard = self.shard(hash)?.read().unwrap_or_else(PoisonError::into_inner);
        let slot = shard.by_hash.get(&hash).and_then(|slot| shard.slots.get(*slot))?;
        if *slot.text != *text {
            return None;
        }
        if !slot.used.load(Ordering::Relaxed) {
            slot.used.store(true, Ordering::Relaxed);
        }
        Some(slot.verified.clone())
    }

    pub(super) fn put(&self, text: &str, verified: Arc<Verified>) {
        if self.max_per_shard == 0 {
            return;
        }
        let hash = self.hash(text);
        let Some(shard) = self.shard(hash) else { return };
        let slot = Slot { hash, text: text.into(), verified, used: AtomicBool::new(false) };
        shard.write().unwrap_or_else(PoisonError::into_inner).put(slot, self.max_per_shard);
    }

    /// How many tokens are held.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|s| s.read().unwrap_or_else(PoisonError::into_inner).slots.len()).sum()
    }
}

impl Shard {
    fn put(&mut self, slot: Slot, max_slots: usize) {
        let at = match self.by_hash.get(&slot.hash) {
            Some(present) => *present,
            None if self.slots.len() < max_slots => self.slots.len(),
            None => self.victim(),
        };
        match self.slots.get_mut(at) {
            Some(old) => {
                self.by_hash.remove(&old.hash);
                self.by_hash.insert(slot.hash, at);
                *old = slot;
            }
            None => {
                self.by_hash.insert(slot.hash, self.slots.len());
                self.slots.push(slot);
            }
        }
    }

    /// The next slot that was not used since the hand last passed: at most two rounds.
    fn victim(&mut self) -> usize {
        for _ in 0..self.slots.len() * 2 {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.slots.len().max(1);
            if self.slots.get_mut(at).is_some_and(|slot| !std::mem::take(slot.used.get_mut())) {
                return at;
            }
        }
        self.hand
    }
}

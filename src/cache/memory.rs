//! The memory tier: a table for look-ups, and an eviction policy beside it.
//!
//! The policy is moka's (TinyLFU): it weighs entries, counts how often each is used, and evicts when room runs out. Hits
//! are read from a table of our own. A look-up there touches three places in memory where moka's touches a dozen with its
//! statistics, and among many objects, which the processor's caches do not hold, these misses are most of a hit's cost.
//!
//! An insertion goes to the table first and then to moka; a removal goes to moka first. So moka holds whatever the table
//! holds, or is about to evict it, and no entry stays unweighed. Where several tasks write one key at once the table may
//! lose it sooner: then it is fetched again.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::key::Key;
use crate::stored_response::StoredResponse;
use crate::table::{CacheSlot, Hasher, Table};

/// While no more than half of the memory is taken, moka is told of one hit in so many: nothing is evicted yet, and
/// statistics that lag a little are good enough when eviction begins.
const HITS_PER_POLICY_UPDATE: u8 = 16;

thread_local! {
    static HITS: Cell<u8> = const { Cell::new(0) };
}

/// Whether this hit is one that the policy is told of.
#[inline]
fn is_policy_update() -> bool {
    HITS.with(|hits| {
        let next = hits.get().wrapping_add(1);
        hits.set(next);
        next % HITS_PER_POLICY_UPDATE == 0
    })
}

/// Stored responses by key, bounded by their weight.
#[derive(Debug)]
pub(super) struct Memory {
    table: Arc<Table>,
    /// Keys with their weights, in bytes.
    policy: moka::sync::Cache<Key, u32, Hasher>,
    capacity_bytes: u64,
    /// Whether more than half of the memory is taken.
    half_full: AtomicBool,
}

impl Memory {
    /// Memory for about `capacity_bytes`.
    pub(super) fn new(capacity_bytes: u64) -> Self {
        let hasher = Hasher::default();
        let table = Arc::new(Table::new(hasher.clone()));
        let evicted = Arc::clone(&table);
        let policy = moka::sync::Cache::builder()
            .max_capacity(capacity_bytes)
            .weigher(|_: &Key, weight: &u32| *weight)
            .eviction_listener(move |key: Arc<Key>, _, cause| {
                if cause.was_evicted() {
                    drop(evicted.take(key.bytes()));
                }
            })
            .build_with_hasher(hasher);
        Self { table, policy, capacity_bytes, half_full: AtomicBool::new(false) }
    }

    /// What is stored under `key`. The policy counts a use; a miss counts too, in favour of its later insertion.
    pub(super) fn get(&self, key: &[u8]) -> Option<Arc<StoredResponse>> {
        self.get_in(self.slot(key), key)
    }

    #[inline]
    pub(super) fn slot(&self, key: &[u8]) -> CacheSlot<'_> {
        self.table.slot(key)
    }

    #[inline]
    pub(super) fn get_in(&self, slot: CacheSlot<'_>, key: &[u8]) -> Option<Arc<StoredResponse>> {
        let found = slot.find(key);
        if found.is_none() || self.half_full.load(Ordering::Relaxed) || is_policy_update() {
            let _ = self.policy.get(key);
        }
        found
    }

    /// What is stored under `key`; the policy does not count it.
    pub(super) fn peek(&self, key: &[u8]) -> Option<Arc<StoredResponse>> {
        self.table.find(key)
    }

    pub(super) fn insert(&self, key: &str, stored: Arc<StoredResponse>) {
        let weight = stored.weight(key);
        let named = stored.key.get_or_init(|| key.into());
        // Under another key it is another entry.
        let stored = if named.as_str() == key { stored } else { Arc::new(stored.under(key)) };
        drop(self.table.put(stored));
        self.policy.insert(key.into(), weight);
        if self.is_half_full() {
            self.half_full.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn remove(&self, key: &[u8]) -> Option<Arc<StoredResponse>> {
        self.policy.invalidate(key);
        self.table.take(key)
    }

    /// The keys of all entries for which `wanted` holds. Locks the table shard by shard.
    pub(super) fn keys(&self, mut wanted: impl FnMut(&str, &StoredResponse) -> bool) -> Vec<Key> {
        let mut keys = Vec::new();
        self.table.each(|stored| {
            if let Some(key) = stored.key.get().filter(|key| wanted(key.as_str(), stored)) {
                keys.push(key.clone());
            }
        });
        keys
    }

    /// Bytes and entries. Has moka process its pending updates first, which frees what was removed.
    pub(super) fn size(&self) -> (u64, u64) {
        self.policy.run_pending_tasks();
        self.half_full.store(self.is_half_full(), Ordering::Relaxed);
        (self.policy.weighted_size(), self.policy.entry_count())
    }

    fn is_half_full(&self) -> bool {
        self.policy.weighted_size() > self.capacity_bytes / 2
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};
    use proptest::prelude::*;

    use super::*;
    use lyceum_http::freshness::Freshness;

    fn stored(bytes: usize) -> Arc<StoredResponse> {
        let body = Bytes::from(vec![0; bytes]);
        Arc::new(StoredResponse::whole(StatusCode::OK, HeaderMap::new(), body, Freshness::lasting(60, 0)))
    }

    /// Whether the table's entries are those that moka weighs.
    fn agree(objects: &Memory) -> bool {
        let (_, entries) = objects.size();
        let held = objects.keys(|_, _| true);
        held.len() as u64 == entries && held.iter().all(|key| objects.policy.contains_key(key.bytes()))
    }

    #[test]
    fn what_moka_evicts_leaves_the_table() {
        let objects = Memory::new(1 << 20);
        for n in 0..1_000 {
            objects.insert(&format!("/{n}"), stored(16 << 10));
        }
        let (bytes, entries) = objects.size();
        assert!(bytes <= 1 << 20 && (30..=64).contains(&entries), "{entries} entries of {bytes} bytes");
        assert!(agree(&objects));
    }

    #[test]
    fn frequently_used_entries_stay_when_more_comes_than_fits() {
        let objects = Memory::new(4 << 20);
        let ask = |key: &str| {
            if objects.get(key.as_bytes()).is_none() {
                objects.insert(key, stored(16 << 10));
            }
        };
        for n in 0..5_000 {
            ask(&format!("/once-{n}"));
            ask(&format!("/often-{}", n % 20));
            if n % 100 == 0 {
                let _ = objects.size();
            }
        }
        let kept = (0..20).filter(|n| objects.peek(format!("/often-{n}").as_bytes()).is_some()).count();
        assert!(kept >= 19, "{kept} of 20");
        assert!(agree(&objects));
    }

    #[test]
    fn while_half_of_the_memory_is_free_one_hit_in_sixteen_updates_the_policy() {
        let objects = Memory::new(1 << 20);
        objects.insert("/k", stored(16));
        let updates = (0..160).filter(|_| is_policy_update()).count();
        assert_eq!(updates, 10);
        objects.insert("/large", stored(600 << 10));
        let _ = objects.size();
        assert!(objects.half_full.load(Ordering::Relaxed));
        objects.remove(b"/large");
        let _ = objects.size();
        assert!(!objects.half_full.load(Ordering::Relaxed));
    }

    #[test]
    fn many_writers_of_few_keys_leave_no_entry_unweighed() {
        let objects = Memory::new(256 << 10);
        std::thread::scope(|scope| {
            for writer in 0..4_usize {
                let objects = &objects;
                scope.spawn(move || {
                    for n in 0..3_000 {
                        let key = format!("/{}", (n * 7 + writer) % 24);
                        match (n + writer) % 5 {
                            0 => drop(objects.remove(key.as_bytes())),
                            1 => drop(objects.get(key.as_bytes())),
                            _ => objects.insert(&key, stored(8 << 10)),
                        }
                    }
                });
            }
        });
        let _ = objects.size();
        let unweighed = objects.keys(|key, _| !objects.policy.contains_key(key.as_bytes()));
        assert!(unweighed.is_empty(), "{unweighed:?}");
    }

    proptest! {
        #[test]
        fn memory_is_a_map_as_long_as_everything_fits(
            steps in prop::collection::vec((0_u8..3, 0_usize..40), 1..200),
        ) {
            let (objects, mut model) = (Memory::new(1 << 30), std::collections::HashMap::new());
            for (what, n) in steps {
                // Some keys are too long to lie inline.
                let key = format!("/{}", "k".repeat(n * 3));
                match what {
                    0 => {
                        let stored = stored(n);
                        objects.insert(&key, Arc::clone(&stored));
                        model.insert(key, stored);
                    }
                    1 => prop_assert_eq!(objects.remove(key.as_bytes()).is_some(), model.remove(&key).is_some()),
                    _ => match (objects.get(key.as_bytes()), model.get(&key)) {
                        (Some(found), Some(known)) => prop_assert!(Arc::ptr_eq(&found, known)),
                        (found, known) => prop_assert_eq!(found.is_some(), known.is_some()),
                    },
                }
            }
            prop_assert_eq!(objects.keys(|_, _| true).len(), model.len());
        }
    }
}

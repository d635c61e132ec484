//! Stored responses in two tiers, memory and disk, and the purges that both obey.
//!
//! A response that request fields select (`Vary`) lies under a key of its own, the variant key. Under the key that is
//! asked for lies a marker with the names of those fields, from which the variant key of a request is made.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use prometheus::Registry;

use crate::config::Config;
use crate::disk::tier::{Disk, DiskError};
use crate::entry_id::random_id;
use crate::key::Key;
use crate::memory::Memory;
use crate::purge::{Purge, PurgeLog, PurgeTarget};
use crate::slice_layout::SliceLayout;
use crate::stored_response::{EntryKind, StoredResponse};
use crate::table::CacheSlot;
use crate::vary::Vary;
use lyceum_core::time::Clock;
use lyceum_http::freshness::Freshness;

/// Both tiers.
#[derive(Debug)]
pub(super) struct Store {
    memory: Memory,
    disk: Option<Disk>,
    purges: Arc<PurgeLog>,
}

impl Store {
    /// Memory, and the disk that `config` names with what an earlier run left on it.
    pub(super) fn open(config: &Config, clock: Clock, registry: &Registry) -> Result<Self, DiskError> {
        let purges = Arc::<PurgeLog>::default();
        let disk =
            config.disk.as_ref().map(|disk| Disk::open(disk, Arc::clone(&purges), clock, registry)).transpose()?;
        Ok(Self { memory: Memory::new(config.memory.0), disk, purges })
    }

    /// Memory alone, empty.
    pub(super) fn in_memory(config: &Config) -> Self {
        Self { memory: Memory::new(config.memory.0), disk: None, purges: Arc::default() }
    }

    /// The slot of memory in which `key` is looked for; its memory is being prefetched.
    #[inline]
    pub(super) fn slot(&self, key: &str) -> CacheSlot<'_> {
        self.memory.slot(key.as_bytes())
    }

    /// What memory holds in `slot` under `key` for a request with these fields, fresh or not. Counts as a use.
    #[inline]
    pub(super) fn get_in(&self, slot: CacheSlot<'_>, key: &str, request: &HeaderMap) -> Option<Arc<StoredResponse>> {
        let found = self.memory.get_in(slot, key.as_bytes())?;
        match found.variant_key(key, request) {
            None => Some(found),
            Some(variant) => self.memory.get(variant.as_bytes()),
        }
    }

    /// What memory holds under exactly this key, be it a marker. Counts as a use.
    pub(super) fn get(&self, key: &str) -> Option<Arc<StoredResponse>> {
        self.memory.get(key.as_bytes())
    }

    /// What memory holds under exactly this key, be it a marker. Does not count as a use.
    pub(super) fn peek(&self, key: &str) -> Option<Arc<StoredResponse>> {
        self.memory.peek(key.as_bytes())
    }

    /// The variant key of a request, where memory holds a marker under `key`.
    pub(super) fn variant_key(&self, key: &str, request: &HeaderMap) -> Option<String> {
        self.peek(key).and_then(|found| found.variant_key(key, request))
    }

    /// What the disk holds for a request with these fields, put into memory.
    pub(super) async fn load_from_disk(&self, key: &str, request: &HeaderMap) -> Option<Arc<StoredResponse>> {
        let since = self.purges.epoch();
        let read = async |key: &str| {
            let found = self.read_disk(key, since).await?;
            self.insert_in_memory(key, Arc::clone(&found), since);
            Some(found)
        };
        let primary = match self.peek(key) {
            Some(found) => found,
            None => read(key).await?,
        };
        match primary.variant_key(key, request) {
            None => Some(primary),
            Some(variant) => read(&variant).await,
        }
    }

    /// What the disk holds under exactly this key, unless it was purged since the purge number `since`.
    pub(super) async fn read_disk(&self, key: &str, since: u64) -> Option<Arc<StoredResponse>> {
        let found = self.disk.as_ref()?.read(key).await?;
        Some(found).filter(|found| !self.was_purged(since, key, found))
    }

    /// Whether the disk may hold something under exactly this key.
    pub(super) fn may_be_on_disk(&self, key: &str) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.may_hold(key))
    }

    /// Bytes and entries on disk, where there is one.
    pub(super) fn disk_size(&self) -> Option<(u64, usize)> {
        self.disk.as_ref().map(Disk::size)
    }

    /// Bytes and entries in memory; see [`Memory::size`].
    pub(super) fn memory_size(&self) -> (u64, u64) {
        self.memory.size()
    }

    /// The number of the next purge: what is fetched or read from now on is checked against those from it on.
    pub(super) fn purge_epoch(&self) -> u64 {
        self.purges.epoch()
    }

    fn was_purged(&self, since: u64, key: &str, stored: &StoredResponse) -> bool {
        self.purges.touched(since, key, &stored.tags)
    }

    /// Puts a response into memory alone, as it was known at the purge number `since`.
    pub(super) fn insert_in_memory(&self, key: &str, stored: Arc<StoredResponse>, since: u64) {
        self.memory.insert(key, Arc::clone(&stored));
        // A purge is noted first and then looks at what is stored: either it sees this entry, or it is seen here.
        if self.was_purged(since, key, &stored) {
            self.memory.remove(key.as_bytes());
        }
    }

    /// Puts a response into both tiers.
    fn insert(&self, key: &str, stored: &Arc<StoredResponse>, since: u64) {
        self.insert_in_memory(key, Arc::clone(stored), since);
        if let Some(disk) = &self.disk {
            disk.offer(key, stored, since);
        }
    }

    /// Stores a fetched response under `primary` or its variant key, unless it was purged while it was being fetched.
    pub(super) fn store(&self, primary: &str, stored: &Arc<StoredResponse>, since: u64) {
        if primary.is_empty() || self.was_purged(since, primary, stored) {
            return;
        }
        if stored.vary.is_empty() {
            self.insert(primary, stored, since);
        } else if let Some(marker) = self.vary_marker(primary, &stored.vary) {
            // Without a marker it was purged, or the origin now selects by other fields.
            self.insert(&stored.vary.key(primary, marker), stored, since);
        }
    }

    /// Stores the marker for responses that request fields select. One with the same names stays, and with it the
    /// variants found through it; a new one after a purge leads to none of the old ones.
    pub(super) fn store_vary_marker(
        &self,
        primary: &str,
        status: StatusCode,
        vary: &Vary,
        freshness: &Freshness,
        since: u64,
    ) {
        if vary.is_empty() || self.vary_marker(primary, vary).is_some() {
            return;
        }
        let empty = StoredResponse::whole(status, HeaderMap::new(), Bytes::new(), freshness.clone());
        let marker = StoredResponse { vary: vary.clone(), kind: EntryKind::VaryMarker(random_id()), ..empty };
        self.insert(primary, &Arc::new(marker), since);
    }

    fn vary_marker(&self, primary: &str, vary: &Vary) -> Option<u64> {
        let found = self.peek(primary)?;
        found.vary_marker().filter(|_| found.vary.same_names(vary))
    }

    /// Removes a response in slices that has changed at the origin, unless another has taken its place.
    pub(super) fn remove_outdated(&self, key: &str, request: &HeaderMap, slices: &SliceLayout) {
        let variant = self.variant_key(key, request);
        let key = variant.as_deref().unwrap_or(key);
        if self.peek(key).is_some_and(|stored| stored.sliced() == Some(slices)) {
            self.memory.remove(key.as_bytes());
            if let Some(disk) = &self.disk {
                disk.forget(key);
            }
        }
    }

    /// Notes a purge: what is being fetched or read meanwhile is not stored.
    pub(super) fn note_purge(&self, purge: &Purge) {
        self.purges.note(purge);
    }

    /// Removes what a purge names, or makes it stale from `now_ms` of the steady clock on; how many entries. The purge was
    /// noted before.
    pub(super) fn purge(&self, purge: &Purge, now_ms: i64) -> usize {
        let on_disk = self.disk.as_ref().map_or(0, |disk| disk.purge(purge));
        if let (PurgeTarget::Key(key), false) = (&purge.target, purge.soft) {
            // Without its entry nothing that lies under this key is found.
            return usize::from(self.memory.remove(key.as_bytes()).is_some()).max(on_disk);
        }
        let matching = |key: &str, stored: &StoredResponse| purge.target.holds(key, &stored.tags);
        let keys: Vec<Key> = self.memory.keys(matching);
        // Most of what is in memory is on disk too: the larger number is near the truth.
        keys.iter().filter(|key| self.purge_one(key.as_str(), purge.soft.then_some(now_ms))).count().max(on_disk)
    }

    fn purge_one(&self, key: &str, stale_from_ms: Option<i64>) -> bool {
        let Some(at_ms) = stale_from_ms else { return self.memory.remove(key.as_bytes()).is_some() };
        let Some(stored) = self.peek(key) else { return false };
        if stored.vary_marker().is_some() {
            // The variants found through it are made stale themselves.
            return true;
        }
        self.memory.insert(key, Arc::new(stored.ended_at(at_ms)));
        true
    }
}

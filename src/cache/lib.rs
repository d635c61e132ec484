//! Complete responses in memory and on disk, and the fills that bring them.
//!
//! Owns what is stored, who is fetching what, and how a body under way is shared by its readers. It keeps each
//! entry's freshness and leaves the judging to its caller; it must not know of origins, tokens or sockets.
//!
//! [`Cache::lookup`] answers [`Lookup::Hit`], [`Lookup::Join`] or [`Lookup::Fill`]: one fetch for each key however many
//! ask. No lock is held over an await, and nothing polls: a reader that waits is woken by its writer.
#![deny(unsafe_code)]

mod cpu_prefetch;
mod disk;
mod fill;
mod header_block;
mod inline_bytes;
mod key;
mod memory;
mod prefetch_budget;
mod purge;
mod stored_response;
mod table;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::HeaderMap;
use prometheus::Registry;
use serde::Deserialize;

use lyceum_core::time::Clock;
use lyceum_core::units::{self, ByteSize};
use lyceum_http::freshness::Freshness;

pub use disk::{Config as DiskConfig, DiskError};
pub use fill::{Begun, Came, FillPlan, NoReaders, ReadError, Reader, ResponseHead, Writer};
pub use header_block::HeaderBlock;
pub use prefetch_budget::{PrefetchTally, PrefetchTicket};
pub use purge::{Purge, PurgeTarget};
pub use stored_response::{SliceLayout, Stored, Vary};

use disk::Disk;
use fill::Fill;
use key::Key;
use memory::Memory;
use purge::PurgeLog;
use stored_response::EntryKind;

/// `[cache]` of an edge.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Memory for stored responses, their bodies and fields. 1MiB to 16TiB.
    #[serde(deserialize_with = "units::size::<_, 1_048_576, 17_592_186_044_416>")]
    pub memory: ByteSize,
    /// The largest response that is one entry; a larger one is held in slices, or passes through where it can't be.
    /// 64KiB to 1GiB.
    #[serde(deserialize_with = "units::size::<_, 65_536, 1_073_741_824>")]
    pub object: ByteSize,
    /// The slices of larger responses: what a range request costs at least. 16KiB to 1GiB, at most `object`.
    #[serde(deserialize_with = "units::size::<_, 16_384, 1_073_741_824>")]
    pub slice: ByteSize,
    /// How much of a response that is not stored may wait for its reader. 64KiB to 64MiB.
    #[serde(deserialize_with = "units::size::<_, 65_536, 67_108_864>")]
    pub window: ByteSize,
    /// A second tier of files, which survives a restart.
    pub disk: Option<disk::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(512),
            object: ByteSize::mib(8),
            slice: ByteSize::mib(2),
            window: ByteSize::mib(1),
            disk: None,
        }
    }
}

/// Why a fill failed, as its caller sees it: handed to every reader.
pub trait FillError: Clone + std::fmt::Debug + Send + Sync + 'static {}

impl<E: Clone + std::fmt::Debug + Send + Sync + 'static> FillError for E {}

/// What a look-up comes to.
#[derive(Debug)]
pub enum Lookup<E: FillError> {
    /// It is there and usable.
    Hit(Arc<Stored>),
    /// Someone fetches it already.
    Join(Reader<E>),
    /// The caller fetches it, for itself and all who join.
    Fill {
        /// To be moved into a task of its own, so that no client's leaving ends it.
        writer: Writer<E>,
        /// The caller's own reader.
        reader: Reader<E>,
        /// What is there and not usable as it is: to validate, or for when the origin fails.
        stale: Option<Arc<Stored>>,
        /// Whether there is something for requests with other fields.
        variant: bool,
    },
}

const SHARDS: usize = 64;

type Fills<E> = Mutex<HashMap<Box<str>, Arc<Fill<E>>>>;

/// Where a key is looked for in memory: [`Cache::near`]. What is stored beside it waits while this is held.
#[derive(Debug)]
pub struct CacheSlot<'a>(Option<table::CacheSlot<'a>>);

impl CacheSlot<'_> {
    /// Asks memory for the response that is stored there.
    pub fn prefetch(&self) {
        if let Some(near) = &self.0 {
            near.prefetch();
        }
    }
}

/// Memory, and the fills under way. Shared by reference count.
///
/// `E` is why a fill failed, as its caller sees it.
#[derive(Debug)]
pub struct Cache<E: FillError> {
    memory: Memory,
    fills: [Fills<E>; SHARDS],
    hasher: RandomState,
    purges: Arc<PurgeLog>,
    disk: Option<Disk>,
    window: usize,
    object: u64,
    slice: u64,
}

/// A number that no other entry has, over restarts too.
fn number() -> u64 {
    RandomState::new().hash_one(0_u8)
}

impl<E: FillError> Cache<E> {
    /// A cache, empty but for what an earlier run left on disk.
    pub fn open(config: &Config, clock: Clock, registry: &Registry) -> Result<Arc<Self>, DiskError> {
        let purges = Arc::<PurgeLog>::default();
        let disk =
            config.disk.as_ref().map(|disk| Disk::open(disk, Arc::clone(&purges), clock, registry)).transpose()?;
        Ok(Self::with(config, purges, disk))
    }

    /// An empty cache in memory.
    pub fn new(config: &Config) -> Arc<Self> {
        Self::with(config, Arc::default(), None)
    }

    fn with(config: &Config, purges: Arc<PurgeLog>, disk: Option<Disk>) -> Arc<Self> {
        Arc::new(Self {
            memory: Memory::new(config.memory.0),
            fills: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            purges,
            disk,
            window: config.window.as_usize(),
            object: config.object.0,
            slice: config.slice.0.min(config.object.0),
        })
    }

    /// The length of slices, in bytes.
    pub fn slice_size(&self) -> u64 {
        self.slice
    }

    /// The largest body that is one entry, in bytes.
    pub fn largest_object(&self) -> u64 {
        self.object
    }

    /// What is stored under `key` for a request with these fields, fresh or not.
    pub fn get(&self, key: &str, request: &HeaderMap) -> Option<Arc<Stored>> {
        self.get_in(self.slot(key), key, request)
    }

    /// Goes where `key` is looked for. That memory, and with [`CacheSlot::nearer`] what it leads to, is on its way while the
    /// caller does something else.
    pub fn slot(&self, key: &str) -> CacheSlot<'_> {
        CacheSlot(self.memory.slot(key.as_bytes()))
    }

    /// [`get`](Self::get) from there. `near` is of the same key.
    pub fn get_in(&self, near: CacheSlot<'_>, key: &str, request: &HeaderMap) -> Option<Arc<Stored>> {
        let found = self.memory.get_in(near.0, key.as_bytes())?;
        match found.signpost() {
            None => Some(found),
            Some(signpost) => self.memory.get(found.vary.for_request(request).key(key, signpost).as_bytes()),
        }
    }

    /// Looks `key` up for a request with these fields; `usable` judges what is stored.
    pub fn lookup(self: &Arc<Self>, key: &str, request: &HeaderMap, usable: impl Fn(&Stored) -> bool) -> Lookup<E> {
        let primary = self.memory.get(key.as_bytes());
        let variant = primary.as_ref().and_then(|found| self.variant_key(key, found, request));
        let (shared, stored) = match &variant {
            None => (key, primary),
            Some(variant) => (variant.as_str(), self.memory.get(variant.as_bytes())),
        };
        if let Some(stored) = stored
            && usable(&stored)
        {
            return Lookup::Hit(stored);
        }
        let mut fills = self.shard(shared);
        if let Some(reader) = fills.get(shared).and_then(|fill| Reader::join(fill)) {
            return Lookup::Join(reader);
        }
        // A fill that ended between the two looks stored before it left the table.
        let stale = self.memory.peek(shared.as_bytes()).filter(|stored| stored.signpost().is_none());
        if let Some(stored) = &stale
            && usable(stored)
        {
            return Lookup::Hit(Arc::clone(stored));
        }
        let fill = Fill::new(self.window);
        fills.insert(shared.into(), Arc::clone(&fill));
        drop(fills);
        let reader = Reader::lead(&fill);
        Lookup::Fill { writer: self.writer(key, shared, fill), reader, stale, variant: variant.is_some() }
    }

    fn variant_key(&self, key: &str, found: &Stored, request: &HeaderMap) -> Option<String> {
        found.signpost().map(|signpost| found.vary.for_request(request).key(key, signpost))
    }

    /// A fill of its own, shared with no one and under no key: for what can't be shared.
    pub fn private_fill(self: &Arc<Self>) -> (Writer<E>, Reader<E>) {
        let fill = Fill::new(self.window);
        let reader = Reader::lead(&fill);
        (self.writer("", "", fill), reader)
    }

    /// The right to bring `key` up to date in the background; none while someone does.
    pub fn claim(self: &Arc<Self>, key: &str, request: &HeaderMap) -> Option<Writer<E>> {
        let variant = self.memory.peek(key.as_bytes()).and_then(|found| self.variant_key(key, &found, request));
        let shared = variant.as_deref().unwrap_or(key);
        let mut fills = self.shard(shared);
        if fills.contains_key(shared) {
            return None;
        }
        let fill = Fill::new(self.window);
        fills.insert(shared.into(), Arc::clone(&fill));
        drop(fills);
        Some(self.writer(key, shared, fill))
    }

    /// Takes away a response in slices that has changed at the origin, unless another has taken its place.
    pub fn remove_outdated(&self, key: &str, request: &HeaderMap, sliced: &SliceLayout) {
        let Some(found) = self.memory.peek(key.as_bytes()) else { return };
        let variant = self.variant_key(key, &found, request);
        let key = variant.as_deref().unwrap_or(key);
        if self.memory.peek(key.as_bytes()).is_some_and(|stored| stored.sliced() == Some(sliced)) {
            self.memory.remove(key.as_bytes());
            if let Some(disk) = &self.disk {
                disk.forget(key);
            }
        }
    }

    /// What lies on disk for a request with these fields, put into memory.
    pub async fn load_from_disk(&self, key: &str, request: &HeaderMap) -> Option<Arc<Stored>> {
        let since = self.purges.epoch();
        let read = async |key: &str| {
            let found = self.read_disk(key).await.filter(|found| !self.was_purged(since, key, found))?;
            self.remember(key, Arc::clone(&found), since);
            Some(found)
        };
        let primary = match self.memory.peek(key.as_bytes()) {
            Some(found) => found,
            None => read(key).await?,
        };
        match self.variant_key(key, &primary, request) {
            None => Some(primary),
            Some(variant) => read(&variant).await,
        }
    }

    async fn read_disk(&self, key: &str) -> Option<Arc<Stored>> {
        match &self.disk {
            Some(disk) => disk.read(key).await,
            None => None,
        }
    }

    fn was_purged(&self, since: u64, key: &str, stored: &Stored) -> bool {
        self.purges.touched(since, key, &stored.tags)
    }

    /// Puts into memory what lies on disk already, as it was known `since`.
    fn remember(&self, key: &str, stored: Arc<Stored>, since: u64) {
        self.memory.insert(key, Arc::clone(&stored));
        // Whoever purges notes it first and then looks at what is stored: one of the two sees the other.
        if self.was_purged(since, key, &stored) {
            self.memory.remove(key.as_bytes());
        }
    }

    /// Puts into both tiers.
    fn insert(&self, key: &str, stored: &Arc<Stored>, since: u64) {
        self.remember(key, Arc::clone(stored), since);
        if let Some(disk) = &self.disk {
            disk.offer(key, stored, since);
        }
    }

    /// Whether there may be something on disk under this key.
    pub fn may_be_on_disk(&self, key: &str) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.may_hold(key))
    }

    /// Bytes and entries on disk, where there is one.
    pub fn disk_size(&self) -> Option<(u64, usize)> {
        self.disk.as_ref().map(Disk::size)
    }

    /// Takes stored responses away, or makes them stale from `now_ms` on, in both tiers. What is being filled meanwhile goes to those who
    /// have asked already, and to no one else: it is not stored, and who asks from now on does not join it. Looks through
    /// all entries, but for a hard purge of a [`PurgeTarget::Key`], and at the disk.
    pub fn purge(&self, purge: &Purge, now_ms: i64) -> usize {
        self.purges.note(purge);
        for shard in &self.fills {
            let mut fills = shard.lock().unwrap_or_else(PoisonError::into_inner);
            fills.retain(|key, fill| !fill.may_hold(key, &purge.target));
        }
        let on_disk = self.disk.as_ref().map_or(0, |disk| disk.purge(purge, now_ms));
        if let (PurgeTarget::Key(key), false) = (&purge.target, purge.soft) {
            // Without it nothing of what lies under it is found.
            return usize::from(self.memory.remove(key.as_bytes()).is_some()).max(on_disk);
        }
        let held = |key: &str, stored: &Stored| purge.target.holds(key, &stored.tags);
        let hit: Vec<Key> = self.memory.keys(held);
        // Most of what is in memory is on disk too: the larger number is near the truth.
        hit.iter().filter(|key| self.purge_one(key.as_str(), purge.soft.then_some(now_ms))).count().max(on_disk)
    }

    fn purge_one(&self, key: &str, stale_from_ms: Option<i64>) -> bool {
        let Some(at_ms) = stale_from_ms else { return self.memory.remove(key.as_bytes()).is_some() };
        let Some(stored) = self.memory.peek(key.as_bytes()) else { return false };
        if stored.signpost().is_some() {
            // It only leads to what is made stale itself.
            return true;
        }
        self.memory.insert(key, Arc::new(stored.ended_at(at_ms)));
        true
    }

    /// Bytes and entries that are stored. Brings the table's own books up to date first, by which what was taken away
    /// is given back.
    pub fn memory_size(&self) -> (u64, u64) {
        self.memory.size()
    }

    /// How many fills are under way.
    pub fn fills_in_progress(&self) -> usize {
        self.fills.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn writer(self: &Arc<Self>, primary: &str, key: &str, fill: Arc<Fill<E>>) -> Writer<E> {
        Writer::new(Arc::clone(self), primary, key, fill, self.purges.epoch())
    }

    /// Puts up the signpost for responses that are chosen by request fields. One that names the same stays, so that the
    /// variants it leads to stay too; after a purge a new one leads to none of the old.
    fn post(&self, primary: &str, head: &ResponseHead, freshness: &Freshness, since: u64) {
        if head.vary.is_empty() || self.signpost(primary, &head.vary).is_some() {
            return;
        }
        let empty = Stored::whole(head.status, HeaderMap::new(), Bytes::new(), freshness.clone());
        let stored = Stored { vary: head.vary.clone(), kind: EntryKind::Signpost(number()), ..empty };
        self.insert(primary, &Arc::new(stored), since);
    }

    fn signpost(&self, primary: &str, vary: &Vary) -> Option<u64> {
        let found = self.memory.peek(primary.as_bytes())?;
        found.signpost().filter(|_| found.vary.same_names(vary))
    }

    /// Stores what a writer brought, unless it was purged while it came.
    fn store(&self, primary: &str, stored: &Arc<Stored>, since: u64) {
        if primary.is_empty() || self.purges.touched(since, primary, &stored.tags) {
            return;
        }
        if stored.vary.is_empty() {
            self.insert(primary, stored, since);
        } else if let Some(signpost) = self.signpost(primary, &stored.vary) {
            // Without a signpost it was purged, or the origin now chooses by other fields.
            self.insert(&stored.vary.key(primary, signpost), stored, since);
        }
    }

    /// Ends the sharing of a fill.
    fn leave(&self, key: &str, fill: &Arc<Fill<E>>) {
        if key.is_empty() {
            return;
        }
        let mut fills = self.shard(key);
        if fills.get(key).is_some_and(|present| Arc::ptr_eq(present, fill)) {
            fills.remove(key);
        }
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, HashMap<Box<str>, Arc<Fill<E>>>> {
        let [first, others @ ..] = &self.fills;
        let at = (self.hasher.hash_one(key) >> 56) as usize % SHARDS;
        let shard = at.checked_sub(1).and_then(|at| others.get(at)).unwrap_or(first);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

//! [`Cache`]: look-ups that end in a stored response, in a fill in progress, or in a fill to be made.

use std::sync::Arc;

use http::HeaderMap;
use prometheus::Registry;

use crate::config::Config;
use crate::disk::tier::DiskError;
use crate::fill::{FillError, Reader};
use crate::fill_table::FillTable;
use crate::purge::Purge;
use crate::slice_layout::SliceLayout;
use crate::store::Store;
use crate::stored_response::StoredResponse;
use crate::table::CacheSlot;
use crate::unstored::Unstored;
use crate::writer::Writer;
use lyceum_core::time::Clock;

/// The result of a look-up.
#[derive(Debug)]
pub enum Lookup<E: FillError> {
    /// It is stored and usable.
    Hit(Arc<StoredResponse>),
    /// It is being fetched already.
    Join(Reader<E>),
    /// It is being fetched already, and was not stored lately: the caller fetches its own rather than wait for what is
    /// most likely not shared. That other fetch finds out whether it may be stored now.
    Pass,
    /// The caller fetches it, for itself and all who join.
    Fill {
        /// To be moved into a task of its own, so that no client's leaving ends it.
        writer: Writer<E>,
        /// The caller's own reader.
        reader: Reader<E>,
        /// What is stored and not usable as it is: to be revalidated, or served when the origin fails.
        stale: Option<Arc<StoredResponse>>,
        /// Whether a response is stored for requests with other fields.
        variant: bool,
    },
}

/// Stored responses and the fills in progress.
///
/// `E` says why a fill failed, as its caller sees it.
#[derive(Debug)]
pub struct Cache<E: FillError> {
    store: Arc<Store>,
    fills: Arc<FillTable<E>>,
    slice_bytes: u64,
}

impl<E: FillError> Cache<E> {
    /// A cache, empty but for what an earlier run left on disk.
    pub fn open(config: &Config, clock: Clock, registry: &Registry) -> Result<Arc<Self>, DiskError> {
        Ok(Self::with(config, Store::open(config, clock, registry)?))
    }

    /// An empty cache in memory.
    pub fn new(config: &Config) -> Arc<Self> {
        Self::with(config, Store::in_memory(config))
    }

    fn with(config: &Config, store: Store) -> Arc<Self> {
        let max_keys = usize::try_from(config.not_stored_keys).unwrap_or(usize::MAX);
        let unstored = Unstored::new(config.not_stored_for.get(), max_keys);
        Arc::new(Self {
            store: Arc::new(store),
            fills: Arc::new(FillTable::new(config.window.as_usize(), config.object.0, unstored)),
            slice_bytes: config.slice.0.min(config.object.0),
        })
    }

    /// The length of slices, in bytes.
    pub fn slice_size(&self) -> u64 {
        self.slice_bytes
    }

    /// The largest body that is stored as one entry, in bytes.
    pub fn largest_object(&self) -> u64 {
        self.fills.max_object_bytes
    }

    /// What is stored under `key` for a request with these fields, fresh or not.
    pub fn get(&self, key: &str, request: &HeaderMap) -> Option<Arc<StoredResponse>> {
        self.get_in(self.slot(key), key, request)
    }

    /// The slot in which `key` is looked for. The processor fetches its memory, and after [`CacheSlot::prefetch`] that of
    /// the response in it, while the caller does something else.
    #[inline]
    pub fn slot(&self, key: &str) -> CacheSlot<'_> {
        self.store.slot(key)
    }

    /// [`get`](Self::get) from the slot of the same key.
    #[inline]
    pub fn get_in(&self, slot: CacheSlot<'_>, key: &str, request: &HeaderMap) -> Option<Arc<StoredResponse>> {
        self.store.get_in(slot, key, request)
    }

    /// Looks `key` up for a request with these fields; `usable` judges a stored response.
    pub fn lookup(&self, key: &str, request: &HeaderMap, usable: impl Fn(&StoredResponse) -> bool) -> Lookup<E> {
        let primary = self.store.get(key);
        let variant = primary.as_ref().and_then(|found| found.variant_key(key, request));
        let (shared, stored) = match &variant {
            None => (key, primary),
            Some(variant) => (variant.as_str(), self.store.get(variant)),
        };
        if let Some(stored) = stored
            && usable(&stored)
        {
            return Lookup::Hit(stored);
        }
        let mut fills = self.fills.lock(shared);
        if let Some(fill) = fills.get(shared) {
            if self.fills.unstored.contains(shared) {
                return Lookup::Pass;
            }
            if let Some(reader) = Reader::join(fill) {
                return Lookup::Join(reader);
            }
        }
        // A fill that ended between the two looks stored its response before it left the table.
        let stale = self.store.peek(shared).filter(|stored| stored.vary_marker().is_none());
        if let Some(stored) = &stale
            && usable(stored)
        {
            return Lookup::Hit(Arc::clone(stored));
        }
        let fill = self.fills.start(&mut fills, shared);
        drop(fills);
        let reader = Reader::lead(&fill);
        let writer = Writer::new(&self.store, &self.fills, key, shared, fill);
        Lookup::Fill { writer, reader, stale, variant: variant.is_some() }
    }

    /// A fill that no other request joins and that is not stored: for a response that can't be shared.
    pub fn private_fill(&self) -> (Writer<E>, Reader<E>) {
        let fill = self.fills.unregistered();
        let reader = Reader::lead(&fill);
        (Writer::new(&self.store, &self.fills, "", "", fill), reader)
    }

    /// The right to fetch `key` in the background, with no reader of its own; none while it is being fetched.
    pub fn claim(&self, key: &str, request: &HeaderMap) -> Option<Writer<E>> {
        let variant = self.store.variant_key(key, request);
        let shared = variant.as_deref().unwrap_or(key);
        let mut fills = self.fills.lock(shared);
        if fills.contains_key(shared) {
            return None;
        }
        let fill = self.fills.start(&mut fills, shared);
        drop(fills);
        Some(Writer::new(&self.store, &self.fills, key, shared, fill))
    }

    /// Removes a response in slices that has changed at the origin, unless another has taken its place.
    pub fn remove_outdated(&self, key: &str, request: &HeaderMap, slices: &SliceLayout) {
        self.store.remove_outdated(key, request, slices);
    }

    /// What the disk holds for a request with these fields, put into memory.
    pub async fn load_from_disk(&self, key: &str, request: &HeaderMap) -> Option<Arc<StoredResponse>> {
        self.store.load_from_disk(key, request).await
    }

    /// Whether the disk may hold something under this key.
    pub fn may_be_on_disk(&self, key: &str) -> bool {
        self.store.may_be_on_disk(key)
    }

    /// Bytes and entries on disk, where there is one.
    pub fn disk_size(&self) -> Option<(u64, usize)> {
        self.store.disk_size()
    }

    /// Removes stored responses, or makes them stale from `now_ms` of the steady clock on, in both tiers; how many
    /// entries. What is being fetched meanwhile reaches its present readers alone: it is not stored, and later requests do
    /// not join it. Looks through all entries, but for a hard purge of a [`PurgeTarget::Key`](crate::PurgeTarget::Key), and at the disk.
    pub fn purge(&self, purge: &Purge, now_ms: i64) -> usize {
        self.store.note_purge(purge);
        self.fills.remove_matching(&purge.target);
        self.store.purge(purge, now_ms)
    }

    /// Bytes and entries in memory. Has the eviction policy catch up first, which frees what was removed.
    pub fn memory_size(&self) -> (u64, u64) {
        self.store.memory_size()
    }

    /// How many fills are in progress.
    pub fn fills_in_progress(&self) -> usize {
        self.fills.len()
    }
}

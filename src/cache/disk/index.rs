//! The index of files on disk, the least recently used first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::purge::PurgeTarget;

/// The file system's block: files take whole ones.
const BLOCK_BYTES: u64 = 4096;

/// The room that a file of `size` bytes takes, in bytes.
pub(super) fn block_bytes(size: u64) -> u64 {
    size.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

#[derive(Debug)]
struct Entry {
    size: u64,
    /// Its number in the order of use.
    used: u64,
    /// That number when it was written.
    written: u64,
    tags: Box<[Box<str>]>,
}

/// Keys with their sizes, tags, and the order of their use.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashMap<Arc<str>, Entry>,
    order: BTreeMap<u64, Arc<str>>,
    bytes: u64,
    uses: u64,
}

impl Index {
    pub(super) fn holds(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Bytes in whole blocks.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn insert(&mut self, key: &str, size: u64, tags: &[Box<str>]) {
        self.remove(key);
        let (key, size): (Arc<str>, u64) = (key.into(), block_bytes(size));
        self.uses += 1;
        self.order.insert(self.uses, Arc::clone(&key));
        self.bytes = self.bytes.saturating_add(size);
        self.entries.insert(key, Entry { size, used: self.uses, written: self.uses, tags: tags.into() });
    }

    /// Removes an entry; whether it was there.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        let Some(entry) = self.entries.remove(key) else { return false };
        self.order.remove(&entry.used);
        self.bytes = self.bytes.saturating_sub(entry.size);
        true
    }

    /// Makes an entry the most recently used; the number under which it was written, if it is there.
    pub(super) fn touch(&mut self, key: &str) -> Option<u64> {
        let entry = self.entries.get_mut(key)?;
        self.uses += 1;
        if let Some(key) = self.order.remove(&entry.used) {
            self.order.insert(self.uses, key);
        }
        entry.used = self.uses;
        Some(entry.written)
    }

    /// The number under which an entry was written: another after each write.
    pub(super) fn written(&self, key: &str) -> Option<u64> {
        self.entries.get(key).map(|entry| entry.written)
    }

    /// Removes the least recently used entry; its key and the room that its file takes, in bytes.
    pub(super) fn pop_oldest(&mut self) -> Option<(Arc<str>, u64)> {
        let (_, key) = self.order.first_key_value()?;
        let key = Arc::clone(key);
        let size = self.entries.get(&key).map_or(0, |entry| entry.size);
        self.remove(&key);
        Some((key, size))
    }

    pub(super) fn matching(&self, target: &PurgeTarget) -> Vec<Arc<str>> {
        if let PurgeTarget::Key(key) = target {
            return self.entries.get_key_value(&**key).map(|(key, _)| Arc::clone(key)).into_iter().collect();
        }
        self.entries
            .iter()
            .filter(|(key, entry)| target.holds(key, &entry.tags))
            .map(|(key, _)| Arc::clone(key))
            .collect()
    }
}

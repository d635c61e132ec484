//! The directory of the disk tier: its files, and an index of them in memory.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::file::{self, Unreadable};
use super::index::{self, Index};
use super::metrics::DiskMetrics;
use super::private_files::create_private_directory;
use crate::purge::PurgeLog;
use crate::stored_response::StoredResponse;
use lyceum_core::time::{Instant, monotonic};

/// The directory in which files are written before they are renamed.
pub(super) const TEMPORARY: &str = "new";

/// The directory, shared by the writing thread and the reading tasks.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) root: PathBuf,
    pub(super) max_bytes: u64,
    pub(super) index: Mutex<Index>,
    /// Whether the index has all that an earlier run entry.
    pub(super) scanned: AtomicBool,
    /// Bytes that wait to be written.
    pub(super) queued_bytes: AtomicU64,
    /// Until when a disk that failed is not used.
    pub(super) rests_until: Mutex<Option<Instant>>,
    pub(super) rest: Duration,
    pub(super) purges: Arc<PurgeLog>,
    pub(super) metrics: DiskMetrics,
    /// The open lock file; locked until it is closed.
    pub(super) _lock: fs::File,
}

/// A response to be written.
#[derive(Debug)]
pub(super) struct WriteJob {
    pub(super) key: Box<str>,
    pub(super) stored: Arc<StoredResponse>,
    /// The number of the next purge when its fetch began.
    pub(super) purge_epoch: u64,
}

impl Directory {
    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Updates the gauges.
    pub(super) fn update_gauges(&self) {
        let index = self.index();
        self.metrics.bytes.set(i64::try_from(index.bytes()).unwrap_or(i64::MAX));
        self.metrics.objects.set(i64::try_from(index.len()).unwrap_or(i64::MAX));
    }

    /// Where the file of `key` lies.
    pub(super) fn path(&self, key: &str) -> PathBuf {
        let name = file::name(key);
        self.root.join(name.get(..2).unwrap_or("00")).join(&name)
    }

    pub(super) fn is_resting(&self) -> bool {
        let until = *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| monotonic() < until)
    }

    /// Stops using the disk for a while after it failed.
    fn rest(&self, what: &str, cause: &io::Error) {
        let mut until = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = monotonic();
        if until.is_none_or(|until| until <= now) {
            tracing::warn!(path = %self.root.display(), what, %cause, rest_ms = self.rest.as_millis(), "the cache's disk failed and is not used for a while");
            *until = Some(now + self.rest);
        }
    }

    /// Notes a write that succeeded: the disk works again.
    fn recovered(&self) {
        let mut until = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.take().is_some() {
            tracing::info!(path = %self.root.display(), "the cache's disk works again");
        }
    }

    /// Removes what is there under `key`.
    pub(super) fn forget(&self, key: &str) {
        if self.index().remove(key) {
            self.unlink(key);
            self.update_gauges();
        }
    }

    fn unlink(&self, key: &str) {
        if let Err(cause) = fs::remove_file(self.path(key))
            && cause.kind() != ErrorKind::NotFound
        {
            self.rest("an entry can't be removed", &cause);
        }
    }

    /// Reads and verifies the file of `key`. One that can't be verified is removed.
    pub(super) fn read(&self, key: &str) -> Option<StoredResponse> {
        let indexed = self.index().touch(key);
        if !indexed && self.scanned.load(Ordering::Acquire) {
            return None;
        }
        match file::read(&self.path(key), key) {
            // Not in the index yet: its file may still lie there though it was purged since the start.
            Ok(stored) if !indexed && self.purges.touched(0, key, &stored.tags) => {
                self.unlink(key);
                None
            }
            Ok(stored) => {
                self.metrics.read("hit");
                Some(stored)
            }
            Err(Unreadable::Io(cause)) if cause.kind() == ErrorKind::NotFound => {
                if indexed {
                    self.metrics.read("gone");
                    self.index().remove(key);
                }
                None
            }
            Err(Unreadable::Io(cause)) => {
                self.metrics.read("failed");
                self.rest("an entry can't be read", &cause);
                self.forget(key);
                None
            }
            Err(Unreadable::Corrupt(what)) => {
                self.metrics.read("corrupt");
                tracing::warn!(path = %self.path(key).display(), what, "a corrupt cache entry was removed");
                self.index().remove(key);
                self.unlink(key);
                self.update_gauges();
                None
            }
        }
    }

    /// Writes all that comes through the queue, until its senders are gone.
    pub(super) fn write_all(&self, queue: &Receiver<WriteJob>) {
        for job in queue {
            let size = job.stored.body.len() as u64;
            if self.is_resting() {
                self.metrics.wrote("resting");
            } else {
                match self.write(&job) {
                    Ok(result) => {
                        self.metrics.wrote(result);
                        if matches!(result, "ok" | "renewed") {
                            self.recovered();
                        }
                    }
                    Err(cause) => {
                        self.metrics.wrote("failed");
                        self.rest("an entry can't be written", &cause);
                    }
                }
            }
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            self.update_gauges();
        }
    }

    /// Writes one response; the result as the metric's label has it.
    fn write(&self, job: &WriteJob) -> io::Result<&'static str> {
        let Some(entry) = file::Entry::of(&job.key, &job.stored) else { return Ok("too_large") };
        if index::block_bytes(entry.size()) > self.max_bytes {
            return Ok("too_large");
        }
        let path = self.path(&job.key);
        let renewed = if self.index().holds(&job.key) { entry.update_header(&path, &job.key)? } else { None };
        let size = match renewed {
            Some(size) => size,
            None => {
                self.make_room(index::block_bytes(entry.size()));
                self.write_whole(&entry, &job.key, &path)?;
                entry.size()
            }
        };
        let mut index = self.index();
        // A purge is noted first and then looks at the index: either it sees this entry, or it is seen here.
        if self.purges.touched(job.purge_epoch, &job.key, &job.stored.tags) {
            index.remove(&job.key);
            drop(index);
            self.unlink(&job.key);
            return Ok("purged");
        }
        index.insert(&job.key, size, &job.stored.tags);
        Ok(if renewed.is_some() { "renewed" } else { "ok" })
    }

    /// Writes a file under a temporary name and renames it.
    fn write_whole(&self, entry: &file::Entry<'_>, key: &str, path: &Path) -> io::Result<()> {
        let new = self.root.join(TEMPORARY).join(file::name(key));
        if let Some(directory) = path.parent() {
            create_private_directory(directory)?;
        }
        entry.write(&new).and_then(|()| fs::rename(&new, path)).inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }

    fn make_room(&self, size: u64) {
        loop {
            let key = {
                let mut index = self.index();
                if index.bytes().saturating_add(size) <= self.max_bytes {
                    return;
                }
                index.pop_oldest()
            };
            let Some(key) = key else { return };
            self.metrics.evicted.inc();
            self.unlink(&key);
        }
    }

    /// Indexes what an earlier run left: headers are verified now, bodies when they are read.
    pub(super) fn scan(&self) {
        let mut found = Vec::new();
        let folders = fs::read_dir(&self.root).into_iter().flatten().flatten();
        for folder in folders.filter(|folder| folder.file_name().len() == 2) {
            for entry in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                match file::read_header(&entry.path()) {
                    Ok(header) => found.push((header, entry.path())),
                    Err(Unreadable::Io(cause)) => self.rest("an entry can't be read", &cause),
                    Err(Unreadable::Corrupt(what)) => {
                        self.metrics.read("corrupt");
                        tracing::warn!(path = %entry.path().display(), what, "a corrupt cache entry was removed");
                        let _ = fs::remove_file(entry.path());
                    }
                }
            }
        }
        // The oldest first, so that they are evicted first.
        found.sort_unstable_by_key(|(entry, _)| entry.modified);
        let (mut kept, mut removed) = (0_u64, 0_u64);
        for (entry, path) in found {
            let mut index = self.index();
            if index.holds(&entry.key) {
                continue;
            }
            if self.path(&entry.key) != path || self.purges.touched(0, &entry.key, &entry.tags) {
                drop(index);
                let _ = fs::remove_file(path);
                removed += 1;
                continue;
            }
            index.insert(&entry.key, entry.size, &entry.tags);
            kept += 1;
        }
        self.make_room(0);
        self.scanned.store(true, Ordering::Release);
        self.update_gauges();
        tracing::info!(path = %self.root.display(), kept, removed, "indexed what an earlier run left on disk");
    }
}

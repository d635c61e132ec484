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
use lyceum_core::time::{Clock, Instant, monotonic};

/// The directory in which files are written before they are renamed.
pub(super) const TEMPORARY: &str = "new";

/// The part of the index that is evicted when the file system is full, at least: one failed write makes room for many.
const EVICTED_PART: u64 = 64;

/// How often a write is tried on a full file system, each time after more files were removed.
const MAX_ROOM_ATTEMPTS: u32 = 4;

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
    /// Bytes of the file system that are left free.
    pub(super) min_free_bytes: u64,
    /// Whether the log was told that the file system is full.
    pub(super) told_full: AtomicBool,
    /// Held while a file gets or loses its name together with its entry in the index, never while a body is read or
    /// written: the two would differ for good if one came between.
    pub(super) names: Mutex<()>,
    pub(super) clock: Clock,
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

    fn names(&self) -> MutexGuard<'_, ()> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what is there under `key`.
    pub(super) fn forget(&self, key: &str) {
        let names = self.names();
        if self.index().remove(key) {
            self.unlink(key);
            drop(names);
            self.update_gauges();
        }
    }

    /// Removes what was read under `key` with the number `written`, unless it was written anew meanwhile.
    pub(super) fn forget_as_read(&self, key: &str, written: Option<u64>) {
        let names = self.names();
        let mut index = self.index();
        if index.written(key) != written {
            return;
        }
        index.remove(key);
        drop(index);
        self.unlink(key);
        drop(names);
        self.update_gauges();
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
        let written = self.index().touch(key);
        let indexed = written.is_some();
        if !indexed && self.scanned.load(Ordering::Acquire) {
            return None;
        }
        match file::read(&self.path(key), key, &self.clock) {
            // Not in the index yet: its file may still lie there though it was purged since the start.
            Ok(stored) if !indexed && self.purges.touched(0, key, &stored.tags) => {
                self.forget_as_read(key, written);
                None
            }
            Ok(stored) => {
                self.metrics.read("hit");
                Some(stored)
            }
            Err(Unreadable::Io(cause)) if cause.kind() == ErrorKind::NotFound => {
                if indexed {
                    self.metrics.read("gone");
                    self.forget_as_read(key, written);
                }
                None
            }
            Err(Unreadable::Io(cause)) => {
                self.metrics.read("failed");
                self.rest("an entry can't be read", &cause);
                self.forget_as_read(key, written);
                None
            }
            Err(Unreadable::Corrupt(what)) => {
                self.metrics.read("corrupt");
                tracing::warn!(path = %self.path(key).display(), what, "a corrupt cache entry was removed");
                self.forget_as_read(key, written);
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

    /// Writes one response; the result as the metric's label has it. Where the file system is full before `size` is
    /// reached, the oldest files make room.
    fn write(&self, job: &WriteJob) -> io::Result<&'static str> {
        let Some(entry) = file::Entry::of(&job.key, &job.stored, &self.clock) else { return Ok("too_large") };
        let size = index::block_bytes(entry.size());
        if size > self.max_bytes {
            return Ok("too_large");
        }
        self.keep_free(size);
        let mut attempt = 0;
        loop {
            match self.write_entry(job, &entry) {
                Err(cause) if is_full(&cause) && attempt < MAX_ROOM_ATTEMPTS => {
                    if !self.told_full.swap(true, Ordering::Relaxed) {
                        tracing::warn!(path = %self.root.display(), %cause, "the cache's file system is full before cache.disk.size is reached: the oldest responses make room");
                    }
                    if !self.evict(size << attempt) {
                        return Err(cause);
                    }
                    attempt += 1;
                }
                written => return written,
            }
        }
    }

    fn write_entry(&self, job: &WriteJob, entry: &file::Entry<'_>) -> io::Result<&'static str> {
        let path = self.path(&job.key);
        let renewed = if self.index().holds(&job.key) { entry.update_header(&path, &job.key)? } else { None };
        let new = match renewed {
            Some(_) => None,
            None => {
                self.make_room(index::block_bytes(entry.size()));
                Some(self.write_temporary(entry, &job.key, &path)?)
            }
        };
        let _names = self.names();
        if let Some(new) = new {
            fs::rename(&new, &path).inspect_err(|_| drop(fs::remove_file(&new)))?;
        }
        let mut index = self.index();
        // Another may have removed the file whose header was written.
        let gone = renewed.is_some() && !index.holds(&job.key);
        // A purge is noted first and then looks at the index: either it sees this entry, or it is seen here.
        if gone || self.purges.touched(job.purge_epoch, &job.key, &job.stored.tags) {
            index.remove(&job.key);
            drop(index);
            self.unlink(&job.key);
            return Ok("purged");
        }
        index.insert(&job.key, renewed.unwrap_or(entry.size()), &job.stored.tags);
        Ok(if renewed.is_some() { "renewed" } else { "ok" })
    }

    /// Writes a file under a temporary name, to be renamed to `path`.
    fn write_temporary(&self, entry: &file::Entry<'_>, key: &str, path: &Path) -> io::Result<PathBuf> {
        let new = self.root.join(TEMPORARY).join(file::name(key));
        if let Some(directory) = path.parent() {
            create_private_directory(directory)?;
        }
        entry.write(&new).inspect_err(|_| drop(fs::remove_file(&new)))?;
        Ok(new)
    }

    /// Evicts until the index takes `size` bytes more.
    fn make_room(&self, size: u64) {
        while self.exceeds(size) {
            if self.evict_oldest().is_none() {
                return;
            }
        }
    }

    /// Whether `size` bytes more are too many.
    fn exceeds(&self, size: u64) -> bool {
        self.index().bytes().saturating_add(size) > self.max_bytes
    }

    /// Evicts the oldest files: as many as take `size` bytes, and a part of all. Whether there were any.
    fn evict(&self, size: u64) -> bool {
        let (bytes, files) = {
            let index = self.index();
            (size.max(index.bytes() / EVICTED_PART), (index.len() as u64 / EVICTED_PART).max(1))
        };
        let (mut freed, mut removed) = (0_u64, 0_u64);
        while freed < bytes || removed < files {
            let Some(size) = self.evict_oldest() else { break };
            freed = freed.saturating_add(size);
            removed += 1;
        }
        removed > 0
    }

    /// Evicts before a write of `size` bytes what keeps the file system from having `min_free` left, a part of all at most.
    fn keep_free(&self, size: u64) {
        if self.min_free_bytes == 0 {
            return;
        }
        let Ok(system) = rustix::fs::statvfs(&self.root) else { return };
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        let wanted = self.min_free_bytes.saturating_add(size);
        if free < wanted {
            let part = self.index().bytes() / EVICTED_PART;
            self.evict(size.max(part.min(wanted - free)));
        }
    }

    /// Evicts the least recently used file; the room that it took.
    fn evict_oldest(&self) -> Option<u64> {
        let _names = self.names();
        let (key, size) = self.index().pop_oldest()?;
        self.metrics.evicted.inc();
        self.unlink(&key);
        Some(size)
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
            let _names = self.names();
            let mut index = self.index();
            if index.holds(&entry.key) || !path.exists() {
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

/// Whether a write failed for want of space, inodes or quota.
fn is_full(cause: &io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

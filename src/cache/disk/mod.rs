//! The second tier: files that are found again after a restart.
//!
//! Owns a directory: one file an entry, its header and its body under a checksum each, and an index in memory (about 300
//! bytes an entry) of what lies there, the least recently used first. What is written goes through a bounded queue to
//! one thread; what is read is read whole, by a bounded number of threads, and verified before a byte is passed on. A
//! disk that is full or failing costs nothing but itself: it is left alone for a while, and memory goes on alone.
//!
//! Files are 0600 in directories 0700. A lock file keeps a second process out.

mod file;
mod index;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::Stored;
use super::purge::{Purge, PurgeLog};
use file::Unreadable;
use index::Index;
use lyceum_core::telemetry;
use lyceum_core::time::{Clock, Instant, monotonic};
use lyceum_core::units::{self, ByteSize, Span};

/// `disk` of `[cache]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The directory; made where it is missing. It is the edge's alone.
    pub path: PathBuf,
    /// How much its files may take, in blocks of 4 KiB. 1MiB to 1024TiB.
    #[serde(deserialize_with = "units::size::<_, 1_048_576, 1_125_899_906_842_624>")]
    pub size: ByteSize,
    /// How much may wait to be written; what comes beyond it stays in memory alone. 1MiB to 16GiB; default 64MiB.
    #[serde(default = "defaults::queue", deserialize_with = "units::size::<_, 1_048_576, 17_179_869_184>")]
    pub queue: ByteSize,
    /// Files that are read at once. 1 to 1,000; default 16.
    #[serde(default = "defaults::readers", deserialize_with = "units::number::<_, 1, 1_000>")]
    pub readers: u64,
    /// What is fresh for less than this is not worth a file. 0s to 24h; default 10s.
    #[serde(default = "defaults::least_life", deserialize_with = "units::span::<_, 0, 86_400_000>")]
    pub least_life: Span,
    /// How long a disk that is full or failed is left alone before it is tried again. 100ms to 1h; default 10s.
    #[serde(default = "defaults::rest", deserialize_with = "units::span::<_, 100, 3_600_000>")]
    pub rest: Span,
}

mod defaults {
    use lyceum_core::units::{ByteSize, Span};

    pub(super) fn queue() -> ByteSize {
        ByteSize::mib(64)
    }
    pub(super) fn readers() -> u64 {
        16
    }
    pub(super) fn least_life() -> Span {
        Span::secs(10)
    }
    pub(super) fn rest() -> Span {
        Span::secs(10)
    }
}

/// A directory that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It can't be made or written.
    #[error("cache.disk: {}: {cause}", path.display())]
    Directory {
        /// The path that failed.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another process has it.
    #[error("cache.disk: {}: another edge uses this directory", .0.display())]
    Taken(PathBuf),
    /// No thread can be started.
    #[error("cache.disk: no thread can be started: {0}")]
    Thread(io::Error),
}

/// The most files that wait to be written.
const QUEUE: usize = 16_384;

/// Where files are written before they have their name.
const HALF_WRITTEN: &str = "new";
const LOCK: &str = "lock";

/// The metrics of the disk.
#[derive(Clone, Debug)]
struct Metrics {
    bytes: IntGauge,
    objects: IntGauge,
    reads: IntCounterVec,
    writes: IntCounterVec,
    evicted: IntCounter,
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        let made = Self {
            bytes: telemetry::gauge(registry, "lyceum_edge_disk_bytes", "Disk that stored responses take."),
            objects: telemetry::gauge(registry, "lyceum_edge_disk_objects", "Responses that are stored on disk."),
            reads: telemetry::counters(
                registry,
                "lyceum_edge_disk_reads_total",
                "Stored responses looked for on disk by what came of it.",
                &["result"],
            ),
            writes: telemetry::counters(
                registry,
                "lyceum_edge_disk_writes_total",
                "Responses to be written to disk by what came of it.",
                &["result"],
            ),
            evicted: telemetry::counter(
                registry,
                "lyceum_edge_disk_evictions_total",
                "Responses that made room for others on disk.",
            ),
        };
        // A series that appears with its first count hides that count from rate().
        for result in ["hit", "corrupt", "gone", "failed"] {
            made.reads.with_label_values(&[result]);
        }
        for result in ["ok", "renewed", "too_large", "purged", "queue_full", "failed", "resting"] {
            made.writes.with_label_values(&[result]);
        }
        made
    }

    fn read(&self, result: &str) {
        self.reads.with_label_values(&[result]).inc();
    }

    fn wrote(&self, result: &str) {
        self.writes.with_label_values(&[result]).inc();
    }
}

/// The directory and what is known of it, shared by the thread that writes and those who read.
#[derive(Debug)]
struct Shared {
    root: PathBuf,
    most: u64,
    index: Mutex<Index>,
    /// Whether all that an earlier run left is in the index.
    scanned: AtomicBool,
    /// Bytes that wait to be written.
    queued: AtomicU64,
    /// Until when a disk that failed is left alone.
    rests_until: Mutex<Option<Instant>>,
    rest: Duration,
    purges: Arc<PurgeLog>,
    metrics: Metrics,
    _lock: fs::File,
}

/// Something to be written.
#[derive(Debug)]
struct Job {
    key: Box<str>,
    stored: Arc<Stored>,
    /// The purges that were known when it was fetched.
    epoch: u64,
}

/// The second tier.
#[derive(Debug)]
pub(super) struct Disk {
    shared: Arc<Shared>,
    jobs: SyncSender<Job>,
    queue: u64,
    least_life: i64,
    readers: Arc<Semaphore>,
    clock: Clock,
}

impl Disk {
    /// Takes a directory over, with what an earlier run left in it: that is read in the background.
    pub(super) fn open(
        config: &Config,
        purges: Arc<PurgeLog>,
        clock: Clock,
        registry: &Registry,
    ) -> Result<Self, DiskError> {
        let root = config.path.clone();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |cause| DiskError::Directory { path, cause }
        };
        let half_written = root.join(HALF_WRITTEN);
        make_directory(&root).map_err(failed(&root))?;
        let lock = root.join(LOCK);
        let held = private().create(true).truncate(false).open(&lock).map_err(failed(&lock))?;
        match held.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(DiskError::Taken(root)),
            Err(fs::TryLockError::Error(cause)) => return Err(DiskError::Directory { path: lock, cause }),
        }
        // What was not finished has no place in the index and never will.
        if half_written.exists() {
            fs::remove_dir_all(&half_written).map_err(failed(&half_written))?;
        }
        make_directory(&half_written).map_err(failed(&half_written))?;
        let shared = Arc::new(Shared {
            root,
            most: config.size.0,
            index: Mutex::default(),
            scanned: AtomicBool::new(false),
            queued: AtomicU64::new(0),
            rests_until: Mutex::new(None),
            rest: config.rest.get(),
            purges,
            metrics: Metrics::new(registry),
            _lock: held,
        });
        let (jobs, queue) = sync_channel(QUEUE);
        let (writer, scanner) = (Arc::clone(&shared), Arc::clone(&shared));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(DiskError::Thread)
        };
        spawn("lyceum-disk", Box::new(move || writer.write_all(&queue)))?;
        spawn("lyceum-scan", Box::new(move || scanner.scan()))?;
        Ok(Self {
            shared,
            jobs,
            queue: config.queue.0,
            least_life: i64::try_from(config.least_life.get().as_secs()).unwrap_or(i64::MAX),
            readers: Arc::new(Semaphore::new(usize::try_from(config.readers).unwrap_or(1))),
            clock,
        })
    }

    /// Puts a response into the queue, if it will live and there is room.
    pub(super) fn offer(&self, key: &str, stored: &Arc<Stored>, epoch: u64) {
        if stored.freshness.left(self.clock.unix_millis()) < self.least_life {
            // What lies there under this key is older still.
            return self.shared.forget(key);
        }
        if self.shared.is_resting() {
            return self.shared.metrics.wrote("resting");
        }
        let size = stored.body.len() as u64;
        if self.shared.queued.load(Ordering::Relaxed).saturating_add(size) > self.queue {
            return self.shared.metrics.wrote("queue_full");
        }
        self.shared.queued.fetch_add(size, Ordering::Relaxed);
        let job = Job { key: key.into(), stored: Arc::clone(stored), epoch };
        if self.jobs.try_send(job).is_err() {
            self.shared.queued.fetch_sub(size, Ordering::Relaxed);
            self.shared.metrics.wrote("queue_full");
        }
    }

    /// Whether there may be something under `key`.
    pub(super) fn may_hold(&self, key: &str) -> bool {
        !self.shared.scanned.load(Ordering::Acquire) || self.shared.index().holds(key)
    }

    /// What lies under `key`, verified. What can't be verified is taken away.
    pub(super) async fn read(&self, key: &str) -> Option<Arc<Stored>> {
        if !self.may_hold(key) {
            return None;
        }
        let _permit = Arc::clone(&self.readers).acquire_owned().await.ok()?;
        let (shared, key) = (Arc::clone(&self.shared), key.to_owned());
        tokio::task::spawn_blocking(move || shared.read(&key)).await.ok().flatten().map(Arc::new)
    }

    /// Takes away what is there under `key`.
    pub(super) fn forget(&self, key: &str) {
        self.shared.forget(key);
    }

    /// Takes entries away, or makes them stale from `now_ms` on. The purge has been noted before.
    pub(super) fn purge(&self, purge: &Purge, now_ms: i64) -> usize {
        let hit = self.shared.index().matching(&purge.target);
        for key in &hit {
            let kept = purge.soft && file::end(&self.shared.path(key), now_ms).is_ok();
            if !kept {
                self.shared.forget(key);
            }
        }
        self.shared.show();
        hit.len()
    }

    /// Bytes and entries on disk.
    pub(super) fn size(&self) -> (u64, usize) {
        let index = self.shared.index();
        (index.bytes(), index.len())
    }
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self) {
        let index = self.index();
        self.metrics.bytes.set(i64::try_from(index.bytes()).unwrap_or(i64::MAX));
        self.metrics.objects.set(i64::try_from(index.len()).unwrap_or(i64::MAX));
    }

    fn path(&self, key: &str) -> PathBuf {
        let name = file::name(key);
        self.root.join(name.get(..2).unwrap_or("00")).join(&name)
    }

    fn is_resting(&self) -> bool {
        let until = *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| monotonic() < until)
    }

    /// Leaves the disk alone for a while after it failed.
    fn rest(&self, what: &str, cause: &io::Error) {
        let mut until = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = monotonic();
        if until.is_none_or(|until| until <= now) {
            tracing::warn!(path = %self.root.display(), what, %cause, rest_ms = self.rest.as_millis(), "the cache's disk fails: memory goes on alone");
            *until = Some(now + self.rest);
        }
    }

    /// A write went well: whatever was wrong with the disk is over.
    fn recovered(&self) {
        let mut until = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.take().is_some() {
            tracing::info!(path = %self.root.display(), "the cache's disk takes entries again");
        }
    }

    fn forget(&self, key: &str) {
        if self.index().remove(key) {
            self.unlink(key);
            self.show();
        }
    }

    fn unlink(&self, key: &str) {
        if let Err(cause) = fs::remove_file(self.path(key))
            && cause.kind() != ErrorKind::NotFound
        {
            self.rest("an entry can't be removed", &cause);
        }
    }

    fn read(&self, key: &str) -> Option<Stored> {
        let indexed = self.index().touch(key);
        if !indexed && self.scanned.load(Ordering::Acquire) {
            return None;
        }
        match file::read(&self.path(key), key) {
            // Not yet in the index: what was purged since the start may still be there.
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
                self.show();
                None
            }
        }
    }

    fn write_all(&self, queue: &Receiver<Job>) {
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
            self.queued.fetch_sub(size, Ordering::Relaxed);
            self.show();
        }
    }

    /// Writes one; what came of it, as the metric has it.
    fn write(&self, job: &Job) -> io::Result<&'static str> {
        let Some(entry) = file::Entry::of(&job.key, &job.stored) else { return Ok("too_large") };
        if index::blocks(entry.size()) > self.most {
            return Ok("too_large");
        }
        let path = self.path(&job.key);
        let renewed = if self.index().holds(&job.key) { entry.renew(&path, &job.key)? } else { None };
        let size = match renewed {
            Some(size) => size,
            None => {
                self.make_room(index::blocks(entry.size()));
                self.write_whole(&entry, &job.key, &path)?;
                entry.size()
            }
        };
        let mut index = self.index();
        // Whoever purges notes it first and then looks at the index: one of the two sees the other.
        if self.purges.touched(job.epoch, &job.key, &job.stored.tags) {
            index.remove(&job.key);
            drop(index);
            self.unlink(&job.key);
            return Ok("purged");
        }
        index.insert(&job.key, size, &job.stored.tags);
        Ok(if renewed.is_some() { "renewed" } else { "ok" })
    }

    /// Writes a file beside and gives it its name.
    fn write_whole(&self, entry: &file::Entry<'_>, key: &str, path: &Path) -> io::Result<()> {
        let new = self.root.join(HALF_WRITTEN).join(file::name(key));
        if let Some(directory) = path.parent() {
            make_directory(directory)?;
        }
        entry.write(&new).and_then(|()| fs::rename(&new, path)).inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }

    fn make_room(&self, size: u64) {
        loop {
            let key = {
                let mut index = self.index();
                if index.bytes().saturating_add(size) <= self.most {
                    return;
                }
                index.pop_oldest()
            };
            let Some(key) = key else { return };
            self.metrics.evicted.inc();
            self.unlink(&key);
        }
    }

    /// Takes up what an earlier run left: headers are verified now, bodies when they are read.
    fn scan(&self) {
        let mut found = Vec::new();
        let folders = fs::read_dir(&self.root).into_iter().flatten().flatten();
        for folder in folders.filter(|folder| folder.file_name().len() == 2) {
            for entry in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                match file::glance(&entry.path()) {
                    Ok(left) => found.push((left, entry.path())),
                    Err(Unreadable::Io(cause)) => self.rest("an entry can't be read", &cause),
                    Err(Unreadable::Corrupt(what)) => {
                        self.metrics.read("corrupt");
                        tracing::warn!(path = %entry.path().display(), what, "a corrupt cache entry was removed");
                        let _ = fs::remove_file(entry.path());
                    }
                }
            }
        }
        // The oldest first, so that they go first.
        found.sort_unstable_by_key(|(left, _)| left.modified);
        let (mut kept, mut removed) = (0_u64, 0_u64);
        for (left, path) in found {
            let mut index = self.index();
            if index.holds(&left.key) {
                continue;
            }
            if self.path(&left.key) != path || self.purges.touched(0, &left.key, &left.tags) {
                drop(index);
                let _ = fs::remove_file(path);
                removed += 1;
                continue;
            }
            index.insert(&left.key, left.size, &left.tags);
            kept += 1;
        }
        self.make_room(0);
        self.scanned.store(true, Ordering::Release);
        self.show();
        tracing::info!(path = %self.root.display(), kept, removed, "took up what an earlier run left on disk");
    }
}

fn private() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests;

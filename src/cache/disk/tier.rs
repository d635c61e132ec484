//! [`Disk`]: the disk tier as the cache uses it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use prometheus::Registry;
use tokio::sync::Semaphore;

use super::config::DiskConfig;
use super::directory::{Directory, TEMPORARY, WriteJob};
use super::file;
use super::metrics::DiskMetrics;
use super::private_files::{create_private_directory, private_file};
use crate::purge::{Purge, PurgeLog};
use crate::stored_response::StoredResponse;
use lyceum_core::time::Clock;

/// The most files that wait to be written.
const MAX_QUEUED_FILES: usize = 16_384;

/// The lock file.
const LOCK: &str = "lock";

/// Why the disk tier can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The directory can't be created or written.
    #[error("cache.disk: {}: {cause}", path.display())]
    Directory {
        /// The path that failed.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another process uses the directory.
    #[error("cache.disk: {}: another edge uses this directory", .0.display())]
    Taken(PathBuf),
    /// No thread can be started.
    #[error("cache.disk: no thread can be started: {0}")]
    Thread(io::Error),
}

/// The second tier.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(super) directory: Arc<Directory>,
    jobs: SyncSender<WriteJob>,
    max_queued_bytes: u64,
    min_lifetime_seconds: i64,
    readers: Arc<Semaphore>,
    clock: Clock,
}

impl Disk {
    /// Opens a directory with what an earlier run left in it, which is indexed in the background.
    pub(crate) fn open(
        config: &DiskConfig,
        purges: Arc<PurgeLog>,
        clock: Clock,
        registry: &Registry,
    ) -> Result<Self, DiskError> {
        let root = config.path.clone();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |cause| DiskError::Directory { path, cause }
        };
        let temporary = root.join(TEMPORARY);
        create_private_directory(&root).map_err(failed(&root))?;
        let lock = root.join(LOCK);
        let held = private_file().create(true).truncate(false).open(&lock).map_err(failed(&lock))?;
        match held.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(DiskError::Taken(root)),
            Err(fs::TryLockError::Error(cause)) => return Err(DiskError::Directory { path: lock, cause }),
        }
        // Files that were not finished are never indexed.
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(failed(&temporary))?;
        }
        create_private_directory(&temporary).map_err(failed(&temporary))?;
        let directory = Arc::new(Directory {
            root,
            max_bytes: config.size.0,
            index: Mutex::default(),
            scanned: AtomicBool::new(false),
            queued_bytes: AtomicU64::new(0),
            rests_until: Mutex::new(None),
            rest: config.rest.get(),
            purges,
            metrics: DiskMetrics::new(registry),
            min_free_bytes: config.min_free.0,
            told_full: AtomicBool::new(false),
            names: Mutex::default(),
            clock: clock.clone(),
            _lock: held,
        });
        let (jobs, queue) = sync_channel(MAX_QUEUED_FILES);
        let (writer, scanner) = (Arc::clone(&directory), Arc::clone(&directory));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(DiskError::Thread)
        };
        spawn("lyceum-disk", Box::new(move || writer.write_all(&queue)))?;
        spawn("lyceum-scan", Box::new(move || scanner.scan()))?;
        Ok(Self {
            directory,
            jobs,
            max_queued_bytes: config.queue.0,
            min_lifetime_seconds: i64::try_from(config.least_life.get().as_secs()).unwrap_or(i64::MAX),
            readers: Arc::new(Semaphore::new(usize::try_from(config.readers).unwrap_or(1))),
            clock,
        })
    }

    /// Queues a response to be written, if it stays fresh long enough and there is room.
    pub(crate) fn offer(&self, key: &str, stored: &Arc<StoredResponse>, purge_epoch: u64) {
        if stored.freshness.left(self.clock.steady_millis()) < self.min_lifetime_seconds {
            // What the disk has under this key is older still.
            return self.directory.forget(key);
        }
        if self.directory.is_resting() {
            return self.directory.metrics.wrote("resting");
        }
        let size = stored.body.len() as u64;
        if self.directory.queued_bytes.load(Ordering::Relaxed).saturating_add(size) > self.max_queued_bytes {
            return self.directory.metrics.wrote("queue_full");
        }
        self.directory.queued_bytes.fetch_add(size, Ordering::Relaxed);
        let job = WriteJob { key: key.into(), stored: Arc::clone(stored), purge_epoch };
        if self.jobs.try_send(job).is_err() {
            self.directory.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            self.directory.metrics.wrote("queue_full");
        }
    }

    /// Whether there may be something under `key`.
    pub(crate) fn may_hold(&self, key: &str) -> bool {
        !self.directory.scanned.load(Ordering::Acquire) || self.directory.index().holds(key)
    }

    /// What lies under `key`, verified. A file that can't be verified is removed.
    pub(crate) async fn read(&self, key: &str) -> Option<Arc<StoredResponse>> {
        if !self.may_hold(key) {
            return None;
        }
        let _permit = Arc::clone(&self.readers).acquire_owned().await.ok()?;
        let (directory, key) = (Arc::clone(&self.directory), key.to_owned());
        tokio::task::spawn_blocking(move || directory.read(&key)).await.ok().flatten().map(Arc::new)
    }

    /// Removes what is there under `key`.
    pub(crate) fn forget(&self, key: &str) {
        self.directory.forget(key);
    }

    /// Removes entries, or makes them stale from now on; how many. The purge was noted before.
    pub(crate) fn purge(&self, purge: &Purge) -> usize {
        let now_ms = self.clock.unix_millis();
        let keys = self.directory.index().matching(&purge.target);
        for key in &keys {
            let kept = purge.soft && file::mark_stale(&self.directory.path(key), now_ms).is_ok();
            if !kept {
                self.directory.forget(key);
            }
        }
        self.directory.update_gauges();
        keys.len()
    }

    /// Bytes and entries on disk.
    pub(crate) fn size(&self) -> (u64, usize) {
        let index = self.directory.index();
        (index.bytes(), index.len())
    }
}

//! A growing object in a directory: one file under `.growing`, held by an exclusive lock while a writer writes, so
//! that an older writer, on this machine or on another that shares the directory, can't write between. The lock ends
//! with its process. Bytes beyond the durable length, left by a crash, are cut off when the next writer begins.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek};
use std::ops::Range;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::store::directory::{Directory, PendingChunks, blocking, ignore_missing, make_folders, write};
use crate::store::error::StoreError;
use crate::store::key::Key;

/// How many bytes are gathered before they are written to the disk.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes between two checkpoints: what a crash can lose.
const CHECKPOINT_BYTES: u64 = 16 << 20;
/// Bytes of another object that are copied before they are synced.
const MAX_COPY_BYTES: u64 = 64 << 20;
/// How far writes may run ahead of what the disk has confirmed.
const MAX_UNCONFIRMED_BYTES: u64 = 64 << 20;

/// A file that grows.
pub struct GrowingFile {
    store: Directory,
    /// `None` while a write is under way; a write that was cancelled leaves it so, and this writer can't go on.
    file: Option<File>,
    gathered: PendingChunks,
    length: u64,
    durable: u64,
    /// The length that the disk was asked to sync, whether or not it has confirmed.
    sync_requested: u64,
}

impl GrowingFile {
    pub(super) async fn open(store: &Directory, key: &Key, length: u64) -> Result<Self, StoreError> {
        verify_growing(store, key, length).await?;
        let path = store.growing_path(key);
        let file = blocking(move || {
            if let Some(folder) = path.parent() {
                make_folders(folder)?;
            }
            let mut file = OpenOptions::new().read(true).write(true).create(length == 0).truncate(false).open(&path)?;
            match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            if file.metadata()?.len() < length {
                return Err(io::Error::other("the growing file is shorter than what was acknowledged"));
            }
            file.set_len(length)?;
            file.seek(io::SeekFrom::Start(length))?;
            if length == 0
                && let Some(folder) = path.parent()
            {
                File::open(folder)?.sync_all()?;
            }
            Ok(Some(file))
        })
        .await?;
        let file = file.ok_or(StoreError::Held)?;
        let store = store.clone();
        Ok(Self {
            store,
            file: Some(file),
            gathered: PendingChunks::default(),
            length,
            durable: length,
            sync_requested: length,
        })
    }

    fn take(&mut self) -> Result<File, StoreError> {
        self.file.take().ok_or_else(|| StoreError::Unavailable("an earlier write was interrupted".to_owned()))
    }

    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.length += bytes.len() as u64;
        self.gathered.push(bytes);
        if self.gathered.bytes >= WRITE_BYTES {
            self.file = Some(write(self.take()?, self.gathered.take()).await?);
        }
        Ok(())
    }

    pub(super) fn pending(&self) -> u64 {
        self.length - self.durable
    }

    pub(super) fn wants_checkpoint(&self) -> bool {
        self.length - self.sync_requested >= CHECKPOINT_BYTES
    }

    /// Whether writes ran so far ahead of the disk that they have to wait.
    pub(super) fn is_ahead(&self) -> bool {
        self.pending() >= MAX_UNCONFIRMED_BYTES
    }

    pub(super) async fn checkpoint(&mut self) -> Result<u64, StoreError> {
        let file = write(self.take()?, self.gathered.take()).await?;
        self.file = Some(blocking(move || file.sync_data().map(|()| file)).await?);
        self.durable = self.length;
        self.sync_requested = self.length;
        Ok(self.durable)
    }

    /// Starts a sync of what was written, while more is written. Answers the length that it makes durable, and the task.
    /// The disk reports an error once, so the task's result must be seen before a later sync is relied on.
    pub(super) async fn start_background_checkpoint(
        &mut self,
    ) -> Result<(u64, JoinHandle<io::Result<()>>), StoreError> {
        let file = write(self.take()?, self.gathered.take()).await?;
        let same = file.try_clone().map_err(|error| StoreError::io(&error))?;
        self.file = Some(file);
        self.sync_requested = self.length;
        Ok((self.length, tokio::task::spawn_blocking(move || same.sync_data())))
    }

    /// Appends the next bytes of another object and makes them durable; they never leave the kernel. Answers how far in
    /// that object it came, and the length of this one.
    pub(super) async fn copy(&mut self, from: &Key, range: Range<u64>) -> Result<(u64, u64), StoreError> {
        let file = write(self.take()?, self.gathered.take()).await?;
        let path = self.store.path(from);
        let wanted = range.end.saturating_sub(range.start).min(MAX_COPY_BYTES);
        let copied = move || {
            let mut source = File::open(path)?;
            source.seek(io::SeekFrom::Start(range.start))?;
            // Between two files this is `copy_file_range` where the system has it.
            let copied = io::copy(&mut (&source).take(wanted), &mut &file)?;
            if copied < wanted {
                return Err(io::Error::other("the object to be copied is shorter than what was acknowledged"));
            }
            file.sync_data().map(|()| file)
        };
        self.file = Some(blocking(copied).await?);
        self.length += wanted;
        self.durable = self.length;
        self.sync_requested = self.length;
        Ok((range.start + wanted, self.length))
    }

    /// Notes that a sync started by [`Self::start_background_checkpoint`] succeeded.
    pub(super) fn confirm_checkpoint(&mut self, length: u64) {
        self.durable = self.durable.max(length);
    }
}

/// Looks whether the store holds all that was acknowledged; [`StoreError::Lost`] when it does not.
pub(super) async fn verify(store: &Directory, key: &Key, length: u64) -> Result<(), StoreError> {
    match verify_growing(store, key, length).await {
        Err(StoreError::Lost(what)) => match size(store.path(key)).await? {
            Some(found) if found == length => Ok(()),
            _ => Err(StoreError::Lost(what)),
        },
        other => other,
    }
}

async fn verify_growing(store: &Directory, key: &Key, length: u64) -> Result<(), StoreError> {
    let found = size(store.growing_path(key)).await?;
    if length == 0 || found.is_some_and(|found| found >= length) {
        return Ok(());
    }
    let found = found.map_or("no file".to_owned(), |found| format!("a file of {found} bytes"));
    Err(StoreError::Lost(format!("{length} bytes of the upload were acknowledged, and there is {found}")))
}

/// The size of a file, if it is there.
async fn size(path: std::path::PathBuf) -> Result<Option<u64>, StoreError> {
    match blocking(move || fs::metadata(path)).await {
        Ok(meta) => Ok(Some(meta.len())),
        Err(StoreError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) async fn finish(store: &Directory, key: &Key, content_type: &str, length: u64) -> Result<(), StoreError> {
    verify(store, key, length).await?;
    let (store, key, content_type) = (store.clone(), key.clone(), content_type.to_owned());
    blocking(move || match publish(&store, &key, &content_type, length) {
        // An earlier try, or another origin's, got as far as the rename.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let found = fs::metadata(store.path(&key))?.len();
            if found == length { Ok(()) } else { Err(io::Error::other("the object has another length")) }
        }
        other => other,
    })
    .await
}

fn publish(store: &Directory, key: &Key, content_type: &str, length: u64) -> io::Result<()> {
    let (from, to) = (store.growing_path(key), store.path(key));
    let is_empty = length == 0 && fs::metadata(&to).is_err();
    if let (true, Some(folder)) = (is_empty, from.parent()) {
        make_folders(folder)?;
    }
    let file = OpenOptions::new().write(true).create(is_empty).truncate(false).open(&from)?;
    if file.metadata()?.len() < length {
        return Err(io::Error::other("the growing file is shorter than what was acknowledged"));
    }
    file.set_len(length)?;
    // `fdatasync` is enough: only the file's times were not synced by the last checkpoint, and nobody needs those.
    file.sync_data()?;
    store.keep_type(key, content_type)?;
    let folder = to.parent().ok_or(io::ErrorKind::NotFound)?;
    make_folders(folder)?;
    fs::rename(&from, &to)?;
    File::open(folder)?.sync_all()
}

pub(super) async fn abandon(store: &Directory, key: &Key) -> Result<(), StoreError> {
    let path = store.growing_path(key);
    blocking(move || ignore_missing(fs::remove_file(path))).await
}

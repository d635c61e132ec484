//! A growing object in a directory: one file under `.growing`, held by an exclusive lock while a writer writes, so
//! that an older writer, on this machine or on another that shares the directory, can't write between. The lock ends
//! with its process. Bytes beyond the durable length, left by a crash, are cut off when the next writer begins.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek};
use std::ops::Range;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::directory::{Directory, Gathered, blocking, ignore_missing, make_folders, write};
use super::{Key, StoreError};

/// How much is gathered before the disk is asked to take it.
const CHUNK: usize = 1 << 20;
/// After so many bytes a checkpoint is due: what a crash can cost.
const CHECKPOINT: u64 = 16 << 20;
/// So much of another object is copied before the disk is asked to take it.
const COPIED: u64 = 64 << 20;
/// So far may what is written run ahead of what the disk has confirmed.
const AHEAD: u64 = 64 << 20;

/// A file that grows.
pub struct Grower {
    store: Directory,
    /// Away only while a write is under way; a write that was cancelled leaves it away, and the writer is done.
    file: Option<File>,
    gathered: Gathered,
    length: u64,
    durable: u64,
    /// What the disk was asked to take, whether or not it has answered.
    asked: u64,
}

impl Grower {
    pub(super) async fn open(store: &Directory, key: &Key, length: u64) -> Result<Self, StoreError> {
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
        Ok(Self { store, file: Some(file), gathered: Gathered::default(), length, durable: length, asked: length })
    }

    fn take(&mut self) -> Result<File, StoreError> {
        self.file.take().ok_or_else(|| StoreError::Unavailable("an earlier write was broken off".to_owned()))
    }

    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.length += bytes.len() as u64;
        self.gathered.push(bytes);
        if self.gathered.bytes >= CHUNK {
            self.file = Some(write(self.take()?, self.gathered.take()).await?);
        }
        Ok(())
    }

    pub(super) fn pending(&self) -> u64 {
        self.length - self.durable
    }

    pub(super) fn wants_checkpoint(&self) -> bool {
        self.length - self.asked >= CHECKPOINT
    }

    /// Whether what is written has run so far ahead of the disk that it has to wait.
    pub(super) fn is_ahead(&self) -> bool {
        self.pending() >= AHEAD
    }

    pub(super) async fn checkpoint(&mut self) -> Result<u64, StoreError> {
        let file = write(self.take()?, self.gathered.take()).await?;
        self.file = Some(blocking(move || file.sync_data().map(|()| file)).await?);
        self.durable = self.length;
        self.asked = self.length;
        Ok(self.durable)
    }

    /// Has the disk take what was written, while more is written. Answers how much that is and the disk's answer: the
    /// disk tells of an error once, so it must be heard before anything is built on a later one.
    pub(super) async fn checkpoint_beside(&mut self) -> Result<(u64, JoinHandle<io::Result<()>>), StoreError> {
        let file = write(self.take()?, self.gathered.take()).await?;
        let same = file.try_clone().map_err(|error| StoreError::io(&error))?;
        self.file = Some(file);
        self.asked = self.length;
        Ok((self.length, tokio::task::spawn_blocking(move || same.sync_data())))
    }

    /// Takes the next stretch of another object and makes it durable; the bytes never leave the kernel. Answers how far
    /// it came in that object, and its own length.
    pub(super) async fn copy(&mut self, from: &Key, range: Range<u64>) -> Result<(u64, u64), StoreError> {
        let file = write(self.take()?, self.gathered.take()).await?;
        let path = self.store.path(from);
        let wanted = range.end.saturating_sub(range.start).min(COPIED);
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
        self.asked = self.length;
        Ok((range.start + wanted, self.length))
    }

    /// What [`Self::checkpoint_beside`] answered was heard to be well.
    pub(super) fn heard(&mut self, length: u64) {
        self.durable = self.durable.max(length);
    }
}

pub(super) async fn finish(store: &Directory, key: &Key, content_type: &str, length: u64) -> Result<(), StoreError> {
    let (store, key, content_type) = (store.clone(), key.clone(), content_type.to_owned());
    blocking(move || match publish(&store, &key, &content_type, length) {
        // An earlier try, or another origin's, came as far as the rename.
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
    let nothing = length == 0 && fs::metadata(&to).is_err();
    if let (true, Some(folder)) = (nothing, from.parent()) {
        make_folders(folder)?;
    }
    let file = OpenOptions::new().write(true).create(nothing).truncate(false).open(&from)?;
    if file.metadata()?.len() < length {
        return Err(io::Error::other("the growing file is shorter than what was acknowledged"));
    }
    file.set_len(length)?;
    // Its last checkpoint left nothing but the times of the file, and those nobody needs.
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

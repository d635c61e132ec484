//! A growing object in a directory: one file under `.growing`, held by an exclusive lock while a writer writes, so
//! that an older writer, on this machine or on another that shares the directory, can't write between. The lock ends
//! with its process. Bytes beyond the durable length, left by a crash, are cut off when the next writer begins.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek};

use bytes::Bytes;

use super::directory::{Directory, Gathered, blocking, ignore_missing, make_folders, write};
use super::{Key, StoreError};

/// How much is gathered before the disk is asked to take it.
const CHUNK: usize = 1 << 20;
/// After so many bytes a checkpoint is due: what a crash can cost.
const CHECKPOINT: u64 = 16 << 20;

/// A file that grows.
pub struct Grower {
    /// Away only while a write is under way; a write that was cancelled leaves it away, and the writer is done.
    file: Option<File>,
    gathered: Gathered,
    length: u64,
    durable: u64,
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
            if length == 0 {
                if let Some(folder) = path.parent() {
                    File::open(folder)?.sync_all()?;
                }
            }
            Ok(Some(file))
        })
        .await?;
        let file = file.ok_or(StoreError::Held)?;
        Ok(Self { file: Some(file), gathered: Gathered::default(), length, durable: length })
    }

    fn take(&mut self) -> Result<File, StoreError> {
        self.file.take().ok_or_else(|| StoreError::Unavailable("an earlier write was broken off".to_owned()))
    }

    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.length += bytes.len() as u64;
        self.gathered.push(bytes);
        if self.gathered.bytes >= CHUNK {
            let file = self.take()?;
            self.file = Some(write(file, self.gathered.take()).await?);
        }
        Ok(())
    }

    pub(super) fn pending(&self) -> u64 {
        self.length - self.durable
    }

    pub(super) fn wants_checkpoint(&self) -> bool {
        self.pending() >= CHECKPOINT
    }

    pub(super) async fn checkpoint(&mut self) -> Result<u64, StoreError> {
        let file = write(self.take()?, self.gathered.take()).await?;
        self.file = Some(blocking(move || file.sync_data().map(|()| file)).await?);
        self.durable = self.length;
        Ok(self.durable)
    }
}

pub(super) async fn finish(store: &Directory, key: &Key, content_type: &str, length: u64) -> Result<(), StoreError> {
    let (store, key, content_type) = (store.clone(), key.clone(), content_type.to_owned());
    blocking(move || {
        let (from, to) = (store.growing_path(&key), store.path(&key));
        let file = match OpenOptions::new().write(true).create(length == 0).truncate(false).open(&from) {
            Ok(file) => file,
            // An earlier try came as far as the rename.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let found = fs::metadata(&to)?.len();
                return if found == length { Ok(()) } else { Err(io::Error::other("the object has another length")) };
            }
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() < length {
            return Err(io::Error::other("the growing file is shorter than what was acknowledged"));
        }
        file.set_len(length)?;
        file.sync_all()?;
        store.keep_type(&key, &content_type)?;
        let folder = to.parent().ok_or(io::ErrorKind::NotFound)?;
        make_folders(folder)?;
        fs::rename(&from, &to)?;
        File::open(folder)?.sync_all()
    })
    .await
}

pub(super) async fn abandon(store: &Directory, key: &Key) -> Result<(), StoreError> {
    let path = store.growing_path(key);
    blocking(move || ignore_missing(fs::remove_file(path))).await
}

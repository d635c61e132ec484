//! Objects as files under one directory. A file appears by a rename (or a link, where none may be there) after its
//! bytes and before its folder are synced, so that a crash leaves the old object, the new one, or none. The content
//! type follows from the extension; where it does not, it is kept in a file of its own under `.types`.

use std::fs::{self, File};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use lyceum_core::ids::Id;
use lyceum_core::time::Clock;

use crate::private;
use crate::store::error::StoreError;
use crate::store::key::Key;
use crate::store::object::{Body, ByteRange, Meta, Object};

/// How many bytes are gathered before they are written to the disk, and read from it at once.
pub(super) const IO_CHUNK_BYTES: usize = 256 << 10;
/// A temporary file that is older belongs to no writer.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A store in a directory.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(super) async fn open(root: &Path, clock: &Clock) -> Result<Self, StoreError> {
        let store = Self { root: root.to_owned() };
        let now = clock.system_time();
        let opened = store.clone();
        blocking(move || {
            private::directory(&opened.root)?;
            for folder in [".tmp", ".types", ".growing"] {
                fs::create_dir_all(opened.root.join(folder))?;
            }
            for entry in fs::read_dir(opened.root.join(".tmp"))? {
                let entry = entry?;
                let written = entry.metadata().and_then(|meta| meta.modified());
                let old = written.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > ABANDONED_AFTER));
                if old {
                    ignore_missing(fs::remove_file(entry.path()))?;
                }
            }
            Ok(())
        })
        .await
        .map_err(|error| match error {
            StoreError::NotFound => StoreError::Refused("the directory can't be made".to_owned()),
            other => other,
        })?;
        Ok(store)
    }

    pub(super) fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    pub(super) fn growing_path(&self, key: &Key) -> PathBuf {
        self.root.join(".growing").join(key.as_str())
    }

    fn type_path(&self, key: &Key) -> PathBuf {
        self.root.join(".types").join(key.as_str())
    }

    /// Answers the size, and whether it was stored: `only_new` replaces no object.
    pub(super) async fn put(
        &self,
        key: &Key,
        content_type: &str,
        mut body: Body,
        only_new: bool,
    ) -> Result<(u64, bool), StoreError> {
        let temporary = Temporary(self.root.join(".tmp").join(Id::random().as_str()));
        let path = temporary.0.clone();
        let mut file = blocking(move || File::create_new(path)).await?;
        let mut size = 0;
        let mut gathered = PendingChunks::default();
        while let Some(chunk) = body.try_next().await? {
            size += chunk.len() as u64;
            gathered.push(chunk);
            if gathered.bytes >= IO_CHUNK_BYTES {
                file = write(file, gathered.take()).await?;
            }
        }
        file = write(file, gathered.take()).await?;
        let (store, key, content_type) = (self.clone(), key.clone(), content_type.to_owned());
        let stored = blocking(move || {
            file.sync_all()?;
            store.keep_type(&key, &content_type)?;
            let target = store.path(&key);
            publish(&temporary.0, &target, only_new)
        })
        .await?;
        Ok((size, stored))
    }

    /// Keeps a content type that does not follow from the key's extension.
    pub(super) fn keep_type(&self, key: &Key, content_type: &str) -> io::Result<()> {
        let path = self.type_path(key);
        if content_type == key.guessed_type() {
            return ignore_missing(fs::remove_file(path));
        }
        let temporary = self.root.join(".tmp").join(Id::random().as_str());
        let mut file = File::create_new(&temporary)?;
        file.write_all(content_type.as_bytes())?;
        file.sync_all()?;
        publish(&temporary, &path, false).map(drop)
    }

    fn meta(&self, key: &Key, file: &fs::Metadata) -> io::Result<Meta> {
        if !file.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let content_type = match fs::read_to_string(self.type_path(key)) {
            Ok(text) => text,
            Err(error) if is_missing(&error) => key.guessed_type().to_owned(),
            Err(error) => return Err(error),
        };
        let written = i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec());
        Ok(Meta { size: file.len(), etag: format!("\"{:x}-{written:x}\"", file.len()), content_type })
    }

    pub(super) async fn head(&self, key: &Key) -> Result<Meta, StoreError> {
        let (store, key) = (self.clone(), key.clone());
        blocking(move || store.meta(&key, &fs::metadata(store.path(&key))?)).await
    }

    pub(super) async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object, StoreError> {
        let (store, key) = (self.clone(), key.clone());
        let (file, meta) = blocking(move || {
            let file = File::open(store.path(&key))?;
            let meta = store.meta(&key, &file.metadata()?)?;
            Ok((file, meta))
        })
        .await?;
        let range = range.map_or(Ok(0..meta.size), |range| range.within(meta.size))?;
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(IO_CHUNK_BYTES);
        if range.start > 0 {
            file.seek(io::SeekFrom::Start(range.start)).await.map_err(|e| StoreError::io(&e))?;
        }
        let length = range.end - range.start;
        let capacity = usize::try_from(length).unwrap_or(IO_CHUNK_BYTES).clamp(1, IO_CHUNK_BYTES);
        let body = ReaderStream::with_capacity(file.take(length), capacity).map_err(|e| StoreError::io(&e)).boxed();
        Ok(Object { meta, range, body })
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let (path, kind) = (self.path(key), self.type_path(key));
        blocking(move || {
            ignore_missing(fs::remove_file(path))?;
            ignore_missing(fs::remove_file(kind))
        })
        .await
    }

    pub(super) async fn delete_under(&self, folder: &Key) -> Result<(), StoreError> {
        let folders = [self.path(folder), self.type_path(folder)];
        blocking(move || folders.iter().try_for_each(|folder| ignore_missing(fs::remove_dir_all(folder)))).await
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let path = self.root.join(".tmp");
        blocking(move || fs::metadata(path).map(drop)).await.map_err(of_directory)
    }

    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let temporary = Temporary(self.root.join(".tmp").join(Id::random().as_str()));
        let write = move || {
            let mut file = File::create_new(&temporary.0)?;
            file.write_all(b"probe")?;
            file.sync_all()
        };
        blocking(write).await.map_err(of_directory)
    }
}

/// An error about the store's own folders.
fn of_directory(error: StoreError) -> StoreError {
    match error {
        StoreError::NotFound => StoreError::Unavailable("the directory is gone".to_owned()),
        other => other,
    }
}

/// The path of a file that is removed unless it was moved to its place.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing to remove; one that can't be removed is found at a later start.
        let _ = fs::remove_file(&self.0);
    }
}

/// Moves a synced file to its place and syncs the folder. Answers false when `only_new` found one there.
fn publish(temporary: &Path, target: &Path, only_new: bool) -> io::Result<bool> {
    let folder = target.parent().ok_or(io::ErrorKind::NotFound)?;
    make_folders(folder)?;
    if only_new {
        match fs::hard_link(temporary, target) {
            Ok(()) => ignore_missing(fs::remove_file(temporary))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(error),
        }
    } else {
        fs::rename(temporary, target)?;
    }
    File::open(folder)?.sync_all()?;
    Ok(true)
}

/// Makes the folders that are missing and syncs the one above each, or a crash could lose them and what they hold.
pub(super) fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().ok_or(io::ErrorKind::NotFound)?;
    make_folders(above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(above)?.sync_all()
}

/// Chunks that wait to be written together.
#[derive(Default)]
pub(super) struct PendingChunks {
    chunks: Vec<Bytes>,
    pub(super) bytes: usize,
}

impl PendingChunks {
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        if !chunk.is_empty() {
            self.chunks.push(chunk);
        }
    }

    pub(super) fn take(&mut self) -> Vec<Bytes> {
        self.bytes = 0;
        std::mem::take(&mut self.chunks)
    }
}

/// Writes chunks at the file's position, without copying them together.
pub(super) async fn write(file: File, chunks: Vec<Bytes>) -> Result<File, StoreError> {
    if chunks.is_empty() {
        return Ok(file);
    }
    blocking(move || {
        let mut slices: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            match (&file).write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(file)
    })
    .await
}

/// Runs file work on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| StoreError::io(&error)),
        Err(_) => Err(StoreError::Unavailable("the program is ending".to_owned())),
    }
}

pub(super) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_missing(&error) => Ok(()),
        other => other,
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

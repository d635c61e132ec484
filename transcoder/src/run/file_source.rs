//! The recording as a file on this machine.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::error::RunError;
use crate::task_process;

/// A file on this machine.
pub(super) struct FileSource {
    file: Arc<std::fs::File>,
    size: u64,
}

impl FileSource {
    pub(super) fn open(path: &Path) -> Result<Self, RunError> {
        let usage = |what: String| RunError::Usage(format!("{}: {what}", path.display()));
        let unreadable = |cause: std::io::Error| match cause.kind() {
            std::io::ErrorKind::NotFound => usage("there is no such file".to_owned()),
            _ => usage(format!("can't be read: {cause}")),
        };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(usage("is not a file".to_owned()));
        }
        Ok(Self { file: Arc::new(file), size: metadata.len() })
    }
}

impl task_process::TaskSource for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&self, offset: u64, length: u32) -> std::io::Result<Bytes> {
        use std::os::unix::fs::FileExt;
        let file = self.file.clone();
        let read = move || {
            let mut bytes = vec![0; length as usize];
            let mut filled = 0;
            while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, offset.saturating_add(filled as u64)) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(cause) => return Err(cause),
                }
            }
            bytes.truncate(filled);
            Ok(Bytes::from(bytes))
        };
        tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?
    }
}

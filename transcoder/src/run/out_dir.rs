//! `OUT_DIR`: written to a directory beside it and renamed when complete. A failed run leaves nothing behind, and an
//! earlier output stays until the new one is complete.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::error::RunError;

/// The entries at the top of an output; there are no others.
const OUTPUT_NAMES: &[&str] = &["1", "master.m3u8", "manifest.mpd", "lesson.json"];

/// The directory under construction. It is locked for that time, so that a later run recognizes and removes what a killed
/// run left behind.
pub(super) struct OutDir {
    target: PathBuf,
    staging: TempDir,
    replaces: bool,
    _lock: File,
}

impl OutDir {
    /// Creates the directory beside `target`, which must not exist, be empty, or hold an earlier output.
    pub(super) fn prepare(target: &Path) -> Result<Self, RunError> {
        let usage = |what: &str| RunError::Usage(format!("{}: {what}", target.display()));
        let failed = |doing, cause| RunError::Output { doing, path: target.to_owned(), cause };
        let replaces = match fs::read_dir(target) {
            Ok(entries) => {
                let names: Vec<_> = entries
                    .map(|e| e.map(|e| e.file_name()))
                    .collect::<Result<_, _>>()
                    .map_err(|c| failed("reading", c))?;
                let ours = |name: &std::ffi::OsString| name.to_str().is_some_and(|name| OUTPUT_NAMES.contains(&name));
                let whole = names.iter().any(|n| n == "lesson.json") && names.iter().all(ours);
                if !names.is_empty() && !whole {
                    return Err(usage(
                        "is not empty, and holds other things than an earlier output; name a new directory",
                    ));
                }
                true
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => false,
            Err(cause) if cause.kind() == io::ErrorKind::NotADirectory => {
                return Err(usage("is a file; name a directory"));
            }
            Err(cause) => return Err(failed("reading", cause)),
        };
        let absolute = std::path::absolute(target).map_err(|cause| failed("finding", cause))?;
        let parent = absolute.parent().ok_or_else(|| usage("is no directory that can be made"))?;
        let name = absolute.file_name().ok_or_else(|| usage("has no name of its own"))?.to_string_lossy().into_owned();
        if !parent.is_dir() {
            return Err(usage(&format!("its parent {} is not there; make it first", parent.display())));
        }
        let prefix = format!(".{name}.making-");
        remove_abandoned(parent, &prefix);
        let unwritable = |cause| RunError::Output { doing: "writing into", path: parent.to_owned(), cause };
        loop {
            let staging = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).map_err(unwritable)?;
            let lock = File::open(staging.path()).map_err(unwritable)?;
            // Another run may just have removed it as abandoned. Without locks in the file system, only cleaning up is lost.
            let taken = matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) || !staging.path().is_dir();
            if !taken {
                return Ok(Self { target: absolute, staging, replaces, _lock: lock });
            }
        }
    }

    /// The directory of a version.
    pub(super) fn version_dir(&self, version: &str) -> Result<PathBuf, RunError> {
        let path = self.staging.path().join(version);
        fs::create_dir_all(&path).map_err(|cause| RunError::Output { doing: "making", path: path.clone(), cause })?;
        Ok(path)
    }

    /// Writes a file by its path in the output.
    pub(super) fn write(&self, path: &str, bytes: &[u8]) -> Result<(), RunError> {
        let path = self.staging.path().join(path);
        fs::write(&path, bytes).map_err(|cause| RunError::Output { doing: "writing", path, cause })
    }

    /// Renames the directory to its target.
    pub(super) fn publish(self) -> Result<(), RunError> {
        let Self { target, staging, replaces, _lock } = self;
        let failed = |cause| RunError::Output { doing: "moving the output to", path: target.clone(), cause };
        fs::set_permissions(staging.path(), fs::Permissions::from_mode(0o755)).map_err(failed)?;
        if replaces && exchange(staging.path(), &target).is_ok() {
            // The new output is in place; failing to remove the old one is no error.
            let _ = fs::remove_dir_all(staging.path());
        } else if replaces {
            let old = staging.path().with_extension("old");
            fs::rename(&target, &old).map_err(failed)?;
            if let Err(cause) = fs::rename(staging.path(), &target) {
                let _ = fs::rename(&old, &target);
                return Err(failed(cause));
            }
            let _ = fs::remove_dir_all(&old);
        } else {
            fs::rename(staging.path(), &target).map_err(failed)?;
        }
        // Renamed away, so there is nothing left to remove.
        let _ = staging.keep();
        Ok(())
    }
}

/// Exchanges two directories atomically, if the file system can.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// Removes directories of runs that are gone: nobody holds their lock.
fn remove_abandoned(parent: &Path, prefix: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        let abandoned = || File::open(entry.path()).is_ok_and(|lock| lock.try_lock().is_ok());
        if ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) && abandoned() {
            // Failing to remove one is no error of this run.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

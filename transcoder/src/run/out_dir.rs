//! `OUT_DIR`: made beside its place under another name, and renamed when all is there, so that a run that fails
//! leaves nothing half-made and an earlier output stays until the new one is whole.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::error::RunError;

/// What stands at the top of an output, and nothing else.
const OURS: &[&str] = &["1", "master.m3u8", "manifest.mpd", "lesson.json"];

/// The directory that is being made. It is held by a lock for as long as it is being made, so that what a run left
/// behind that had no time to tidy up is known, and removed by the next one.
pub(super) struct OutDir {
    place: PathBuf,
    made: TempDir,
    replaces: bool,
    _lock: File,
}

impl OutDir {
    /// Makes the directory beside `place`, which must be free, empty, or an earlier output.
    pub(super) fn prepare(place: &Path) -> Result<Self, RunError> {
        let usage = |what: &str| RunError::Usage(format!("{}: {what}", place.display()));
        let failed = |doing, cause| RunError::Output { doing, path: place.to_owned(), cause };
        let replaces = match fs::read_dir(place) {
            Ok(entries) => {
                let names: Vec<_> = entries
                    .map(|e| e.map(|e| e.file_name()))
                    .collect::<Result<_, _>>()
                    .map_err(|c| failed("reading", c))?;
                let ours = |name: &std::ffi::OsString| name.to_str().is_some_and(|name| OURS.contains(&name));
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
        let absolute = std::path::absolute(place).map_err(|cause| failed("finding", cause))?;
        let parent = absolute.parent().ok_or_else(|| usage("is no directory that can be made"))?;
        let name = absolute.file_name().ok_or_else(|| usage("has no name of its own"))?.to_string_lossy().into_owned();
        if !parent.is_dir() {
            return Err(usage(&format!("its parent {} is not there; make it first", parent.display())));
        }
        let prefix = format!(".{name}.making-");
        remove_abandoned(parent, &prefix);
        let unwritable = |cause| RunError::Output { doing: "writing into", path: parent.to_owned(), cause };
        loop {
            let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).map_err(unwritable)?;
            let lock = File::open(made.path()).map_err(unwritable)?;
            // Another run may just have taken it for one that was left behind. A file system without locks only loses
            // the tidying up.
            let taken = matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) || !made.path().is_dir();
            if !taken {
                return Ok(Self { place: absolute, made, replaces, _lock: lock });
            }
        }
    }

    /// The directory of a version.
    pub(super) fn version_dir(&self, version: &str) -> Result<PathBuf, RunError> {
        let path = self.made.path().join(version);
        fs::create_dir_all(&path).map_err(|cause| RunError::Output { doing: "making", path: path.clone(), cause })?;
        Ok(path)
    }

    /// Writes a file by its path in the output.
    pub(super) fn write(&self, path: &str, bytes: &[u8]) -> Result<(), RunError> {
        let path = self.made.path().join(path);
        fs::write(&path, bytes).map_err(|cause| RunError::Output { doing: "writing", path, cause })
    }

    /// Puts it in its place.
    pub(super) fn publish(self) -> Result<(), RunError> {
        let Self { place, made, replaces, _lock } = self;
        let failed = |cause| RunError::Output { doing: "putting the output in its place,", path: place.clone(), cause };
        fs::set_permissions(made.path(), fs::Permissions::from_mode(0o755)).map_err(failed)?;
        if replaces && exchange(made.path(), &place).is_ok() {
            // The new one stands; an old one that can't be removed is no failure of this run.
            let _ = fs::remove_dir_all(made.path());
        } else if replaces {
            let old = made.path().with_extension("old");
            fs::rename(&place, &old).map_err(failed)?;
            if let Err(cause) = fs::rename(made.path(), &place) {
                let _ = fs::rename(&old, &place);
                return Err(failed(cause));
            }
            let _ = fs::remove_dir_all(&old);
        } else {
            fs::rename(made.path(), &place).map_err(failed)?;
        }
        // Renamed away, so there is nothing left to remove.
        let _ = made.keep();
        Ok(())
    }
}

/// Puts each of two directories in the other's place at once, where the file system can.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// Removes what runs began that are no more: nobody holds its lock.
fn remove_abandoned(parent: &Path, prefix: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        let abandoned = || File::open(entry.path()).is_ok_and(|lock| lock.try_lock().is_ok());
        if ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) && abandoned() {
            // One that can't be removed is no failure of this run.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

//! What is kept is nobody else's: recordings and the catalogue are closed to the other users of the machine.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Makes a directory with mode 0700, and its parents as the process makes them; one that exists is closed to others.
pub(crate) fn directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        close(path);
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Makes an empty file with mode 0600; one that exists is closed to others.
pub(crate) fn file(path: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            close(path);
            Ok(())
        }
        made => made.map(drop),
    }
}

/// Takes reading, writing and entering from users who are neither the owner nor of the group.
pub(crate) fn close(path: &Path) {
    let closed = fs::metadata(path).and_then(|meta| {
        let mode = meta.permissions().mode();
        if mode & 0o007 == 0 {
            return Ok(());
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode & !0o007))
    });
    match closed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "this can't be closed to other users of the machine");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_private_and_what_exists_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (folder, old) = (dir.path().join("a/b"), dir.path().join("old"));
        directory(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
        fs::write(&old, "x").unwrap();
        fs::set_permissions(&old, fs::Permissions::from_mode(0o644)).unwrap();
        file(&old).unwrap();
        assert_eq!((mode(&old), fs::read_to_string(&old).unwrap().as_str()), (0o640, "x"));
        file(&folder.join("new")).unwrap();
        assert_eq!(mode(&folder.join("new")), 0o600);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        directory(&folder).unwrap();
        assert_eq!(mode(&folder), 0o750);
    }
}

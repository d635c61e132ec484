//! Programs and paths as arguments of commands.

use std::path::{Path, PathBuf};

use super::error::{Result, TranscodeError};

/// The program beside this one.
pub(super) fn program(name: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join(name)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name))
}

/// A path as text.
pub(super) fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| TranscodeError(format!("{}: a path that is no text", path.display())))
}

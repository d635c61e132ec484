//! Errors of keys, key files and key sets.

use std::path::{Path, PathBuf};

/// What is wrong with a key, a key file or a set.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or directory can't be read or written.
    #[error("{}: {what}: {cause}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What could not be done with it.
        what: &'static str,
        /// Why.
        cause: std::io::Error,
    },
    /// The content of a file is wrong.
    #[error("{}: {what}", path.display())]
    Invalid {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        what: Box<KeyError>,
    },
    /// A key or key document is malformed.
    #[error("{0}")]
    Malformed(String),
    /// It is well formed and not accepted.
    #[error("{0}")]
    Unsupported(String),
}

impl KeyError {
    pub(super) fn content(path: &Path, what: Self) -> Self {
        Self::Invalid { path: path.to_owned(), what: Box::new(what) }
    }

    pub(super) fn file(path: &Path, what: &'static str, cause: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), what, cause }
    }
}

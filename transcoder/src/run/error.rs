//! Why a run fails, with the stable code of each reason.

use std::path::PathBuf;

use crate::ipc::Failure;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// Wrong usage: arguments or input files.
    #[error("{0}")]
    Usage(String),
    /// A task failed: unsuitable recording or internal error.
    #[error("{0}")]
    Task(#[from] Failure),
    /// Writing the output failed.
    #[error("{}: {doing} {}: {cause}", output_code(cause), path.display())]
    Output {
        /// The operation, such as "writing".
        doing: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// Stopped by a signal.
    #[error("interrupted: stopped by a signal, nothing was left behind")]
    Interrupted,
}

/// A full disk has a code of its own, as the user can act on it.
fn output_code(cause: &std::io::Error) -> &'static str {
    match cause.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => "output_full",
        _ => "output_failed",
    }
}

impl RunError {
    /// The stable code.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Usage(_) => "usage",
            Self::Task(failure) => &failure.code,
            Self::Output { cause, .. } => output_code(cause),
            Self::Interrupted => "interrupted",
        }
    }
}

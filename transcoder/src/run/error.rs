//! Why a run fails, with the stable code of each reason.

use std::path::PathBuf;

use crate::ipc::Failure;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// The call is wrong.
    #[error("{0}")]
    Usage(String),
    /// The recording or the machinery.
    #[error("{0}")]
    Task(#[from] Failure),
    /// The disk.
    #[error("{}: {doing} {}: {cause}", output_code(cause), path.display())]
    Output {
        /// What was under way.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// A signal.
    #[error("interrupted: stopped by a signal, nothing was left behind")]
    Interrupted,
}

/// A full disk is told apart: there the user can do something.
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

//! Why a benchmark stops.

/// What stops a benchmark: a program that is missing or fails.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct TranscodeError(pub(super) String);

pub(super) type Result<T> = std::result::Result<T, TranscodeError>;

pub(super) fn failed(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> TranscodeError {
    let what = what.to_string();
    move |cause| TranscodeError(format!("{what}: {cause}"))
}

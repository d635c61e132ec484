//! Why a benchmark stops.

/// What stops a benchmark: a program that is missing, a server that does not answer as it should.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct BenchError(pub(super) String);

impl BenchError {
    pub(super) fn new(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}

//! Why a measurement stops.

/// What stops a measurement.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct LoadError(pub(super) String);

impl LoadError {
    pub(super) fn new(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}

/// For `map_err`: names what failed.
pub(super) fn failed(what: &str) -> impl FnOnce(std::io::Error) -> LoadError {
    let what = what.to_owned();
    move |error| LoadError::new(format!("{what}: {error}"))
}

//! Why a command failed, as its exit code has it.

use std::fmt::Display;
use std::path::Path;

use lyceum_core::config::ConfigError;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// Usage, configuration, a missing input file: exit code 2.
    Usage(String),
    /// Anything else: exit code 1.
    Other(String),
}

impl Failure {
    /// Anything but usage.
    pub fn other(error: impl Display) -> Self {
        Self::Other(error.to_string())
    }

    /// Usage, configuration or a missing input file.
    pub fn usage(error: impl Display) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

/// Refuses what is no file that can be read.
pub(super) fn readable(file: &Path) -> Result<(), Failure> {
    let opened = std::fs::File::open(file).and_then(|opened| opened.metadata());
    match opened {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(Failure::usage(format!("{}: is not a file", file.display()))),
        Err(cause) => Err(Failure::usage(format!("{}: can't be read: {cause}", file.display()))),
    }
}

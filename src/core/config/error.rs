//! What can be wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

use super::key_path::KeyPath;

/// A fault, by its key; the reader of the file knows the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key to blame.
    pub key: KeyPath,
    /// One sentence: what is wrong, and what would be right.
    pub what: String,
}

impl Fault {
    /// A fault at a key such as `route[1].pool`.
    pub fn at(key: &str, what: impl fmt::Display) -> Self {
        Self { key: KeyPath::parse(key), what: what.to_string() }
    }
}

/// A fault with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The line, from 1.
    pub line: usize,
    /// The dotted key, where one is to blame; elements of a list are told apart by their lines.
    pub key: Option<String>,
    /// One sentence.
    pub what: String,
}

/// What is wrong with a configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{}: can't be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Keys, values or the syntax; displayed as one line for each finding.
    #[error("{}", lines(path, findings))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong, by line.
        findings: Vec<Finding>,
    },
}

fn lines(path: &std::path::Path, findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let key = finding.key.as_ref().map(|key| format!("`{key}`: ")).unwrap_or_default();
        format!("{}:{}: {key}{}", path.display(), finding.line, finding.what)
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

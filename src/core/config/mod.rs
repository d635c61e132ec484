//! Reads configuration: TOML with `${NAME}` inside values, turned into a role's own configuration type.
//!
//! A file is read to its end: every fault is reported, each as one line with file, line, key and what would be right.
//! Modules own their part of the configuration and its bounds; this module knows none of them.

mod document;
mod environment;
mod error;
mod key_path;
mod read;
mod repair;
mod suggest;

pub use error::{ConfigError, Fault, Finding};
pub use key_path::KeyPath;
pub use read::{Across, Loaded, check, load, load_checked, parse};
pub use suggest::nearest;

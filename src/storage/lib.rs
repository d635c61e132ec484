//! Where Lyceum keeps things: the database (SQLite or PostgreSQL), the object store (a directory or S3), resumable
//! uploads into it, and the queue of tasks.
//!
//! Knows nothing of HTTP or of what rows and objects mean: `catalog` and `origin` do.
#![forbid(unsafe_code)]

pub mod db;
mod private;
pub mod queue;
pub mod store;
pub mod upload;

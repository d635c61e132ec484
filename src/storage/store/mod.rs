//! The object store: a directory, or a bucket that speaks S3. Objects appear whole or not at all, keep their
//! content type, and are read by ranges; both ways stream with bounded memory.
//!
//! An upload *grows* in the store ([`Store::grow`]): bytes are written as they arrive, a checkpoint makes them
//! durable, and what is needed to go on after a crash, on whichever machine, is a small [`Growth`] that the caller
//! keeps. This module knows no lesson, no upload and no HTTP.

mod buffers;
pub(crate) mod config;
pub(crate) mod directory;
pub(crate) mod directory_append;
pub(crate) mod error;
pub(crate) mod growth;
pub(crate) mod key;
pub(crate) mod object;
pub(crate) mod object_store;
pub(crate) mod s3;
pub(crate) mod s3_multipart;

pub use config::{Checksums, Config, S3Config};
pub use error::StoreError;
pub use growth::{BackgroundCheckpoint, GrowingObject, Growth};
pub use key::{InvalidKey, Key};
pub use object::{Body, ByteRange, Meta, Object, body_of, read_all};
pub use object_store::Store;

#[cfg(test)]
mod tests;

//! Uploads after tus 1.0 (<https://tus.io/protocols/resumable-upload>): core, creation, creation-with-upload,
//! creation-defer-length, termination, checksum, expiration and concatenation, as a state machine over the store.
//!
//! Bytes go to the store as they arrive. *Acknowledged* means stored: the length that a client is told was made
//! durable first and then committed. Of two requests for one upload the newest wins, on whichever origin it arrives:
//! it takes a higher ticket; the older writer sees that, saves what it has, and stops. Nothing here knows HTTP or what
//! happens to an upload that is whole.

pub(crate) mod concatenation;
pub(crate) mod config;
pub(crate) mod error;
pub mod headers;
pub(crate) mod record;
pub(crate) mod takeover;
pub(crate) mod uploads;
pub(crate) mod writer;

pub use config::Config;
pub use error::UploadError;
pub use record::{Upload, UploadKind, UploadState, transfer};
pub use uploads::{NewUpload, Uploads, announced, lengths, source_key};
pub use writer::{AppendRequest, Appended, IncomingBytes};

#[cfg(test)]
mod tests;

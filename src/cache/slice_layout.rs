//! How the body of a large response is divided into slices, each stored under a key of its own.

use serde::{Deserialize, Serialize};

use crate::entry_id::random_id;
use lyceum_http::range::ByteRange;

/// The slices of one representation, of known length and with a strong entity tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceLayout {
    /// The length of the whole body, in bytes.
    pub length: u64,
    /// The length of each slice but the last, in bytes.
    pub size: u64,
    /// Part of the slices' keys, so that slices of another representation are never found.
    pub(super) id: u64,
}

impl SliceLayout {
    /// Slices of `size` bytes for a body of `length` bytes, with an id of their own.
    pub fn new(length: u64, size: u64) -> Self {
        Self { length, size: size.max(1), id: random_id() }
    }

    /// The number of the slice that holds a byte.
    pub fn holding(&self, byte: u64) -> u64 {
        byte / self.size.max(1)
    }

    /// The bytes of a slice; none past the end of the body.
    pub fn span(&self, slice: u64) -> Option<ByteRange> {
        let first = slice.checked_mul(self.size).filter(|first| *first < self.length)?;
        Some(ByteRange { first, last: first.saturating_add(self.size).min(self.length).saturating_sub(1) })
    }

    /// The key of a slice. A line feed occurs in no primary key.
    pub fn key(&self, primary: &str, slice: u64) -> String {
        format!("{primary}\n={:016x}/{slice}", self.id)
    }
}

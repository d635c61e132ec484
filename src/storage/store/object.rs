//! Objects, their parts, and the bytes on their way in or out.

use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};

use crate::store::error::StoreError;

/// Bytes on their way in or out.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// An object's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Its whole size in bytes.
    pub size: u64,
    /// A strong entity tag with its quotes (RFC 9110, section 8.8.3).
    pub etag: String,
    /// Its media type.
    pub content_type: String,
}

/// An object, or the part of it that was asked for.
pub struct Object {
    /// About the whole object.
    pub meta: Meta,
    /// The part that `body` gives: first byte and the one after the last.
    pub range: Range<u64>,
    /// The bytes of `range`.
    pub body: Body,
}

/// A part of an object (RFC 9110, section 14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first to the last byte, both included; a last byte beyond the end means the end.
    Between(u64, u64),
    /// From this byte to the end.
    From(u64),
    /// The last so many bytes.
    Last(u64),
}

impl ByteRange {
    /// First byte and the one after the last, within `size`.
    pub fn within(self, size: u64) -> Result<Range<u64>, StoreError> {
        let (start, end) = match self {
            Self::Between(first, last) => (first, last.saturating_add(1).min(size)),
            Self::From(first) => (first, size),
            Self::Last(count) => (size.saturating_sub(count), size),
        };
        if start >= end { Err(StoreError::RangeNotSatisfiable { size }) } else { Ok(start..end) }
    }
}

/// A body of bytes in memory.
pub fn body_of(bytes: Bytes) -> Body {
    futures_util::stream::once(std::future::ready(Ok(bytes))).boxed()
}

/// A whole body in memory, refused when it is larger than `limit` bytes.
pub async fn read_all(mut body: Body, limit: usize) -> Result<Bytes, StoreError> {
    let mut all = bytes::BytesMut::new();
    while let Some(chunk) = body.try_next().await? {
        if all.len() + chunk.len() > limit {
            return Err(StoreError::Refused(format!("the object is larger than {limit} bytes")));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

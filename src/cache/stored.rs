//! One stored response.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::semantics::freshness::Freshness;

/// A response with its whole body.
#[derive(Debug)]
pub struct Stored {
    /// The status.
    pub status: StatusCode,
    /// The end-to-end fields, as the origin sent them.
    pub headers: HeaderMap,
    /// The body in one piece; clones share it.
    pub body: Bytes,
    /// How long it may be used.
    pub freshness: Freshness,
    /// The request fields that chose it (`Vary`), with the values they had.
    pub vary: Vec<(http::HeaderName, Option<http::HeaderValue>)>,
    /// What purges by tag go by.
    pub tags: Vec<Box<str>>,
    /// The header block as delivered, made by whoever delivers it first.
    pub prepared: OnceLock<HeaderMap>,
}

impl Stored {
    /// Bytes that it takes, roughly: body, fields, key and the table's own.
    pub(super) fn weight(&self, key: &str) -> u32 {
        let fields: usize = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
        // The fields once more for the prepared block.
        u32::try_from(self.body.len() + fields * 2 + key.len() + 512).unwrap_or(u32::MAX)
    }

    /// A copy that counts as stale; the body is shared.
    pub(super) fn expired(&self) -> Self {
        self.with(self.headers.clone(), self.freshness.expired())
    }

    /// A copy with other fields and freshness; the body is shared.
    pub fn with(&self, headers: HeaderMap, freshness: Freshness) -> Self {
        Self {
            status: self.status,
            headers,
            body: self.body.clone(),
            freshness,
            vary: self.vary.clone(),
            tags: self.tags.clone(),
            prepared: OnceLock::new(),
        }
    }

    /// Whether a request with these fields would have chosen this response (RFC 9111, section 4.1).
    pub fn chosen_by(&self, request: &HeaderMap) -> bool {
        self.vary.iter().all(|(name, value)| {
            let mut all = request.get_all(name).iter();
            all.next() == value.as_ref() && all.next().is_none()
        })
    }
}

//! One stored response.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};

use crate::semantics::fields;
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
    /// The request fields that chose it.
    pub vary: Vary,
    /// With `vary`: whether this only says so, and the responses lie under keys of their own.
    pub(super) signpost: Option<u64>,
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
            signpost: self.signpost,
            tags: self.tags.clone(),
            prepared: OnceLock::new(),
        }
    }
}

/// The request fields that a response was chosen by (RFC 9110, section 12.5.5), with the values they had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vary(Vec<(HeaderName, Option<String>)>);

/// The most fields that a response may be chosen by.
const MAX_VARY: usize = 16;

impl Vary {
    /// What `response` names, as `request` had it; of more than 16 fields the response counts as chosen by nothing
    /// that could come again.
    pub fn of(names: impl Iterator<Item = HeaderName>, request: &HeaderMap) -> Self {
        let mut names: Vec<HeaderName> = names.take(MAX_VARY).collect();
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Self(names.into_iter().map(|name| (name.clone(), fields::normalised(request, &name))).collect())
    }

    /// Whether nothing chose.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request with these fields would have been given the same (RFC 9111, section 4.1).
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, value)| fields::normalised(request, name) == *value)
    }

    /// The same fields as another request has them.
    pub(super) fn for_request(&self, request: &HeaderMap) -> Self {
        Self(self.0.iter().map(|(name, _)| (name.clone(), fields::normalised(request, name))).collect())
    }

    pub(super) fn same_names(&self, other: &Self) -> bool {
        self.0.iter().map(|(name, _)| name).eq(other.0.iter().map(|(name, _)| name))
    }

    /// The key of the response that was chosen so. A line feed stands in no key.
    pub(super) fn key(&self, primary: &str, signpost: u64) -> String {
        let mut key = format!("{primary}\n{signpost}");
        for (_, value) in &self.0 {
            key.push('\n');
            key.push_str(value.as_deref().unwrap_or("\u{0}"));
        }
        key
    }
}

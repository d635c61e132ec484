//! One stored response.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use crate::cpu_prefetch::prefetch;
use crate::header_block::{HeaderBlock, together};
use crate::key::Key;
use crate::prefetch_budget::PrefetchTicket;
use crate::slice_layout::SliceLayout;
use crate::vary::Vary;
use lyceum_http::freshness::Freshness;

/// What an entry takes beside its parts: itself, its slot in the table, the allocator's overhead.
const ENTRY_OVERHEAD_BYTES: usize = 900;
/// What a header field takes beside its text.
const FIELD_OVERHEAD_BYTES: usize = 48;

/// What a header map made for so many fields takes: slots in powers of two, three quarters of them used.
fn header_map_bytes(fields: usize) -> usize {
    let slots = (fields + fields / 3).next_power_of_two().max(8);
    slots / 4 * 3 * 104 + slots * 4
}

/// A copy that shares no memory: what comes from a connection is a small piece of a large buffer, which it would keep
/// alive for as long as it is stored.
pub(super) fn own(headers: &HeaderMap) -> HeaderMap {
    together(headers)
}

/// What an entry is. Files on disk have the variants' serialised names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum EntryKind {
    /// A response with its body.
    Whole,
    /// No response: its `vary` names the request fields that select one. The responses lie under keys made with this
    /// number; see [`Vary::key`].
    #[serde(rename = "Signpost")]
    VaryMarker(u64),
    /// A response whose body lies in slices, each an entry of its own.
    Sliced(SliceLayout),
}

/// A stored response: with its whole body, with the layout of its slices, or a marker that leads to variants.
///
/// The fields that a hit reads come first, so that they lie in neighbouring cache lines.
#[derive(Debug)]
#[repr(C)]
pub struct StoredResponse {
    /// The key that it is stored under, once it is.
    pub(super) key: OnceLock<Key>,
    /// The header block as delivered, made at the first delivery.
    pub prepared: OnceLock<HeaderBlock>,
    /// The body in one piece; clones share it.
    pub body: Bytes,
    /// How long it may be used.
    pub freshness: Freshness,
    pub(super) kind: EntryKind,
    /// Where it was fetched before any request for it.
    pub(super) prefetch: Option<PrefetchTicket>,
    /// The status.
    pub status: StatusCode,
    /// The end-to-end fields, as the origin sent them.
    pub headers: HeaderMap,
    /// The request fields that selected it.
    pub vary: Vary,
    /// The tags that purges by tag match.
    pub tags: Vec<Box<str>>,
}

impl StoredResponse {
    /// A response with its whole body.
    pub fn whole(status: StatusCode, headers: HeaderMap, body: Bytes, freshness: Freshness) -> Self {
        Self {
            key: OnceLock::new(),
            prepared: OnceLock::new(),
            body,
            freshness,
            kind: EntryKind::Whole,
            prefetch: None,
            status,
            headers,
            vary: Vary::default(),
            tags: Vec::new(),
        }
    }

    /// The key that it is stored under; empty before it is.
    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        self.key.get().map_or(b"", Key::bytes)
    }

    /// The body for one response to a client. It holds a reference to this entry, whose count a hit has touched already: a
    /// clone of the body would touch a count in other memory.
    #[inline]
    pub fn body_for_answer(self: &Arc<Self>) -> Bytes {
        struct Held(Arc<StoredResponse>);
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.0.body
            }
        }
        Bytes::from_owner(Held(Arc::clone(self)))
    }

    /// The length of the representation, in bytes.
    #[inline]
    pub fn length(&self) -> u64 {
        match &self.kind {
            EntryKind::Sliced(slices) => slices.length,
            EntryKind::Whole | EntryKind::VaryMarker(_) => self.body.len() as u64,
        }
    }

    /// Whether it was prefetched and this is the first request for it.
    #[inline]
    pub fn is_first_use(&self) -> bool {
        self.prefetch.as_ref().is_some_and(PrefetchTicket::redeem)
    }

    /// Whether it was prefetched and not requested yet.
    #[inline]
    pub fn awaits_first_use(&self) -> bool {
        self.prefetch.as_ref().is_some_and(PrefetchTicket::is_unused)
    }

    /// How the body is divided into slices, where it is; `body` is empty then.
    #[inline]
    pub fn sliced(&self) -> Option<&SliceLayout> {
        match &self.kind {
            EntryKind::Sliced(slices) => Some(slices),
            EntryKind::Whole | EntryKind::VaryMarker(_) => None,
        }
    }

    /// Has the processor fetch the parts of a response that lie in other memory than this entry.
    #[inline]
    pub(super) fn prefetch(&self) {
        if let Some(block) = self.prepared.get() {
            block.prefetch();
        }
        prefetch(&*self.body);
    }

    /// The number of a marker; none for a response.
    #[inline]
    pub(super) fn vary_marker(&self) -> Option<u64> {
        match self.kind {
            EntryKind::VaryMarker(number) => Some(number),
            EntryKind::Whole | EntryKind::Sliced(_) => None,
        }
    }

    /// Where this is the marker under `key`: the key of the variant for a request with these fields.
    #[inline]
    pub(super) fn variant_key(&self, key: &str, request: &HeaderMap) -> Option<String> {
        self.vary_marker().map(|marker| self.vary.for_request(request).key(key, marker))
    }

    /// Bytes that it takes: body, key, fields as they are stored and as they are delivered, and overhead.
    pub(super) fn weight(&self, key: &str) -> u32 {
        let text = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        // Twice: as they are stored and as they are delivered.
        let fields: usize = text.map(|text| text * 2 + FIELD_OVERHEAD_BYTES).sum();
        u32::try_from(
            self.body.len() + fields + header_map_bytes(self.headers.len()) + key.len() * 2 + ENTRY_OVERHEAD_BYTES,
        )
        .unwrap_or(u32::MAX)
    }

    /// A copy that is stale from `at_ms` on; the body is shared.
    pub(super) fn ended_at(&self, at_ms: i64) -> Self {
        self.with(self.headers.clone(), self.freshness.ended_at(at_ms))
    }

    /// A copy to be stored under another key; the body is shared.
    pub(super) fn under(&self, key: &str) -> Self {
        Self { key: OnceLock::from(Key::from(key)), ..self.with(self.headers.clone(), self.freshness.clone()) }
    }

    /// A copy with other fields and freshness; the body is shared.
    pub fn with(&self, headers: HeaderMap, freshness: Freshness) -> Self {
        Self {
            kind: self.kind.clone(),
            vary: self.vary.clone(),
            tags: self.tags.clone(),
            ..Self::whole(self.status, own(&headers), self.body.clone(), freshness)
        }
    }
}

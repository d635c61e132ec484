//! One stored response.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use serde::{Deserialize, Serialize};

use super::PrefetchTicket;
use super::cpu_prefetch::prefetch;
use super::header_block::{HeaderBlock, together};
use super::key::Key;
use lyceum_http::fields;
use lyceum_http::freshness::Freshness;
use lyceum_http::range::Span;

/// What an entry takes beside its parts: itself, its place in the table, allocations' own.
const ENTRY_OVERHEAD_BYTES: usize = 900;
/// What a field takes beside its text, where it is not the same for many.
const FIELD_OVERHEAD_BYTES: usize = 48;

/// What a header map made for `fields` takes: slots in powers of two, three quarters of them used.
fn header_map_bytes(fields: usize) -> usize {
    let slots = (fields + fields / 3).next_power_of_two().max(8);
    slots / 4 * 3 * 104 + slots * 4
}

/// A copy that shares no memory with anything: what comes from a connection is a small piece of a large buffer, which it
/// would keep for as long as it is stored.
pub(super) fn own(headers: &HeaderMap) -> HeaderMap {
    together(headers)
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum EntryKind {
    /// A response with its body.
    Whole,
    /// With `vary`: the responses that the request fields choose from lie under keys of their own, made with this number.
    Signpost(u64),
    /// A response whose body lies beside it in slices.
    Sliced(SliceLayout),
}

/// How a body lies in slices: a representation of known length with a strong entity tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceLayout {
    /// The length of the whole body.
    pub length: u64,
    /// The length of each slice but the last.
    pub size: u64,
    /// Part of the slices' keys, so that those of another representation are never found.
    pub(super) id: u64,
}

impl SliceLayout {
    /// Slices of `size` bytes for a body of `length` bytes, under a number of their own.
    pub fn new(length: u64, size: u64) -> Self {
        Self { length, size: size.max(1), id: super::number() }
    }

    /// The slice that holds a byte.
    pub fn holding(&self, byte: u64) -> u64 {
        byte / self.size.max(1)
    }

    /// The bytes of a slice; none beyond the end.
    pub fn span(&self, slice: u64) -> Option<Span> {
        let first = slice.checked_mul(self.size).filter(|first| *first < self.length)?;
        Some(Span { first, last: first.saturating_add(self.size).min(self.length).saturating_sub(1) })
    }

    /// The key of a slice. A line feed stands in no key of a response.
    pub fn key(&self, primary: &str, slice: u64) -> String {
        format!("{primary}\n={:016x}/{slice}", self.id)
    }
}

/// A response with its whole body, or with what leads to it.
///
/// What a hit reads comes first, so that it lies in neighbouring lines of memory.
#[derive(Debug)]
#[repr(C)]
pub struct Stored {
    /// What it is stored under, once it is.
    pub(super) key: OnceLock<Key>,
    /// The header block as delivered, made by whoever delivers it first.
    pub prepared: OnceLock<HeaderBlock>,
    /// The body in one piece; clones share it.
    pub body: Bytes,
    /// How long it may be used.
    pub freshness: Freshness,
    /// What this entry is.
    pub(super) kind: EntryKind,
    /// Where it was fetched before anyone asked.
    pub(super) ahead: Option<PrefetchTicket>,
    /// The status.
    pub status: StatusCode,
    /// The end-to-end fields, as the origin sent them.
    pub headers: HeaderMap,
    /// The request fields that chose it.
    pub vary: Vary,
    /// What purges by tag go by.
    pub tags: Vec<Box<str>>,
}

impl Stored {
    /// A response with its whole body.
    pub fn whole(status: StatusCode, headers: HeaderMap, body: Bytes, freshness: Freshness) -> Self {
        Self {
            key: OnceLock::new(),
            prepared: OnceLock::new(),
            body,
            freshness,
            kind: EntryKind::Whole,
            ahead: None,
            status,
            headers,
            vary: Vary::default(),
            tags: Vec::new(),
        }
    }

    /// What it is stored under.
    pub(super) fn key(&self) -> &[u8] {
        self.key.get().map_or(b"", Key::bytes)
    }

    /// The body for one answer: it holds the response, whose count of references is at hand, where a copy would count its own
    /// somewhere else.
    pub fn body_for_answer(self: &Arc<Self>) -> Bytes {
        struct Held(Arc<Stored>);
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.0.body
            }
        }
        Bytes::from_owner(Held(Arc::clone(self)))
    }

    /// The length of the representation, in bytes.
    pub fn length(&self) -> u64 {
        match &self.kind {
            EntryKind::Sliced(sliced) => sliced.length,
            EntryKind::Whole | EntryKind::Signpost(_) => self.body.len() as u64,
        }
    }

    /// Whether it was fetched ahead and is now asked for the first time.
    pub fn is_first_use(&self) -> bool {
        self.ahead.as_ref().is_some_and(PrefetchTicket::take)
    }

    /// Whether it was fetched ahead and nobody has asked for it yet.
    pub fn awaits_first_use(&self) -> bool {
        self.ahead.as_ref().is_some_and(PrefetchTicket::is_unused)
    }

    /// How the body lies in slices, where it does; `body` is empty then.
    pub fn sliced(&self) -> Option<&SliceLayout> {
        match &self.kind {
            EntryKind::Sliced(sliced) => Some(sliced),
            EntryKind::Whole | EntryKind::Signpost(_) => None,
        }
    }

    /// Asks memory for what an answer is made of, as far as it lies apart.
    pub(super) fn prefetch(&self) {
        if let Some(block) = self.prepared.get() {
            block.prefetch();
        }
        prefetch(&*self.body);
    }

    pub(super) fn signpost(&self) -> Option<u64> {
        match self.kind {
            EntryKind::Signpost(number) => Some(number),
            EntryKind::Whole | EntryKind::Sliced(_) => None,
        }
    }

    /// Bytes that it takes: body, key, fields as they are stored and as they are delivered, and the table's own.
    pub(super) fn weight(&self, key: &str) -> u32 {
        let text = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        // As they are stored and as they are delivered.
        let fields: usize = text.map(|text| text * 2 + FIELD_OVERHEAD_BYTES).sum();
        u32::try_from(
            self.body.len() + fields + header_map_bytes(self.headers.len()) + key.len() * 2 + ENTRY_OVERHEAD_BYTES,
        )
        .unwrap_or(u32::MAX)
    }

    /// A copy whose life has ended at `at_ms`; the body is shared.
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

/// The request fields that a response was chosen by (RFC 9110, section 12.5.5), with the values they had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vary(Vec<(HeaderName, Option<String>)>);

impl Vary {
    /// The fields that a response names, as `request` had them. What names too many is never stored.
    pub fn of(names: impl Iterator<Item = HeaderName>, request: &HeaderMap) -> Self {
        let mut names: Vec<HeaderName> = names.collect();
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

    /// Names and values, as a file holds them.
    pub(super) fn fields(&self) -> Vec<(String, Option<String>)> {
        self.0.iter().map(|(name, value)| (name.as_str().to_owned(), value.clone())).collect()
    }

    pub(super) fn from_fields(fields: Vec<(String, Option<String>)>) -> Option<Self> {
        let named = |(name, value): (String, _)| Some((HeaderName::try_from(name).ok()?, value));
        fields.into_iter().map(named).collect::<Option<_>>().map(Self)
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

//! An origin's response: whether it answers the request, and what its fields say about storing it.
//!
//! Origins are not trusted. A response that does not fit its request (a part of another length, a 304 without a
//! condition, a coding that was not asked for) is an error or passes unstored; it never becomes a stored response.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};

use super::key::FetchRequest;
use crate::config;
use lyceum_cache::{StoredResponse, Vary};
use lyceum_http::cache_control::CDN_CACHE_CONTROL;
use lyceum_http::conditional::ETag;
use lyceum_http::fields;
use lyceum_http::range::{self, ByteRange};
use lyceum_upstream::{Failure, FetchError, UpstreamResponse};

/// Tags that are kept of one response.
const MAX_TAGS: usize = 64;

/// How much of a representation an origin is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OriginRange {
    /// All of it.
    Whole,
    /// A slice; the response tells whether the representation is large.
    Slice(ByteRange),
    /// The client's own range, for this client only.
    AsRequested,
}

/// Statuses in whose place a stale response may be used (RFC 5861, section 4).
pub(crate) fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

pub(crate) fn has_validator(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ETAG) || headers.contains_key(header::LAST_MODIFIED)
}

/// Whether a 304 is about another response than the stored one: its strong validator differs (RFC 9111, section 4.3.4).
pub(crate) fn is_of_another(response: &UpstreamResponse, stored: &StoredResponse) -> bool {
    response.head.status == StatusCode::NOT_MODIFIED
        && strong_etag(&response.head.headers).is_some_and(|etag| stored.headers.get(header::ETAG) != Some(&etag))
}

/// Whether a part is not the slice that was asked for: a server may send less, or another part (RFC 9110, section
/// 15.3.7). Such a part is not shared.
pub(crate) fn is_another_part(response: &UpstreamResponse, range: OriginRange) -> bool {
    let OriginRange::Slice(asked) = range else { return false };
    response.head.status == StatusCode::PARTIAL_CONTENT
        && !content_range(&response.head.headers).is_some_and(|(received, total)| is_slice(received, asked, total))
}

/// Whether the received part is the slice, up to the end of the representation, or the whole representation.
fn is_slice(received: ByteRange, asked: ByteRange, total: u64) -> bool {
    received.length() == total
        || (received.first == asked.first && received.last == asked.last.min(total.saturating_sub(1)))
}

/// Checks that a response answers its request; `client_range` is the client's `Range`, `validated` whether the request was
/// conditional. A part that is the whole becomes a 200 (RFC 9110, section 15.3.7.3).
pub(crate) fn validate(
    mut response: UpstreamResponse,
    range: OriginRange,
    client_range: Option<&str>,
    validated: bool,
) -> Result<UpstreamResponse, FetchError> {
    match (response.head.status, range) {
        (StatusCode::NOT_MODIFIED, _) if !validated => Err(protocol_error(&response, "304 without a condition")),
        (StatusCode::PARTIAL_CONTENT, OriginRange::AsRequested) => {
            let received_range = fields::single(&response.head.headers, &header::CONTENT_RANGE);
            let fits = match (received_range, client_range) {
                (Some(received_range), Some(asked)) => range::is_part_of(received_range, asked),
                // With several parts the ranges are given in the body.
                (None, Some(_)) => is_multipart(&response.head.headers),
                (_, None) => false,
            };
            if fits { Ok(response) } else { Err(protocol_error(&response, "another part than was asked for")) }
        }
        (StatusCode::PARTIAL_CONTENT, OriginRange::Whole | OriginRange::Slice(_)) => {
            let Some((received, total)) = content_range(&response.head.headers) else {
                return Err(protocol_error(&response, "a part without a valid Content-Range"));
            };
            if received.length() == total {
                response.head.status = StatusCode::OK;
                response.head.headers.remove(header::CONTENT_RANGE);
                response.head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(total));
                return Ok(response);
            }
            match range {
                OriginRange::Slice(asked) if is_slice(received, asked, total) => Ok(response),
                OriginRange::Slice(_) => Err(protocol_error(&response, "another part than was asked for")),
                OriginRange::Whole | OriginRange::AsRequested => {
                    Err(protocol_error(&response, "a part without a range asked for"))
                }
            }
        }
        _ => Ok(response),
    }
}

fn is_multipart(headers: &HeaderMap) -> bool {
    let kind = fields::single(headers, &header::CONTENT_TYPE).and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("multipart/byteranges"))
}

pub(crate) fn protocol_error(response: &UpstreamResponse, cause: &str) -> FetchError {
    FetchError { failure: Failure::Protocol, origin: Arc::clone(&response.origin), cause: cause.into() }
}

/// The span of a single part, and the length of the whole representation.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<(ByteRange, u64)> {
    fields::single(headers, &header::CONTENT_RANGE).and_then(range::content_range)
}

/// Whether only the end of the connection ends the body, so that a truncated one would look complete (RFC 9112, section
/// 8). A 204 has no body.
pub(crate) fn ends_with_connection(version: Version, status: StatusCode, headers: &HeaderMap) -> bool {
    let framed = headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    version <= Version::HTTP_11 && !framed && status != StatusCode::NO_CONTENT
}

pub(crate) fn takes_ranges(headers: &HeaderMap) -> bool {
    fields::values(headers, &header::ACCEPT_RANGES)
        .flat_map(fields::list)
        .any(|unit| unit.eq_ignore_ascii_case("bytes"))
}

/// Whether the body has a content coding, although only identity was asked for.
pub(crate) fn is_coded(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

pub(crate) fn strong_etag(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = fields::single(headers, &header::ETAG)?;
    ETag::parse(value).filter(|etag| !etag.weak)?;
    headers.get(header::ETAG).cloned()
}

/// The request fields that `Vary` names, with the values that the origin saw.
pub(crate) fn vary(response: &HeaderMap, request: &FetchRequest) -> Vary {
    let is_media = request.route.auth != config::Auth::None;
    let names = fields::values(response, &header::VARY)
        .flat_map(fields::list)
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        // Behind a token or bearer the client's fields are not forwarded, so nothing varies; the coding is always identity.
        .filter(|name| !is_media && *name != header::ACCEPT_ENCODING);
    Vary::of(names, &request.headers)
}

/// The tags for purges: `Surrogate-Key` is split at spaces, `Cache-Tag` at commas.
pub(crate) fn tags(headers: &HeaderMap) -> Vec<Box<str>> {
    let spaced = headers.get_all("surrogate-key").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(' '));
    let listed = headers.get_all("cache-tag").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    spaced.chain(listed).map(str::trim).filter(|tag| !tag.is_empty()).take(MAX_TAGS).map(Into::into).collect()
}

/// Removes fields that are for the connection or for this edge only.
pub(crate) fn clean(headers: &mut HeaderMap, request: &FetchRequest) {
    fields::strip_hop_by_hop(headers);
    // Both are made anew for each response.
    headers.remove(header::AGE);
    headers.remove("cache-status");
    // Tags are for the edges of a next tier, which show a bearer; no other client sees them.
    if request.route.auth != config::Auth::Bearer {
        for name in ["surrogate-key", "surrogate-control", "cache-tag"] {
            headers.remove(name);
        }
    }
    if request.route.auth == config::Auth::Token {
        // For caches of this CDN (RFC 9213, section 3.1), not for players.
        headers.remove(CDN_CACHE_CONTROL);
        headers.remove(header::SET_COOKIE);
        headers.remove(header::VARY);
        let cors: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
        cors.iter().for_each(|name| drop(headers.remove(name)));
    }
}

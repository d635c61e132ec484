//! What an origin answered: whether it can be an answer to what was asked, and what its fields say of storing it.
//!
//! An origin may lie. What does not fit what was asked for (a part of another length, a 304 without a condition, a
//! coding that no one asked for) is an error or passes unstored; it never becomes a stored response.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};

use super::config;
use super::fetch::Wanted;
use lyceum_cache::{Stored, Vary};
use lyceum_http::cache_control::CDN_CACHE_CONTROL;
use lyceum_http::conditional::ETag;
use lyceum_http::fields;
use lyceum_http::range::{self, Span};
use lyceum_upstream::{Failure, FetchError, UpstreamResponse};

/// The most tags of one response.
const MAX_TAGS: usize = 64;

/// How much of a representation is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// All of it.
    Whole,
    /// A slice, by which a large one shows itself.
    Window(Span),
    /// What the client asks for, for it alone.
    AsItCame,
}

/// What stands for an error where stale is allowed instead (RFC 5861, section 4).
pub(super) fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

pub(super) fn has_validator(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ETAG) || headers.contains_key(header::LAST_MODIFIED)
}

/// A 304 with a strong validator that is not the stored response's (RFC 9111, section 4.3.4).
pub(super) fn speaks_of_another(answer: &UpstreamResponse, stored: &Stored) -> bool {
    answer.head.status == StatusCode::NOT_MODIFIED
        && strong_etag(&answer.head.headers).is_some_and(|etag| stored.headers.get(header::ETAG) != Some(&etag))
}

/// A part of what was asked for that is not all of it, as a server may send it (RFC 9110, section 15.3.7), or another:
/// nothing to share.
pub(super) fn is_another_part(answer: &UpstreamResponse, ask: Ask) -> bool {
    let Ask::Window(asked) = ask else { return false };
    answer.head.status == StatusCode::PARTIAL_CONTENT
        && !content_range(&answer.head.headers).is_some_and(|(came, total)| is_window(came, asked, total))
}

/// Whether what came is what was asked for as far as there is any, or the whole.
fn is_window(came: Span, asked: Span, total: u64) -> bool {
    came.length() == total || (came.first == asked.first && came.last == asked.last.min(total.saturating_sub(1)))
}

/// An answer that can be one to what was asked; a part that is the whole becomes the whole (RFC 9110, section 15.3.7.3).
pub(super) fn sound(
    mut answer: UpstreamResponse,
    ask: Ask,
    range: Option<&str>,
    validated: bool,
) -> Result<UpstreamResponse, FetchError> {
    match (answer.head.status, ask) {
        (StatusCode::NOT_MODIFIED, _) if !validated => Err(unsound(&answer, "304 without a condition")),
        (StatusCode::PARTIAL_CONTENT, Ask::AsItCame) => {
            let told = fields::single(&answer.head.headers, &header::CONTENT_RANGE);
            let fits = match (told, range) {
                (Some(told), Some(asked)) => range::is_part_of(told, asked),
                // Several parts say of what they are inside of their body.
                (None, Some(_)) => is_multipart(&answer.head.headers),
                (_, None) => false,
            };
            if fits { Ok(answer) } else { Err(unsound(&answer, "another part than was asked for")) }
        }
        (StatusCode::PARTIAL_CONTENT, Ask::Whole | Ask::Window(_)) => {
            let Some((came, total)) = content_range(&answer.head.headers) else {
                return Err(unsound(&answer, "a part that does not say of what"));
            };
            if came.length() == total {
                answer.head.status = StatusCode::OK;
                answer.head.headers.remove(header::CONTENT_RANGE);
                answer.head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(total));
                return Ok(answer);
            }
            match ask {
                Ask::Window(asked) if is_window(came, asked, total) => Ok(answer),
                Ask::Window(_) => Err(unsound(&answer, "another part than was asked for")),
                Ask::Whole | Ask::AsItCame => Err(unsound(&answer, "a part without a range asked for")),
            }
        }
        _ => Ok(answer),
    }
}

fn is_multipart(headers: &HeaderMap) -> bool {
    let kind = fields::single(headers, &header::CONTENT_TYPE).and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("multipart/byteranges"))
}

pub(super) fn unsound(answer: &UpstreamResponse, cause: &str) -> FetchError {
    FetchError { failure: Failure::Protocol, origin: Arc::clone(&answer.origin), cause: cause.into() }
}

/// The one span of a part, and the length of the whole.
pub(super) fn content_range(headers: &HeaderMap) -> Option<(Span, u64)> {
    fields::single(headers, &header::CONTENT_RANGE).and_then(range::content_range)
}

/// Nothing says how long it is or where it ends: cut short it would look the same (RFC 9112, section 8). A 204 has no body.
pub(super) fn ends_with_connection(version: Version, status: StatusCode, headers: &HeaderMap) -> bool {
    let framed = headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    version <= Version::HTTP_11 && !framed && status != StatusCode::NO_CONTENT
}

pub(super) fn takes_ranges(headers: &HeaderMap) -> bool {
    fields::values(headers, &header::ACCEPT_RANGES)
        .flat_map(fields::list)
        .any(|unit| unit.eq_ignore_ascii_case("bytes"))
}

/// Whether the body is coded, although nothing but identity was asked for.
pub(super) fn is_coded(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

pub(super) fn strong_etag(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = fields::single(headers, &header::ETAG)?;
    ETag::parse(value).filter(|etag| !etag.weak)?;
    headers.get(header::ETAG).cloned()
}

/// The fields that `Vary` names, with the values that the origin saw.
pub(super) fn vary(response: &HeaderMap, wanted: &Wanted) -> Vary {
    let is_media = wanted.route.auth != config::Auth::None;
    let names = fields::values(response, &header::VARY)
        .flat_map(fields::list)
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        // Media is asked for without the client's fields, so nothing can choose; the coding is always the same.
        .filter(|name| !is_media && *name != header::ACCEPT_ENCODING);
    Vary::of(names, &wanted.headers)
}

/// `Surrogate-Key` is split at spaces, `Cache-Tag` at commas.
pub(super) fn tags(headers: &HeaderMap) -> Vec<Box<str>> {
    let spaced = headers.get_all("surrogate-key").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(' '));
    let listed = headers.get_all("cache-tag").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    spaced.chain(listed).map(str::trim).filter(|tag| !tag.is_empty()).take(MAX_TAGS).map(Into::into).collect()
}

/// Takes away what is the origin's and the connection's own.
pub(super) fn clean(headers: &mut HeaderMap, wanted: &Wanted) {
    fields::strip_hop_by_hop(headers);
    // Age and decision are told anew with each answer.
    headers.remove(header::AGE);
    headers.remove("cache-status");
    // Tags are for edges: those below this one are purged by them too, and no one else is told.
    if wanted.route.auth != config::Auth::Bearer {
        for name in ["surrogate-key", "surrogate-control", "cache-tag"] {
            headers.remove(name);
        }
    }
    if wanted.route.auth == config::Auth::Token {
        // Edges below this one go by the targeted field as well (RFC 9213, section 3.1), players do not.
        headers.remove(CDN_CACHE_CONTROL);
        headers.remove(header::SET_COOKIE);
        headers.remove(header::VARY);
        let cors: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
        cors.iter().for_each(|name| drop(headers.remove(name)));
    }
}

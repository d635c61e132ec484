//! Header blocks: the header fields of responses, made once when a response is stored and copied for each hit.
//!
//! A block depends on the stored response, its route and the CORS configuration.

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::cache_status::CacheStatus;
use crate::config::Auth;
use crate::request::route::Route;
use lyceum_cache::{HeaderBlock, StoredResponse};
use lyceum_http::fields;

pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");

/// Makes the block of a stored response before the first hit.
pub(crate) fn prepare(route: &Route, stored: &StoredResponse) {
    with_block(route, stored, |_| ());
}

/// Calls `show` with the block of hits on a stored response: the prepared one, unless the configuration has changed what
/// blocks look like since it was made.
pub(crate) fn with_block<T>(route: &Route, stored: &StoredResponse, show: impl FnOnce(&HeaderBlock) -> T) -> T {
    let look = look_of(route);
    let make = || {
        // RFC 9110, section 8.6: a 204 has no length.
        let length = Some(stored.length()).filter(|_| stored.status != StatusCode::NO_CONTENT);
        let mut fields = block(route, &stored.headers, length);
        fields.insert(CACHE_STATUS, CacheStatus::HIT.field(stored.status, None));
        HeaderBlock::new(&fields, look)
    };
    let block = stored.prepared.get_or_init(make);
    if block.profile == look { show(block) } else { show(&make()) }
}

/// What a block depends on besides its response, as a number.
fn look_of(route: &Route) -> u8 {
    u8::from(route.auth != Auth::None) | u8::from(is_uniform(route)) << 1 | u8::from(route.cors.is_any()) << 2
}

/// The header block of a whole response, without `Age` and the CORS fields that depend on the page.
pub(crate) fn block(route: &Route, stored: &HeaderMap, length: Option<u64>) -> HeaderMap {
    // Room for the fields that are added.
    let mut block = HeaderMap::with_capacity(stored.len() + 8);
    block.extend(stored.clone());
    if let Some(length) = length {
        block.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        block.insert(header::ACCEPT_RANGES, BYTES);
    }
    if route.auth != Auth::None {
        block.insert(header::CACHE_CONTROL, private(stored));
        block.remove(header::EXPIRES);
        block.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        block.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        route.cors.uniform(&mut block);
    }
    block
}

/// Whether the block is the same for every page. On open routes the origin handles CORS itself.
pub(crate) fn is_uniform(route: &Route) -> bool {
    route.auth == Auth::None || route.cors.is_uniform()
}

/// `Cache-Control` behind a token or bearer: only the client's own cache may store the response.
fn private(stored: &HeaderMap) -> HeaderValue {
    let mut value = String::from("private");
    for member in fields::values(stored, &header::CACHE_CONTROL).flat_map(fields::list) {
        let name = member.split('=').next().unwrap_or(member).trim().to_ascii_lowercase();
        let shared = ["public", "private", "s-maxage", "proxy-revalidate", "stale-while-revalidate", "stale-if-error"];
        if !shared.contains(&name.as_str()) {
            value.push_str(", ");
            value.push_str(member);
        }
    }
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("private, no-store"))
}

//! What the cache stores a response under, and what an origin is asked for it.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, request};

use super::request_headers::{add_via, end_to_end};
use crate::config::Auth;
use crate::request::route::Route;
use crate::request::target::{RequestTarget, host};
use lyceum_packaging::filter::Playlist;

/// What to fetch, as the cache and the origin see it.
#[derive(Clone, Debug)]
pub(crate) struct FetchRequest {
    pub(crate) route: Arc<Route>,
    pub(crate) key: String,
    /// Path and query for the origin.
    pub(crate) target: String,
    /// End-to-end fields for the origin.
    pub(crate) headers: HeaderMap,
    /// Whether a client's `Authorization` is among them.
    pub(crate) authorized: bool,
    /// The client's `Range`, if the response may be a part.
    pub(crate) range: Option<HeaderValue>,
    /// The client's `If-Range`.
    pub(crate) if_range: Option<HeaderValue>,
}

/// The cache key of a request: the path, with the query and the host where the route says so. Mostly the path alone,
/// which is borrowed.
pub(crate) fn cache_key<'a>(route: &Route, target: &RequestTarget<'a>, head: &request::Parts) -> Cow<'a, str> {
    let host = if route.key_host { host(head) } else { "" };
    cache_key_of_path(route, target.path.as_str(), target.query, host)
}

/// The cache key of any path of a route.
pub(crate) fn cache_key_of_path<'a>(route: &Route, path: &'a str, query: Option<&str>, host: &str) -> Cow<'a, str> {
    let query = route.key_query(query);
    if query.is_none() && !route.key_host {
        return Cow::Borrowed(path);
    }
    let mut key = path.to_owned();
    if let Some(query) = query {
        key.push('?');
        key.push_str(&query);
    }
    if route.key_host {
        // The separator can't occur in a path or a query.
        key.push(' ');
        key.push_str(&host.to_ascii_lowercase());
    }
    Cow::Owned(key)
}

/// What is fetched when the cache has no usable response.
pub(crate) fn fetch_request(
    route: &Arc<Route>,
    target: &RequestTarget<'_>,
    head: &request::Parts,
    key: String,
) -> FetchRequest {
    let mut path_and_query = target.path.as_str().to_owned();
    if let Some(query) = route.key_query(target.query) {
        path_and_query.push('?');
        path_and_query.push_str(&query);
    }
    let mut headers = HeaderMap::new();
    if route.auth == Auth::None {
        headers = end_to_end(route, &head.headers);
        // The stored response is whole and unconditional, whatever this client asks for.
        for name in [
            header::RANGE,
            header::IF_RANGE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_UNMODIFIED_SINCE,
            header::ACCEPT_ENCODING,
        ] {
            headers.remove(name);
        }
    }
    add_via(&mut headers, head.version);
    let authorized = headers.contains_key(header::AUTHORIZATION);
    // A playlist may have to be filtered, which takes the whole of it.
    let in_parts = head.method == Method::GET && Playlist::of(target.path.as_str()).is_none();
    let field = |name| head.headers.get(name).filter(|_| in_parts).cloned();
    let (range, if_range) = (field(header::RANGE), field(header::IF_RANGE));
    FetchRequest { route: Arc::clone(route), key, target: path_and_query, headers, authorized, range, if_range }
}

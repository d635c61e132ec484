//! The header fields of requests to origins.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Version};

use crate::request::route::Route;
use lyceum_http::fields;
use lyceum_token::extract::TokenNames;

/// The client's fields that go on to a route's origins.
pub(crate) fn end_to_end(route: &Route, request: &HeaderMap) -> HeaderMap {
    let mut headers = request.clone();
    fields::strip_hop_by_hop(&mut headers);
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    if let Some(names) = &route.token_names {
        remove_token_cookie(names, &mut headers);
    }
    headers
}

fn remove_token_cookie(names: &TokenNames, headers: &mut HeaderMap) {
    if names.cookie(headers).is_none() {
        return;
    }
    let former: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    headers.remove(header::COOKIE);
    for value in former {
        // A value that is not text holds no token that the edge would accept.
        let left = value.to_str().ok().map(|text| names.cookie_without_token(text));
        match left {
            None => drop(headers.append(header::COOKIE, value)),
            Some(None) => {}
            Some(Some(left)) => drop(HeaderValue::try_from(left).map(|left| headers.append(header::COOKIE, left))),
        }
    }
}

/// Appends this hop to `Via` (RFC 9110, section 7.6.3).
pub(crate) fn add_via(headers: &mut HeaderMap, version: Version) {
    let version = match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    };
    let former = headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<&str> = former.flat_map(fields::list).collect();
    let via = match all.is_empty() {
        true => format!("{version} lyceum"),
        false => format!("{}, {version} lyceum", all.join(", ")),
    };
    if let Ok(via) = HeaderValue::try_from(via) {
        headers.insert(header::VIA, via);
    }
}

/// Decrements `Max-Forwards` of an `OPTIONS` (RFC 9110, section 7.6.2); whether the request ends here.
pub(crate) fn ends_here(method: &Method, headers: &mut HeaderMap) -> bool {
    let left = fields::single(headers, &header::MAX_FORWARDS).filter(|_| *method == Method::OPTIONS);
    let left = left.filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse::<u64>().ok());
    match left.map(|left| left.checked_sub(1)) {
        None => false,
        Some(None) => true,
        Some(Some(left)) => {
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(left));
            false
        }
    }
}

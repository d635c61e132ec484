//! Cross-origin requests (Fetch standard, "CORS protocol"), with the fields that CMCD in header mode needs; answers to
//! `OPTIONS`.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::config;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
/// `Allow` on routes whose requests pass through to the origin.
pub(crate) const ALL_METHODS: &str = "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE";
/// Request fields that a page's script may send, beyond the CORS-safelisted ones.
const REQUEST_FIELDS: HeaderValue = HeaderValue::from_static(
    "authorization, range, if-range, if-none-match, content-type, cmcd-request, cmcd-object, cmcd-status, cmcd-session",
);
/// Response fields that it may read, beyond the CORS-safelisted ones.
const RESPONSE_FIELDS: HeaderValue = HeaderValue::from_static(
    "content-length, content-range, accept-ranges, etag, date, age, cache-status, retry-after",
);
const ANY: HeaderValue = HeaderValue::from_static("*");
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
const REQUEST_METHOD: HeaderName = header::ACCESS_CONTROL_REQUEST_METHOD;

/// Which pages (web origins) may read responses.
#[derive(Debug)]
pub(crate) struct Cors {
    any: bool,
    origins: Vec<HeaderValue>,
    max_age: HeaderValue,
}

impl Cors {
    pub(crate) fn new(config: &config::Cors) -> Self {
        Self {
            any: config.origins.iter().any(|origin| origin == "*"),
            origins: config.origins.iter().filter_map(|origin| HeaderValue::try_from(origin).ok()).collect(),
            max_age: HeaderValue::from(config.max_age.get().as_secs()),
        }
    }

    /// Whether any page may read.
    pub(crate) fn is_any(&self) -> bool {
        self.any
    }

    /// Whether responses carry the same CORS fields for every page.
    pub(crate) fn is_uniform(&self) -> bool {
        self.any || self.origins.is_empty()
    }

    /// Adds the fields that are the same for every page.
    pub(crate) fn uniform(&self, headers: &mut HeaderMap) {
        if self.any {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_FIELDS);
            headers.insert(TIMING_ALLOW_ORIGIN, ANY);
        }
    }

    /// Adds the fields of a response to `request`.
    pub(crate) fn mark(&self, request: &HeaderMap, headers: &mut HeaderMap) {
        if self.is_uniform() {
            return self.uniform(headers);
        }
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = request.get(header::ORIGIN).filter(|origin| self.origins.contains(origin)) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_FIELDS);
            headers.insert(TIMING_ALLOW_ORIGIN, origin.clone());
        }
    }

    /// Whether an OPTIONS request is a preflight.
    pub(crate) fn is_preflight(request: &HeaderMap) -> bool {
        request.contains_key(header::ORIGIN) && request.contains_key(REQUEST_METHOD)
    }

    /// The response to OPTIONS, preflight or not: asking what is allowed takes no token.
    pub(crate) fn options<B: Default>(&self, request: &HeaderMap) -> Response<B> {
        let mut response = options(METHODS);
        let headers = response.headers_mut();
        if Self::is_preflight(request) {
            self.mark(request, headers);
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_FIELDS);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        }
        response
    }
}

/// The response to an `OPTIONS` that goes no further, without CORS fields.
pub(crate) fn options<B: Default>(allow: HeaderValue) -> Response<B> {
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

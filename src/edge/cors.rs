//! Pages of other origins (Fetch standard, "CORS protocol"), with the fields that CMCD in header mode needs.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::body::Body;
use super::config;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
/// What a page's script may send beside what is always allowed.
const REQUEST_FIELDS: HeaderValue = HeaderValue::from_static(
    "authorization, range, if-range, if-none-match, content-type, cmcd-request, cmcd-object, cmcd-status, cmcd-session",
);
/// What it may read beside what is always readable.
const RESPONSE_FIELDS: HeaderValue = HeaderValue::from_static(
    "content-length, content-range, accept-ranges, etag, date, age, cache-status, retry-after",
);
const ANY: HeaderValue = HeaderValue::from_static("*");
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
const REQUEST_METHOD: HeaderName = header::ACCESS_CONTROL_REQUEST_METHOD;

/// Which pages may read what is served.
#[derive(Debug)]
pub(super) struct Cors {
    any: bool,
    origins: Vec<HeaderValue>,
    max_age: HeaderValue,
}

impl Cors {
    pub(super) fn new(config: &config::Cors) -> Self {
        Self {
            any: config.origins.iter().any(|origin| origin == "*"),
            origins: config.origins.iter().filter_map(|origin| HeaderValue::try_from(origin).ok()).collect(),
            max_age: HeaderValue::from(config.max_age.get().as_secs()),
        }
    }

    /// Whether any page may read.
    pub(super) fn is_any(&self) -> bool {
        self.any
    }

    /// Whether one block of fields serves all pages.
    pub(super) fn is_uniform(&self) -> bool {
        self.any || self.origins.is_empty()
    }

    /// The fields of an answer that are the same for every page.
    pub(super) fn uniform(&self, headers: &mut HeaderMap) {
        if self.any {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_FIELDS);
            headers.insert(TIMING_ALLOW_ORIGIN, ANY);
        }
    }

    /// The fields of an answer to `request`.
    pub(super) fn mark(&self, request: &HeaderMap, headers: &mut HeaderMap) {
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
    pub(super) fn is_preflight(request: &HeaderMap) -> bool {
        request.contains_key(header::ORIGIN) && request.contains_key(REQUEST_METHOD)
    }

    /// The answer to OPTIONS, preflight or not: no token is needed to learn what is allowed.
    pub(super) fn options(&self, request: &HeaderMap) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ALLOW, METHODS);
        if Self::is_preflight(request) {
            self.mark(request, headers);
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_FIELDS);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        }
        response
    }
}

//! Refusals as `application/problem+json` (RFC 9457), the same shape from every role.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

/// The media type of a problem.
pub const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The body of a problem: `code` is stable, `detail` is a sentence for people.
pub fn body(status: StatusCode, code: &str, detail: &str) -> Bytes {
    let title = status.canonical_reason().unwrap_or("Error");
    let problem = serde_json::json!({
        "type": "about:blank", "title": title, "status": status.as_u16(), "code": code, "detail": detail,
    });
    Bytes::from(problem.to_string())
}

/// A whole response that no cache keeps.
pub fn response<B: From<Bytes>>(status: StatusCode, code: &str, detail: &str) -> Response<B> {
    let bytes = body(status, code, detail);
    let length = HeaderValue::from(bytes.len());
    let mut response = Response::new(B::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, MEDIA_TYPE);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_LENGTH, length);
    response
}

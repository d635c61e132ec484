//! The API's description, OpenAPI 3.1.

use axum::response::{IntoResponse, Response};
use http::header;

/// The document, as it is written beside this file.
const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], DOCUMENT).into_response()
}

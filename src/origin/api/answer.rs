//! What handlers answer with: the result type of all of them, JSON, and JSON with an entity tag, so that clients can ask
//! conditionally (RFC 9110, section 13).

use aws_lc_rs::digest::{SHA256, digest};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::refusal::Refusal;
use lyceum_http::conditional::{self, ConditionResult, ETag, Validators};

/// What every handler that can refuse returns.
pub(super) type ApiResult = Result<Response, Refusal>;

/// The answer to a GET: 200 with the entity tag of the JSON text (RFC 9110, section 8.8.3), or 304 where the request
/// already names it.
pub(super) fn shown(request: &HeaderMap, value: &impl Serialize) -> ApiResult {
    let text = text(value)?;
    let tag = entity_tag(&text);
    if evaluate(request, &tag)? == ConditionResult::NotModified {
        return with_validators(StatusCode::NOT_MODIFIED.into_response(), &tag);
    }
    with_validators(respond(StatusCode::OK, text), &tag)
}

/// The answer to a change: 200 with what it left, under its new entity tag.
pub(super) fn changed(value: &impl Serialize) -> ApiResult {
    let text = text(value)?;
    let tag = entity_tag(&text);
    with_validators(respond(StatusCode::OK, text), &tag)
}

/// JSON without an entity tag.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> ApiResult {
    Ok(respond(status, text(value)?))
}

fn text(value: &impl Serialize) -> Result<String, Refusal> {
    serde_json::to_string(value).map_err(|error| Refusal::Internal(error.to_string()))
}

fn respond(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn with_validators(mut response: Response, tag: &str) -> Result<Response, Refusal> {
    let tag = HeaderValue::try_from(tag).map_err(|error| Refusal::Internal(error.to_string()))?;
    response.headers_mut().insert(header::ETAG, tag);
    // Differs by caller, and may change at any moment.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

fn entity_tag(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    let tag: String = hash.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{tag}\"")
}

fn evaluate(request: &HeaderMap, tag: &str) -> Result<ConditionResult, Refusal> {
    match conditional::judge(request, &Validators { etag: ETag::parse(tag), ..Validators::default() }) {
        ConditionResult::Failed => Err(Refusal::PreconditionFailed),
        outcome => Ok(outcome),
    }
}

/// Refuses a change whose `If-Match` names another state than `now` (RFC 9110, section 13.1.1), or whose
/// `If-None-Match` names this one. Call it inside the transaction that makes the change.
pub(super) fn unchanged(request: &HeaderMap, now: &impl Serialize) -> Result<(), Refusal> {
    if !conditional::is_conditional(request) {
        return Ok(());
    }
    match evaluate(request, &entity_tag(&text(now)?))? {
        ConditionResult::Go => Ok(()),
        _ => Err(Refusal::PreconditionFailed),
    }
}

//! What handlers answer with: the result type of all of them, and JSON with an entity tag, so that clients can ask
//! conditionally (RFC 9110, section 13).

use aws_lc_rs::digest::{SHA256, digest};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::refusal::Refusal;
use lyceum_http::conditional::{self, ConditionResult, ETag, Validators};

/// What every handler that can refuse returns.
pub(super) type ApiResult = Result<Response, Refusal>;

/// A JSON response with the entity tag of its text (RFC 9110, section 8.8.3); 304 where the request already names it.
pub(super) fn tagged(status: StatusCode, request: &HeaderMap, value: &impl Serialize) -> Result<Response, Refusal> {
    let text = serde_json::to_string(value).map_err(|error| Refusal::Internal(error.to_string()))?;
    let tag = entity_tag(&text);
    if status == StatusCode::OK && evaluate(request, &tag)? == ConditionResult::NotModified {
        return with_validators(StatusCode::NOT_MODIFIED.into_response(), &tag);
    }
    let response = (status, [(header::CONTENT_TYPE, "application/json")], text).into_response();
    with_validators(response, &tag)
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
    let text = serde_json::to_string(now).map_err(|error| Refusal::Internal(error.to_string()))?;
    match evaluate(request, &entity_tag(&text))? {
        ConditionResult::Go => Ok(()),
        _ => Err(Refusal::PreconditionFailed),
    }
}

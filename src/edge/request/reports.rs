//! `POST …/cmcd`: event reports of players (CMCD version 2).

use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode, request};
use http_body_util::{BodyExt as _, Limited};

use super::authorize::authorize_report;
use super::target::RequestTarget;
use crate::error::Refusal;
use crate::state::State;
use lyceum_core::time::monotonic;
use lyceum_http::cmcd;
use lyceum_server::{Peer, RequestBody};

/// How long the body of a report, a few kilobytes, may take.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes the reports in one request's body; any valid token will do.
pub(crate) async fn take_reports<B: Default>(
    state: &State,
    peer: Peer,
    head: &request::Parts,
    body: RequestBody,
    target: &RequestTarget<'_>,
) -> Result<Response<B>, Refusal> {
    if head.method == Method::OPTIONS {
        return Ok(state.cors.options(&head.headers));
    }
    if head.method != Method::POST {
        return Err(Refusal::Method("POST, OPTIONS"));
    }
    authorize_report(state, peer, target).await?;
    let whole = Limited::new(body, state.playback.largest_report()).collect();
    let body = tokio::time::timeout(REPORT_TIMEOUT, whole).await.ok().and_then(Result::ok).ok_or(Refusal::Reports)?;
    let bytes = body.to_bytes();
    let text = std::str::from_utf8(&bytes).map_err(|_| Refusal::Reports)?;
    let now = monotonic();
    cmcd::Report::events(text).for_each(|report| state.playback.heard(&report, now));
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    state.cors.mark(&head.headers, response.headers_mut());
    Ok(response)
}

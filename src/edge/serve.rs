//! One request, from top to bottom: admit → authorize → lookup → fetch → deliver → record.
//!
//! [`call`] tries these steps without waiting first ([`serve_at_once`]), which makes no future: `fast_path.rs` has the
//! authorize and lookup of that. Otherwise [`serve`] takes the same steps and waits where it has to.

use std::sync::Arc;

use arc_swap::Guard;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version, request};
use http_body::Body as _;

use crate::cache_status::{CacheOutcome, CacheStatus};
use crate::config::Auth;
use crate::error::Refusal;
use crate::fast_path;
use crate::fetch::key::{FetchRequest, fetch_request};
use crate::fetch::lookup::{NotFound, find, request_directives};
use crate::pass_through::pass_through;
use crate::record::{Record, is_exclusive, record};
use crate::request::authorize::{Authorized, authorize};
use crate::request::cors::{self, ALL_METHODS};
use crate::request::prepare::{Prepared, ResourceRequest, prepare};
use crate::request::reports::take_reports;
use crate::request::target::RequestTarget;
use crate::response::body::Body;
use crate::response::deliver::{Delivery, Undelivered, deliver, deliver_prepared, deliver_stored};
use crate::state::State;
use lyceum_cache::ReadError;
use lyceum_core::time::{Instant, monotonic};
use lyceum_packaging::filter::{Limits, Playlist};
use lyceum_server::{Peer, Refused, RequestBody, ResponseFuture};
use lyceum_token::extract::TokenPlacement;

/// How often a large response is looked up again after it changed at the origin between two of its slices.
const MAX_LOOKUPS: usize = 3;

/// Answers one request that arrived at `began`: at once where nothing has to be waited for.
pub(crate) fn call(
    state: Guard<Arc<State>>,
    peer: Peer,
    request: Request<RequestBody>,
    began: Instant,
) -> ResponseFuture<Body> {
    let (mut head, body) = request.into_parts();
    if body.is_end_stream()
        && let Some((mut response, lines)) = serve_at_once(&state, peer, &head, began)
    {
        let Some(lines) = lines else { return ResponseFuture::Ready(response) };
        // The connection uses the allocation of the map again for its next request.
        head.headers.clear();
        *response.headers_mut() = head.headers;
        return ResponseFuture::Prepared(response, lines);
    }
    let state = Guard::into_inner(state);
    ResponseFuture::boxed(async move { serve(&state, peer, head, body, began).await })
}

/// The steps without waiting: the response, and those of its fields that are prepared as lines; `None` for requests that
/// need more.
fn serve_at_once(
    state: &State,
    peer: Peer,
    head: &request::Parts,
    began: Instant,
) -> Option<(Response<Body>, Option<Vec<u8>>)> {
    // Admit.
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return None;
    }
    let cache = &state.fetcher.cache;
    let Ok(Prepared::Resource(request, slot)) = prepare(&state.routes, head, |key| cache.slot(key)) else {
        return None;
    };

    // Authorize.
    let now_ms = state.clock.ticked_unix_millis();
    let authorized = fast_path::authorize(state, peer, &request, &slot, now_ms, began)?;

    // Lookup; nothing to fetch. Ages are of the steady clock, by the instant that the server has read.
    let steady_ms = state.clock.steady_millis_at(began);
    let stored = fast_path::look_up(state, &request, head, slot, steady_ms)?;

    // Deliver.
    let fetch_request = || fetch_request(request.route, &request.target, head, request.key.to_string());
    let delivery = delivery(state, head, &request, authorized.limits(), steady_ms, &fetch_request);
    let prepared = if head.version == Version::HTTP_11 { deliver_prepared(&delivery, &stored) } else { None };
    let (response, lines) = match prepared {
        Some((response, lines)) => (response, Some(lines)),
        None => (deliver_stored(&delivery, &stored, CacheStatus::HIT).ok()?, None),
    };

    // Record.
    state.playback.heard_request(request.target.query, &head.headers, began);
    let Authorized { grant, generation, .. } = authorized;
    let exclusive = is_exclusive(head.version);
    let seen = Record { route: Some(request.route.index), grant, generation, cookie: None, exclusive };
    Some((record(state, seen, response, CacheStatus::HIT.outcome, None), lines))
}

/// The steps with waiting, whatever comes of them.
async fn serve(
    state: &Arc<State>,
    peer: Peer,
    head: request::Parts,
    body: RequestBody,
    began: Instant,
) -> Response<Body> {
    let mut seen = Record { exclusive: is_exclusive(head.version), ..Record::default() };
    let (response, outcome) = match answer(state, peer, &head, body, &mut seen).await {
        Ok((mut response, outcome)) => {
            if let Some(cookie) = seen.cookie.take() {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            (response, outcome)
        }
        Err(refusal) => (refused(state, &head, &refusal), CacheOutcome::None),
    };
    // Record.
    record(state, seen, response, outcome, Some(began.elapsed()))
}

/// The steps up to deliver; fills `seen` in on the way.
async fn answer(
    state: &Arc<State>,
    peer: Peer,
    head: &request::Parts,
    body: RequestBody,
    seen: &mut Record,
) -> Result<(Response<Body>, CacheOutcome), Refusal> {
    // Admit.
    let request = match prepare(&state.routes, head, |_| ())? {
        Prepared::Resource(request, ()) => request,
        Prepared::Reports(target) => {
            let response = Box::pin(take_reports(state, peer, head, body, &target)).await?;
            return Ok((response, CacheOutcome::None));
        }
        Prepared::ServerOptions => {
            return Ok((cors::options(HeaderValue::from_static(ALL_METHODS)), CacheOutcome::None));
        }
    };
    let (route, target) = (request.route, &request.target);
    let is_open = route.auth == Auth::None;
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    seen.route = Some(route.index);
    if !is_open && head.method == Method::OPTIONS {
        return Ok((state.cors.options(&head.headers), CacheOutcome::None));
    }
    if !is_open && !is_read {
        return Err(Refusal::Method("GET, HEAD, OPTIONS"));
    }

    // Authorize.
    let authorized = authorize(state, peer, &request, head).await?;
    let limits = authorized.limits();
    seen.generation = authorized.generation;
    seen.cookie = authorized.cookie;
    if let (Some((TokenPlacement::Query, token)), Some(_)) = (target.token, Playlist::of(target.path.as_str())) {
        let mut response = redirect(token, target);
        state.cors.mark(&head.headers, response.headers_mut());
        return Ok((response, CacheOutcome::None));
    }
    seen.grant = authorized.grant;
    state.playback.heard_request(target.query, &head.headers, monotonic());
    if is_open && !is_read {
        return Box::pin(pass_through(state, &request, head, body)).await;
    }

    let fetch_request = || fetch_request(route, target, head, request.key.to_string());
    // On open routes the client's directives count; elsewhere a player's reload does not reach the origin.
    let directives = is_open.then(|| request_directives(&head.headers));
    for _ in 0..MAX_LOOKUPS {
        // Lookup and fetch.
        let found = find(&state.fetcher, fetch_request, &request.key, &head.headers, directives.as_ref())
            .await
            .map_err(refusal_of)?;
        if route.auth == Auth::Token && found.starts_prefetch() {
            state.prefetcher.after(&state.fetcher, route, target.path.as_str(), request.host, found.length());
        }

        // Deliver.
        let delivery = delivery(state, head, &request, limits, state.clock.steady_millis(), &fetch_request);
        match deliver(&delivery, found).await {
            Ok(delivered) => return Ok(delivered),
            Err(Undelivered::Refused(refusal)) => return Err(refusal),
            Err(Undelivered::Outdated) => {}
        }
    }
    Err(Refusal::BrokenOff)
}

#[inline]
fn delivery<'a>(
    state: &'a State,
    head: &'a request::Parts,
    request: &'a ResourceRequest<'_>,
    limits: Limits,
    steady_ms: i64,
    fetch_request: &'a (dyn Fn() -> FetchRequest + Sync),
) -> Delivery<'a> {
    Delivery {
        method: &head.method,
        request: &head.headers,
        route: request.route,
        path: request.target.path.as_str(),
        limits,
        steady_ms,
        fetcher: &state.fetcher,
        fetch_request,
    }
}

/// Answers one request that a listener's limit refused.
pub(crate) fn refuse(state: &State, head: &request::Parts, refused_by: Refused) -> Response<Body> {
    let response = refused(state, head, &Refusal::Limit(refused_by));
    state.metrics.answered(None, CacheOutcome::None, response.status(), None);
    let guard = state.body_guards.guard(None, None, 0);
    response.map(|body| body.guarded(guard, false))
}

/// The response to a refused request, counted as a refusal.
fn refused(state: &State, head: &request::Parts, refusal: &Refusal) -> Response<Body> {
    state.metrics.refused(refusal.code());
    tracing::debug!(code = refusal.code(), "refused");
    let mut response = refusal.response();
    state.cors.mark(&head.headers, response.headers_mut());
    if head.method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response
}

fn refusal_of(error: NotFound) -> Refusal {
    match error {
        NotFound::OnlyIfCached => Refusal::OnlyIfCached,
        NotFound::Failed(ReadError::Failed(cause)) => Refusal::Upstream(cause),
        NotFound::Failed(_) => Refusal::BrokenOff,
    }
}

/// 307 to the URL with the token in the path, from which the playlist's relative URIs inherit it.
fn redirect(token: &str, target: &RequestTarget<'_>) -> Response<Body> {
    let query = target.query_without_token().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = response.headers_mut();
    // The token was verified, so it is a valid field value.
    if let Ok(location) = HeaderValue::try_from(format!("/t/{token}{}{query}", target.path)) {
        headers.insert(header::LOCATION, location);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    response
}

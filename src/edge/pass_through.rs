//! Requests that bypass the cache: unsafe methods, on open routes only.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, request};
use http_body_util::BodyExt as _;
use url::Url;

use crate::cache_status::{CacheOutcome, CacheStatus, Forward};
use crate::config::Auth;
use crate::error::Refusal;
use crate::fetch::key::cache_key_of_path;
use crate::fetch::request_headers::{add_via, end_to_end, ends_here};
use crate::header_block::CACHE_STATUS;
use crate::request::cors::{self, ALL_METHODS};
use crate::request::prepare::ResourceRequest;
use crate::response::body::Body;
use crate::response::piece::LiveBody;
use crate::state::State;
use lyceum_cache::{FillPlan, Purge, PurgeTarget, ResponseHead, Vary};
use lyceum_http::{fields, path::CleanPath};
use lyceum_server::RequestBody;
use lyceum_upstream::{UpstreamRequest, stable_hash};

/// Forwards a request with its body, and streams the response back.
pub(crate) async fn pass_through(
    state: &State,
    request: &ResourceRequest<'_>,
    head: &request::Parts,
    body: RequestBody,
) -> Result<(Response<Body>, CacheOutcome), Refusal> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Method(ALL_METHODS));
    }
    let (route, asked) = (request.route, &request.target);
    let mut target = asked.path.as_str().to_owned();
    if let Some(query) = asked.query {
        target.push('?');
        target.push_str(query);
    }
    let mut headers = end_to_end(route, &head.headers);
    add_via(&mut headers, head.version);
    if ends_here(&head.method, &mut headers) {
        return Ok((cors::options(HeaderValue::from_static(ALL_METHODS)), CacheOutcome::None));
    }
    let outgoing = UpstreamRequest {
        method: head.method.clone(),
        affinity: stable_hash(target.as_bytes()),
        target,
        headers,
        body: Some(body.boxed_unsync()),
    };
    let mut response = route.pool.fetch(outgoing).await.map_err(Refusal::Upstream)?;
    // An unsafe method that succeeded invalidates what is stored (RFC 9111, section 4.4).
    let status = response.head.status;
    if !head.method.is_safe() && (status.is_success() || status.is_redirection()) {
        invalidate(state, request, &response.head.headers).await;
    }
    let mut headers = std::mem::take(&mut response.head.headers);
    fields::strip_hop_by_hop(&mut headers);
    state.fetcher.date(&mut headers);
    let length = fields::single(&headers, &header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
    let (mut writer, reader) = state.fetcher.cache.private_fill();
    writer.begin(
        ResponseHead { status, headers: headers.clone(), length, vary: Vary::default() },
        FillPlan::Pass { why: "method" },
    );
    state.fetcher.spawn(async move {
        loop {
            match response.body.next().await {
                Ok(Some(piece)) => {
                    if writer.push(piece).await.is_err() {
                        break;
                    }
                }
                Ok(None) => {
                    writer.finish();
                    break;
                }
                Err(error) => {
                    writer.fail(error);
                    break;
                }
            }
        }
    });
    // Appended to what caches nearer to the origin have said (RFC 9211, section 2).
    let cache_status = CacheStatus::forwarded(CacheOutcome::Pass, Forward::Method);
    headers.append(CACHE_STATUS, cache_status.field(status, None));
    let mut passed = Response::new(Body::live(LiveBody { reader, skip: 0, left: length }));
    *passed.status_mut() = status;
    *passed.headers_mut() = headers;
    Ok((passed, CacheOutcome::Pass))
}

/// Purges the target, and what `Location` and `Content-Location` name on the same host. Routes with tokens are spared: a
/// client without one could otherwise have their responses fetched again and again.
async fn invalidate(state: &State, request: &ResourceRequest<'_>, response: &HeaderMap) {
    let host = request.host;
    let mut keys = vec![request.key.to_string()];
    if let Ok(base) = Url::parse(&format!("http://{host}{}", request.target.path.as_str())) {
        let named = [header::LOCATION, header::CONTENT_LOCATION]
            .iter()
            .filter_map(|name| base.join(fields::single(response, name)?).ok())
            // Only hosts and ports are compared: before a load balancer the client's scheme may be another.
            .filter(|named| named.host() == base.host() && named.port() == base.port());
        let key_of_named = |named: Url| {
            let route = state.routes.of(CleanPath::check(named.path()).ok()?)?;
            let open = route.auth == Auth::None;
            open.then(|| cache_key_of_path(route, named.path(), named.query(), host).into_owned())
        };
        keys.extend(named.filter_map(key_of_named));
    }
    let (cache, now_ms) = (Arc::clone(&state.fetcher.cache), state.clock.steady_millis());
    // On a blocking thread, as files may have to be deleted. The response waits for it: whoever has it must not get what
    // was stored before.
    let purged = tokio::task::spawn_blocking(move || {
        for key in keys {
            cache.purge(&Purge { target: PurgeTarget::Key(key.into()), soft: false }, now_ms);
        }
    });
    if purged.await.is_err() {
        tracing::error!("the responses that an unsafe method invalidated could not be purged");
    }
}

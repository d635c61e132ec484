//! What goes through without the cache: methods that are not safe, on routes that need no token.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use url::Url;

use super::Inner;
use super::body::{Body, Live};
use super::config::Auth;
use super::decision::{CacheOutcome, Decision, Forward};
use super::error::Refusal;
use super::head::CACHE_STATUS;
use super::locate::{Located, TokenNames, host};
use super::route::Route;
use super::serve::{key_for, key_of};
use lyceum_cache::{FillPlan, Purge, PurgeTarget, ResponseHead, Vary};
use lyceum_http::{fields, path::CleanPath};
use lyceum_server::RequestBody;
use lyceum_upstream::{UpstreamRequest, stable_hash};

/// The fields that go on to a route's origins.
pub(super) fn end_to_end(route: &Route, request: &HeaderMap) -> HeaderMap {
    let mut headers = request.clone();
    fields::strip_hop_by_hop(&mut headers);
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    if let Some(names) = &route.keeps_tokens {
        keep_token(names, &mut headers);
    }
    headers
}

/// Takes the cookie with the token out of the fields for an origin.
fn keep_token(names: &TokenNames, headers: &mut HeaderMap) {
    if names.cookie(headers).is_none() {
        return;
    }
    let former: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    headers.remove(header::COOKIE);
    for value in former {
        // What is no text holds no token that would be taken.
        let left = value.to_str().ok().map(|text| names.cookie_without_token(text));
        match left {
            None => drop(headers.append(header::COOKIE, value)),
            Some(None) => {}
            Some(Some(left)) => drop(HeaderValue::try_from(left).map(|left| headers.append(header::COOKIE, left))),
        }
    }
}

/// Adds this hop to `Via` (RFC 9110, section 7.6.3), behind those that the request came through.
pub(super) fn add_via(headers: &mut HeaderMap, version: Version) {
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

/// Takes one from `Max-Forwards` (RFC 9110, section 7.6.2); whether the request goes no further.
fn ends_here(method: &Method, headers: &mut HeaderMap) -> bool {
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

pub(super) const METHODS: &str = "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE";

/// The answer to an `OPTIONS` that goes no further.
pub(super) fn options() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
    response
}

impl Inner {
    /// Sends a request on with its body, and the answer back as it comes.
    pub(super) async fn pass(
        self: &Arc<Self>,
        route: &Route,
        located: &Located<'_>,
        head: &http::request::Parts,
        body: RequestBody,
    ) -> Result<(Response<Body>, CacheOutcome), Refusal> {
        if matches!(head.method, Method::CONNECT | Method::TRACE) {
            return Err(Refusal::Method(METHODS));
        }
        let mut target = located.path.as_str().to_owned();
        if let Some(query) = located.query {
            target.push('?');
            target.push_str(query);
        }
        let mut headers = end_to_end(route, &head.headers);
        add_via(&mut headers, head.version);
        if ends_here(&head.method, &mut headers) {
            return Ok((options(), CacheOutcome::None));
        }
        let outgoing = UpstreamRequest {
            method: head.method.clone(),
            affinity: stable_hash(target.as_bytes()),
            target,
            headers,
            body: Some(body.boxed_unsync()),
        };
        let mut answer = route.pool.fetch(outgoing).await.map_err(Refusal::Upstream)?;
        // RFC 9111, section 4.4: an unsafe method that succeeded takes along what is stored.
        let status = answer.head.status;
        if !head.method.is_safe() && (status.is_success() || status.is_redirection()) {
            self.invalidate(route, located, head, &answer.head.headers).await;
        }
        let mut headers = std::mem::take(&mut answer.head.headers);
        fields::strip_hop_by_hop(&mut headers);
        self.fetcher.date(&mut headers);
        let length = fields::single(&headers, &header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let (mut writer, reader) = self.fetcher.cache.private_fill();
        writer.begin(
            ResponseHead { status, headers: headers.clone(), length, vary: Vary::default() },
            FillPlan::Pass { why: "method" },
        );
        let guard = self.fetcher.shutdown.guard();
        tokio::spawn(async move {
            loop {
                match answer.body.next().await {
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
            drop(guard);
        });
        // Behind what caches further up have said (RFC 9211, section 2).
        headers
            .append(CACHE_STATUS, Decision::forwarded(CacheOutcome::Pass, Forward::Method).cache_status(status, None));
        let mut response = Response::new(Body::live(Live { reader, skip: 0, left: length }));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok((response, CacheOutcome::Pass))
    }

    /// Takes away what is stored of the target, and of what `Location` and `Content-Location` name on the same host; not
    /// what needs a token, which a client who has none could otherwise have fetched anew without end.
    async fn invalidate(&self, route: &Route, located: &Located<'_>, head: &http::request::Parts, answer: &HeaderMap) {
        let host = host(head);
        let mut keys = vec![key_of(route, located, head).into_owned()];
        if let Ok(base) = Url::parse(&format!("http://{host}{}", located.path.as_str())) {
            let named = [header::LOCATION, header::CONTENT_LOCATION]
                .iter()
                .filter_map(|name| base.join(fields::single(answer, name)?).ok())
                // The client's scheme may have been another before a load balancer: hosts are compared.
                .filter(|named| named.host() == base.host() && named.port() == base.port());
            let key_of_named = |named: Url| {
                let route = self.routes.of(CleanPath::check(named.path()).ok()?)?;
                let open = route.auth == Auth::None;
                open.then(|| key_for(route, named.path(), named.query(), host).into_owned())
            };
            keys.extend(named.filter_map(key_of_named));
        }
        let (cache, now_ms) = (Arc::clone(&self.fetcher.cache), self.clock.unix_millis());
        // It may have files to remove. The answer waits: who has it must not find what was there before.
        let purged = tokio::task::spawn_blocking(move || {
            for key in keys {
                cache.purge(&Purge { target: PurgeTarget::Key(key.into()), soft: false }, now_ms);
            }
        });
        if purged.await.is_err() {
            tracing::error!("what an unsafe method changed could not be taken away");
        }
    }
}

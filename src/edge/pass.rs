//! What goes through without the cache: methods that are not safe, on routes that need no token.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::Inner;
use super::body::{Body, Live};
use super::error::Refusal;
use super::locate::Located;
use super::metrics::CacheOutcome;
use super::route::Route;
use crate::cache::{Head, Plan, Purge, Target, Vary};
use crate::semantics::fields;
use crate::upstream::{Outgoing, stable_hash};

/// The fields that go on to an origin.
pub(super) fn end_to_end(request: &HeaderMap) -> HeaderMap {
    let mut headers = request.clone();
    fields::strip_hop_by_hop(&mut headers);
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    headers
}

impl Inner {
    /// Sends a request on with its body, and the answer back as it comes.
    pub(super) async fn pass(
        self: &Arc<Self>,
        route: &Route,
        located: &Located<'_>,
        head: &http::request::Parts,
        body: Incoming,
    ) -> Result<(Response<Body>, CacheOutcome), Refusal> {
        if matches!(head.method, Method::CONNECT | Method::TRACE) {
            return Err(Refusal::Method("GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE"));
        }
        let mut target = located.path.as_str().to_owned();
        if let Some(query) = located.query {
            target.push('?');
            target.push_str(query);
        }
        let mut headers = end_to_end(&head.headers);
        headers.insert(header::VIA, HeaderValue::from_static("1.1 lyceum"));
        let outgoing = Outgoing {
            method: head.method.clone(),
            affinity: stable_hash(target.as_bytes()),
            target,
            headers,
            body: Some(body.map_err(Into::into).boxed_unsync()),
        };
        let mut answer = route.pool.fetch(outgoing).await.map_err(Refusal::Upstream)?;
        // RFC 9111, section 4.4: an unsafe method that succeeded takes along what is stored.
        let status = answer.head.status;
        if !head.method.is_safe() && (status.is_success() || status.is_redirection()) {
            let key = super::serve::key_of(route, located, head);
            self.fetcher.cache.purge(&Purge { target: Target::Key(key.as_ref().into()), soft: false });
        }
        let mut headers = std::mem::take(&mut answer.head.headers);
        fields::strip_hop_by_hop(&mut headers);
        let length = fields::single(&headers, &header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let (mut writer, reader) = self.fetcher.cache.apart();
        writer.begin(Head { status, headers: headers.clone(), length, vary: Vary::default() }, Plan::Pass);
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
        let mut response = Response::new(Body::live(Live { reader, skip: 0, left: length }));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok((response, CacheOutcome::Pass))
    }
}

//! The first step of every request, on both ways: it is admitted, and its route and cache key are found.

use std::borrow::Cow;
use std::sync::Arc;

use http::{Method, request};

use super::admit::{check_framing, check_host};
use super::cors::ALL_METHODS;
use super::route::{Route, Routes};
use super::target::{Destination, RequestTarget};
use crate::error::Refusal;
use crate::fetch::key::cache_key;

/// A request that was admitted.
pub(crate) enum Prepared<'a, P> {
    /// For a resource of a route.
    Resource(ResourceRequest<'a>, P),
    /// CMCD event reports of a player.
    Reports(RequestTarget<'a>),
    /// `OPTIONS *`, about the server as a whole (RFC 9110, section 9.3.7).
    ServerOptions,
}

/// A request for a resource of a route.
#[derive(Debug)]
pub(crate) struct ResourceRequest<'a> {
    pub(crate) route: &'a Arc<Route>,
    pub(crate) target: RequestTarget<'a>,
    /// The cache key.
    pub(crate) key: Cow<'a, str>,
    /// The requested host, with its port; empty where HTTP/1.0 names none.
    pub(crate) host: &'a str,
}

/// Admits a request. `prefetch` is called with the cache key before the message is checked, so that memory can be on
/// its way to the CPU meanwhile.
#[inline]
pub(crate) fn prepare<'a, P>(
    routes: &'a Routes,
    head: &'a request::Parts,
    prefetch: impl FnOnce(&str) -> P,
) -> Result<Prepared<'a, P>, Refusal> {
    let found = RequestTarget::find(&head.uri, &head.headers, routes).map(|target| {
        let resource = match target.destination {
            Destination::Route(route) => {
                let key = cache_key(route, &target, head);
                let prefetched = prefetch(&key);
                Some((route, key, prefetched))
            }
            Destination::Reports => None,
        };
        (target, resource)
    });
    let host = check_host(head)?;
    check_framing(&head.headers)?;
    match head.method {
        Method::CONNECT => return Err(Refusal::Method(ALL_METHODS)),
        Method::OPTIONS if head.uri.path() == "*" => return Ok(Prepared::ServerOptions),
        _ => {}
    }
    let (target, resource) = found?;
    Ok(match resource {
        Some((route, key, prefetched)) => Prepared::Resource(ResourceRequest { route, target, key, host }, prefetched),
        None => Prepared::Reports(target),
    })
}

//! What a request asks for: its checked path, its query, its token, and the route.
//!
//! A token is looked for in four places, in this order: the path (`/t/{token}/…`), the query (`?token=`),
//! `Authorization: Bearer`, the cookie `lyceum_token`. The first that holds one decides. On a route that takes no token,
//! one in the path or in the cookie is removed: it is meant for edges and is not shown to origins.

use std::sync::Arc;

use http::header::{self, HeaderMap};

use super::route::{Route, Routes};
use crate::config::Auth;
use crate::error::Refusal;
use lyceum_http::path::CleanPath;
use lyceum_token::extract::{self, TokenNames, TokenPlacement};

/// Where players post CMCD event reports.
const REPORTS: &str = "/cmcd";

/// What is asked for.
#[derive(Debug)]
pub(crate) struct RequestTarget<'a> {
    /// The path without the token.
    pub(crate) path: CleanPath<'a>,
    /// The query, with all its parameters.
    pub(crate) query: Option<&'a str>,
    /// The first token found.
    pub(crate) token: Option<(TokenPlacement, &'a str)>,
    pub(crate) destination: Destination<'a>,
    /// The names of the query parameter and the cookie that carry a token.
    pub(crate) names: &'a TokenNames,
}

/// Who answers a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Destination<'a> {
    /// A route.
    Route(&'a Arc<Route>),
    /// The edge itself, which takes CMCD event reports.
    Reports,
}

impl<'a> RequestTarget<'a> {
    /// Finds the route and the token of a request.
    pub(crate) fn find(uri: &'a http::Uri, headers: &'a HeaderMap, routes: &'a Routes) -> Result<Self, Refusal> {
        let (query, names) = (uri.query(), routes.names());
        if let Some((token, rest)) = extract::in_path(uri.path()) {
            let path = CleanPath::check(rest).map_err(Refusal::Ambiguous)?;
            let of_token = |route: &&Arc<Route>| route.auth == Auth::Token;
            let destination = match routes.of(path).filter(of_token) {
                Some(route) => Some(Destination::Route(route)),
                None if path.as_str() == REPORTS && routes.any_token() => Some(Destination::Reports),
                None => None,
            };
            if let Some(destination) = destination {
                return Ok(Self { path, query, token: Some((TokenPlacement::Path, token)), destination, names });
            }
            // A relative URI in a playlist inherits the token, even where it leads to a route without tokens: it is removed.
            if routes.any_token() && extract::looks_signed(token) {
                let route = routes.of(path).filter(|_| !extract::leads_with_token(rest)).ok_or(Refusal::NotFound)?;
                return Ok(Self { path, query, token: None, destination: Destination::Route(route), names });
            }
        }
        let whole = CleanPath::check(uri.path()).map_err(Refusal::Ambiguous)?;
        if extract::leads_with_token(uri.path()) && routes.any_token() {
            return Err(Refusal::NotFound);
        }
        let destination = match routes.of(whole) {
            Some(route) => Destination::Route(route),
            None if whole.as_str() == REPORTS && routes.any_token() => Destination::Reports,
            None => return Err(Refusal::NotFound),
        };
        let needs_token = match &destination {
            Destination::Route(route) => route.auth == Auth::Token,
            Destination::Reports => true,
        };
        let token = if needs_token { names.outside_path(query, headers) } else { None };
        Ok(Self { path: whole, query, token, destination, names })
    }

    /// The query without the token, unless nothing else is in it.
    pub(crate) fn query_without_token(&self) -> Option<String> {
        self.names.query_without_token(self.query?)
    }
}

/// The requested host: the URI's authority (HTTP/2, absolute form), or `Host`.
pub(crate) fn host(head: &http::request::Parts) -> &str {
    let in_uri = head.uri.authority().map(http::uri::Authority::as_str);
    in_uri.or_else(|| head.headers.get(header::HOST)?.to_str().ok()).unwrap_or("")
}

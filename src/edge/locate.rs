//! What a request asks for: the path that was checked, where its token stands, its query.
//!
//! The token may stand in four places, looked for in this order: the path (`/t/{token}/…`), the query (`?token=`),
//! `Authorization: Bearer`, the cookie `lyceum_token`. The first that holds one decides. Where no token is asked for, one
//! in the path or in the cookie is taken off: it is this edge's, and no origin's.

use http::header::{self, HeaderMap};

use super::config::Auth;
use super::error::Refusal;
use super::route::{Route, Routes};
use lyceum_http::path::CleanPath;
use lyceum_token::extract;

pub(super) use lyceum_token::extract::{PATH_PREFIX, TokenNames, TokenPlacement, bearer};
use std::sync::Arc;

/// Where event reports go.
const REPORTS: &str = "/cmcd";

/// What is asked for.
#[derive(Debug)]
pub(super) struct Located<'a> {
    /// The path without the token.
    pub(super) path: CleanPath<'a>,
    /// The query, with all its parameters.
    pub(super) query: Option<&'a str>,
    /// The first token found.
    pub(super) token: Option<(TokenPlacement, &'a str)>,
    /// What it is.
    pub(super) what: What<'a>,
    /// The names that a token is found by.
    pub(super) names: &'a TokenNames,
}

/// The kinds of request.
#[derive(Debug)]
pub(super) enum What<'a> {
    /// Something under a route.
    Resource(&'a Arc<Route>),
    /// Event reports.
    Reports,
}

impl<'a> Located<'a> {
    /// Finds the route and the token of a request.
    pub(super) fn find(uri: &'a http::Uri, headers: &'a HeaderMap, routes: &'a Routes) -> Result<Self, Refusal> {
        let (query, names) = (uri.query(), routes.names());
        if let Some((token, rest)) = extract::in_path(uri.path()) {
            let path = CleanPath::check(rest).map_err(Refusal::Ambiguous)?;
            let of_token = |route: &&Arc<Route>| route.auth == Auth::Token;
            let what = match routes.of(path).filter(of_token) {
                Some(route) => Some(What::Resource(route)),
                None if path.as_str() == REPORTS && routes.any_token() => Some(What::Reports),
                None => None,
            };
            if let Some(what) = what {
                return Ok(Self { path, query, token: Some((TokenPlacement::Path, token)), what, names });
            }
            // A relative URI in a playlist may lead to what needs no token: the token goes no further than here.
            if routes.any_token() && extract::looks_signed(token) {
                let route = routes.of(path).filter(|_| !extract::leads_with_token(rest)).ok_or(Refusal::NotFound)?;
                return Ok(Self { path, query, token: None, what: What::Resource(route), names });
            }
        }
        let whole = CleanPath::check(uri.path()).map_err(Refusal::Ambiguous)?;
        if extract::leads_with_token(uri.path()) && routes.any_token() {
            return Err(Refusal::NotFound);
        }
        let what = match routes.of(whole) {
            Some(route) => What::Resource(route),
            None if whole.as_str() == REPORTS && routes.any_token() => What::Reports,
            None => return Err(Refusal::NotFound),
        };
        let needs_token = match &what {
            What::Resource(route) => route.auth == Auth::Token,
            What::Reports => true,
        };
        let token = if needs_token { names.outside_path(query, headers) } else { None };
        Ok(Self { path: whole, query, token, what, names })
    }

    /// The query without the token, where anything else is left of it.
    pub(super) fn query_without_token(&self) -> Option<String> {
        self.names.query_without_token(self.query?)
    }
}

/// Who was asked for: the URI's authority (HTTP/2, absolute form) or `Host`.
pub(super) fn host(head: &http::request::Parts) -> &str {
    let in_uri = head.uri.authority().map(http::uri::Authority::as_str);
    in_uri.or_else(|| head.headers.get(header::HOST)?.to_str().ok()).unwrap_or("")
}

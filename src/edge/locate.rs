//! What a request asks for: the path that was checked, where its token stands, its query.
//!
//! The token may stand in four places, looked for in this order: the path (`/t/{token}/…`), the query (`?token=`),
//! `Authorization: Bearer`, the cookie `lyceum_token`. The first that holds one decides.

use http::header::{self, HeaderMap};

use super::config::Auth;
use super::error::Refusal;
use super::route::{Route, Routes};
use crate::semantics::{fields, path::CleanPath};
use std::sync::Arc;

/// The query parameter of a token.
const PARAMETER: &str = "token";
/// The cookie of a token.
pub(super) const COOKIE: &str = "lyceum_token";
/// What a path with a token begins with.
pub(super) const PATH_PREFIX: &str = "/t/";
/// Where event reports go.
const REPORTS: &str = "/cmcd";

/// Where a token stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
    Cookie,
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Located<'a> {
    /// The path without the token.
    pub(super) path: CleanPath<'a>,
    /// The query, with all its parameters.
    pub(super) query: Option<&'a str>,
    /// The first token found.
    pub(super) token: Option<(Place, &'a str)>,
    /// What it is.
    pub(super) what: What<'a>,
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
        let query = uri.query();
        if let Some((token, rest)) = split(uri.path()) {
            let path = CleanPath::check(rest).map_err(Refusal::Ambiguous)?;
            let of_token = |route: &&Arc<Route>| route.auth == Auth::Token;
            let what = match routes.of(path).filter(of_token) {
                Some(route) => Some(What::Resource(route)),
                None if path.as_str() == REPORTS && routes.any_token() => Some(What::Reports),
                None => None,
            };
            if let Some(what) = what {
                return Ok(Self { path, query, token: Some((Place::Path, token)), what });
            }
        }
        let whole = CleanPath::check(uri.path()).map_err(Refusal::Ambiguous)?;
        let what = match routes.of(whole) {
            Some(route) => What::Resource(route),
            None if whole.as_str() == REPORTS && routes.any_token() => What::Reports,
            None => return Err(Refusal::NotFound),
        };
        let needs_token = match &what {
            What::Resource(route) => route.auth == Auth::Token,
            What::Reports => true,
        };
        let token = if needs_token { elsewhere(query, headers) } else { None };
        Ok(Self { path: whole, query, token, what })
    }

    /// The query without the token, where anything else is left of it.
    pub(super) fn query_without_token(&self) -> Option<String> {
        let others: Vec<&str> = self.query?.split('&').filter(|pair| of_parameter(pair).is_none()).collect();
        let others = others.join("&");
        (!others.is_empty()).then_some(others)
    }
}

/// `/t/{token}/rest` as token and `/rest`. The token's segment routes nothing and goes nowhere: it is judged as a token.
fn split(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(PATH_PREFIX)?;
    rest.split_at_checked(rest.find('/')?)
}

fn of_parameter(pair: &str) -> Option<&str> {
    pair.strip_prefix(PARAMETER)?.strip_prefix('=')
}

fn elsewhere<'a>(query: Option<&'a str>, headers: &'a HeaderMap) -> Option<(Place, &'a str)> {
    let in_query = || query?.split('&').find_map(of_parameter).map(|token| (Place::Query, token));
    in_query()
        .or_else(|| bearer(headers).map(|token| (Place::Header, token)))
        .or_else(|| cookie(headers).map(|token| (Place::Cookie, token)))
}

/// What `Authorization: Bearer` shows (RFC 6750, section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, credentials) = fields::single(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim())
}

/// The token in the cookie: of several the first, which is the one of the longest path (RFC 6265, section 5.4).
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    fields::values(headers, &header::COOKIE)
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
        .map(fields::unquote)
}

/// Who was asked for: the URI's authority (HTTP/2, absolute form) or `Host`.
pub(super) fn host(head: &http::request::Parts) -> &str {
    let in_uri = head.uri.authority().map(http::uri::Authority::as_str);
    in_uri.or_else(|| head.headers.get(header::HOST)?.to_str().ok()).unwrap_or("")
}

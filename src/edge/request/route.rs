//! Routes: the longest matching prefix decides which pool is asked, what a client has to show, and what the key is.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::StatusCode;

use super::cors::Cors;
use crate::config::{self, Auth};
use crate::config_check::check_route;
use crate::error::StartError;
use lyceum_http::cmcd;
use lyceum_http::path::CleanPath;
use lyceum_token::extract::TokenNames;
use lyceum_upstream::Pool;

/// One route, ready to be used.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its index in the configuration, by which its metrics are found.
    pub(crate) index: usize,
    pub(crate) prefix: String,
    pub(crate) pool: Arc<Pool>,
    pub(crate) auth: Auth,
    pub(crate) bearer: Option<String>,
    /// The names of the token's cookie, which is kept from origins, where this or another route takes tokens.
    pub(crate) token_names: Option<TokenNames>,
    pub(crate) query: KeyQuery,
    pub(crate) key_host: bool,
    pub(crate) cors: Arc<Cors>,
    /// Freshness lifetimes in seconds of responses without explicit freshness: all, and errors.
    default_life: Option<u32>,
    error_life: Option<u32>,
}

/// Which query parameters are part of the cache key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyQuery {
    /// All but what players report to the edge (CTA-5004, section 2: caches leave it out of their keys).
    All,
    Some(Vec<String>),
}

/// All routes, the longest prefix first.
#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<Arc<Route>>,
    names: TokenNames,
}

impl Routes {
    pub(crate) fn new(
        routes: &[config::Route],
        pools: &HashMap<String, (Arc<Pool>, bool)>,
        tokens: Option<&config::Tokens>,
        cors: &Arc<Cors>,
    ) -> Result<Self, StartError> {
        let mut made: Vec<Arc<Route>> = Vec::with_capacity(routes.len());
        let takes_tokens = routes.iter().any(|route| route.auth == Auth::Token);
        let names = tokens.map(|tokens| tokens.attribute.clone()).unwrap_or_default();
        for (index, route) in routes.iter().enumerate() {
            let wrong = |what| StartError::Route { prefix: route.prefix.clone(), what };
            let pool = pools.get(&route.pool);
            let before = routes.iter().take(index).map(|route| route.prefix.as_str());
            let with_credentials = pool.map(|(_, has_credentials)| *has_credentials);
            check_route(route, with_credentials, tokens.is_some(), before).map_err(|(_, what)| wrong(what))?;
            let Some((pool, _)) = pool else { continue };
            let token = route.auth == Auth::Token;
            made.push(Arc::new(Route {
                index,
                prefix: route.prefix.clone(),
                pool: Arc::clone(pool),
                auth: route.auth,
                bearer: route.bearer.clone(),
                token_names: takes_tokens.then(|| names.clone()),
                query: key_query(route.cache_key_query.as_deref(), token),
                key_host: route.cache_key_host.unwrap_or(!token),
                cors: Arc::clone(cors),
                default_life: route.default_freshness.map(seconds),
                error_life: route.error_freshness.map(seconds),
            }));
        }
        made.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        Ok(Self { routes: made, names })
    }

    /// The route with the longest prefix that holds a path.
    pub(crate) fn of(&self, path: CleanPath<'_>) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| path.is_under(&route.prefix))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }

    /// The names of the query parameter and the cookie that carry a token.
    pub(crate) fn names(&self) -> &TokenNames {
        &self.names
    }

    pub(crate) fn any_token(&self) -> bool {
        self.routes.iter().any(|route| route.auth == Auth::Token)
    }
}

fn seconds(span: lyceum_core::units::Span) -> u32 {
    u32::try_from(span.get().as_secs()).unwrap_or(u32::MAX)
}

fn key_query(configured: Option<&[String]>, token: bool) -> KeyQuery {
    match configured {
        None if token => KeyQuery::Some(Vec::new()),
        None => KeyQuery::All,
        Some(names) if names.iter().any(|name| name == "*") => KeyQuery::All,
        Some(names) => KeyQuery::Some(names.to_vec()),
    }
}

impl Route {
    /// The freshness lifetime in seconds of a response without an explicit one; `None`: it is not stored.
    pub(crate) fn default_life(&self, status: StatusCode) -> Option<u32> {
        let is_error = status.is_client_error() || status.is_server_error();
        self.error_life.filter(|_| is_error).or(self.default_life)
    }

    /// The part of a query that is in the key and goes upstream, if any.
    pub(crate) fn key_query(&self, query: Option<&str>) -> Option<String> {
        let query = query?;
        match &self.query {
            KeyQuery::All => cmcd::query_without_report(query).map(Cow::into_owned),
            KeyQuery::Some(names) if names.is_empty() => None,
            KeyQuery::Some(names) => {
                let named = |pair: &&str| names.iter().any(|name| pair.split('=').next() == Some(name));
                let kept: Vec<&str> = query.split('&').filter(named).collect();
                (!kept.is_empty()).then(|| kept.join("&"))
            }
        }
    }
}

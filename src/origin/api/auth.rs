//! Who asks: an API key in `Authorization: Bearer`, a page's login cookie, or an edge's secret.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::FromRequestParts;
use cookie::Cookie;
use http::request::Parts;
use http::{HeaderMap, Method, header};
use std::sync::Arc;

use super::refusal::Refusal;
use crate::state::App;
use lyceum_catalog::{self as catalog, ApiKey, Role};
use lyceum_core::ids::Id;

/// The cookie of a page's login.
pub(super) const LOGIN_COOKIE: &str = "lyceum_login";

/// Whoever showed a valid key.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) key: ApiKey,
}

impl Caller {
    /// A process that this origin started.
    fn own_worker() -> Result<Self, Refusal> {
        let id = Id::parse("ownworker").map_err(|error| Refusal::Internal(error.to_string()))?;
        Ok(Self { key: ApiKey { id, role: Role::Worker, name: "own worker".to_owned(), created: 0, quota: None } })
    }

    pub(super) fn is(&self, roles: &[Role]) -> Result<(), Refusal> {
        if self.key.role == Role::Admin || roles.contains(&self.key.role) { Ok(()) } else { Err(Refusal::Forbidden) }
    }

    /// The owner that this caller's lists are narrowed to.
    pub(super) fn narrowed(&self) -> Option<&str> {
        (self.key.role == Role::Creator).then_some(self.key.id.as_str())
    }

    /// A creator sees only their own, and nothing that tells of others'.
    pub(super) fn sees(&self, owner: &str) -> Result<(), Refusal> {
        match self.key.role {
            Role::Admin | Role::Shop => Ok(()),
            Role::Creator if self.key.id.as_str() == owner => Ok(()),
            _ => Err(Refusal::NotFound),
        }
    }

    /// Who may change what belongs to `owner`.
    pub(super) fn owns(&self, owner: &str) -> Result<(), Refusal> {
        self.sees(owner)?;
        self.is(&[Role::Creator])
    }
}

/// The text behind `Bearer `, whatever the case of the scheme (RFC 9110, section 11.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, text) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| text.trim())
}

/// The secret in the login cookie (RFC 6265).
pub(super) fn login_cookie(headers: &HeaderMap) -> Option<String> {
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = fields.flat_map(Cookie::split_parse).filter_map(Result::ok);
    cookies.find(|cookie| cookie.name() == LOGIN_COOKIE).map(|cookie| cookie.value().to_owned())
}

/// Whether a page of this very origin asks. Browsers send `Origin` with whatever may change something.
pub(super) fn is_same_origin(app: &App, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok()) else { return false };
    if origin == app.config().public_url {
        return true;
    }
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    authority.is_some() && authority == host
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let headers = &parts.headers;
        if let Some(secret) = bearer(headers) {
            let hash = catalog::hash_secret(secret);
            if app.worker_key.matches(&hash) {
                return Self::own_worker();
            }
            let mut tx = app.db.read().await?;
            let key = catalog::find_api_key(&mut tx, hash).await?;
            return key.map(|key| Self { key }).ok_or(Refusal::Unauthenticated);
        }
        let login = login_cookie(headers).ok_or(Refusal::Unauthenticated)?;
        let safe = matches!(parts.method, Method::GET | Method::HEAD);
        if !safe && !is_same_origin(app, headers) {
            return Err(Refusal::CrossSite);
        }
        let mut tx = app.db.read().await?;
        let key = catalog::find_login(&mut tx, catalog::hash_secret(&login), app.clock.unix_millis()).await?;
        key.map(|key| Self { key }).ok_or(Refusal::Unauthenticated)
    }
}

/// An edge that showed `edge_bearer`.
pub(super) struct Edge;

impl FromRequestParts<Arc<App>> for Edge {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let shown = bearer(&parts.headers).ok_or(Refusal::Unauthenticated)?;
        // Hashed first: equal lengths, and nothing to learn from the time.
        let (shown, wanted) = (catalog::hash_secret(shown), catalog::hash_secret(app.config().edge_bearer.expose()));
        verify_slices_are_equal(&shown, &wanted).map(|()| Self).map_err(|_| Refusal::Unauthenticated)
    }
}

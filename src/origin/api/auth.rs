//! Authentication: an API key in `Authorization: Bearer`, a page's login cookie, or the edges' shared secret. What a
//! caller may do is decided in [`crate::access`].

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::FromRequestParts;
use cookie::Cookie;
use http::request::Parts;
use http::{Extensions, HeaderMap, Method, header};
use std::net::IpAddr;
use std::sync::Arc;

use super::refusal::Refusal;
use crate::access::{Caller, Credential, find_caller};
use crate::attempts::Attempts;
use crate::state::App;
use lyceum_catalog as catalog;
use lyceum_core::time::monotonic;
use lyceum_server::Peer;

/// The cookie of a page's login.
pub(super) const LOGIN_COOKIE: &str = "lyceum_login";

/// The credential behind `Bearer `; the scheme is case-insensitive (RFC 9110, section 11.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credential) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
}

/// The secret in the login cookie (RFC 6265).
pub(super) fn login_cookie(headers: &HeaderMap) -> Option<String> {
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = fields.flat_map(Cookie::split_parse).filter_map(Result::ok);
    cookies.find(|cookie| cookie.name() == LOGIN_COOKIE).map(|cookie| cookie.value().to_owned())
}

/// Whether a page of this web origin sent the request. Browsers send `Origin` with every request that may change
/// something.
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
        let credential = credential(app, parts)?;
        let brake = bearer(&parts.headers).and_then(|secret| Brake::on_request(app, &parts.extensions, secret));
        brake.as_ref().map_or(Ok(()), Brake::check)?;
        let mut tx = app.db.read().await?;
        let caller = find_caller(&mut tx, credential, app.clock.unix_millis()).await?;
        if let (None, Some(brake)) = (&caller, &brake) {
            brake.count();
        }
        caller.ok_or(Refusal::Unauthenticated)
    }
}

/// The brake on guessing a secret, for secrets that could be guessed.
pub(super) struct Brake<'a> {
    attempts: &'a Attempts,
    per_minute: u64,
    address: IpAddr,
}

/// A program that has a wrong key asks for more than people who log in.
const REQUESTS_PER_LOGIN: u64 = 20;

impl<'a> Brake<'a> {
    /// The brake for a login with `secret`, where it needs one.
    pub(super) fn on_login(app: &'a App, request: &Extensions, secret: &str) -> Option<Self> {
        Self::on(&app.login_attempts, app.config().api.attempts, request, secret)
    }

    /// The brake for a request with `secret`, where it needs one.
    pub(super) fn on_request(app: &'a App, request: &Extensions, secret: &str) -> Option<Self> {
        let per_minute = app.config().api.attempts.saturating_mul(REQUESTS_PER_LOGIN);
        Self::on(&app.request_attempts, per_minute, request, secret)
    }

    fn on(attempts: &'a Attempts, per_minute: u64, request: &Extensions, secret: &str) -> Option<Self> {
        let peer = request.get::<Peer>().filter(|_| !catalog::has_form_of_new_secret(secret))?;
        Some(Self { attempts, per_minute, address: peer.address.ip() })
    }

    /// Refuses where too many wrong ones came before.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let checked = self.attempts.check(self.address, self.per_minute, monotonic());
        checked.map_err(|wait| Refusal::TooManyAttempts { wait })
    }

    /// Counts a wrong one.
    pub(super) fn count(&self) {
        self.attempts.count(self.address, self.per_minute, monotonic());
    }
}

/// What the request carries.
fn credential(app: &App, parts: &Parts) -> Result<Credential, Refusal> {
    if let Some(secret) = bearer(&parts.headers) {
        let hash = catalog::hash_secret(secret);
        return Ok(if app.worker_key.matches(&hash) { Credential::OwnWorker } else { Credential::Secret(hash) });
    }
    let login = login_cookie(&parts.headers).ok_or(Refusal::Unauthenticated)?;
    let safe = matches!(parts.method, Method::GET | Method::HEAD);
    if !safe && !is_same_origin(app, &parts.headers) {
        return Err(Refusal::CrossSite);
    }
    Ok(Credential::Login(catalog::hash_secret(&login)))
}

/// Proof that the request carried `edge_bearer`: an edge sent it.
pub(super) struct Edge;

impl FromRequestParts<Arc<App>> for Edge {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let presented = bearer(&parts.headers).ok_or(Refusal::Unauthenticated)?;
        // Hashed first, so that lengths are equal and the comparison takes constant time.
        let (presented, expected) =
            (catalog::hash_secret(presented), catalog::hash_secret(app.config().edge_bearer.expose()));
        verify_slices_are_equal(&presented, &expected).map(|()| Self).map_err(|_| Refusal::Unauthenticated)
    }
}

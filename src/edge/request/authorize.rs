//! Authorize: what a request's token or bearer opens, and the renewed token for the client (RFC 9246, section 3).
//!
//! A renewed token is sent in the cookie. Where the token stands in the path, the cookie's `Path` includes that token,
//! so that two lessons in two tabs keep separate cookies; there, an expired token in the path yields to the cookie that
//! renewed it. Any other fault of the first token is final.

use std::borrow::Cow;

use http::header::HeaderValue;
use http::request;

use super::prepare::ResourceRequest;
use super::target::RequestTarget;
use crate::config::Auth;
use crate::error::Refusal;
use crate::state::State;
use lyceum_packaging::filter::Limits;
use lyceum_server::Peer;
use lyceum_token::extract::{PATH_PREFIX, TokenPlacement, bearer};
use lyceum_token::{Denied, Facts, Grant, RenewedToken, RequestUri};

/// What a request may do.
#[derive(Debug)]
pub(crate) struct Authorized {
    /// What the token grants; `None` on routes without tokens.
    pub(crate) grant: Option<Grant>,
    /// The revocation generation before the token was verified.
    pub(crate) generation: u64,
    /// `Set-Cookie` with the renewed token.
    pub(crate) cookie: Option<HeaderValue>,
}

impl Authorized {
    /// What playlists are cut down to for this request.
    pub(crate) fn limits(&self) -> Limits {
        let grant = self.grant.as_ref();
        Limits { max_height: grant.and_then(Grant::max_height), preview_ms: grant.and_then(Grant::preview_ms) }
    }
}

/// Judges the token or the bearer that the route asks for.
pub(crate) async fn authorize(
    state: &State,
    peer: Peer,
    request: &ResourceRequest<'_>,
    head: &request::Parts,
) -> Result<Authorized, Refusal> {
    let generation = state.guard.verifier.as_ref().map_or(0, |verifier| verifier.revocations().generation());
    match request.route.auth {
        Auth::None => Ok(Authorized { grant: None, generation, cookie: None }),
        Auth::Bearer => {
            let shown = bearer(&head.headers).unwrap_or("");
            let wanted = request.route.bearer.as_deref().unwrap_or("");
            let same = aws_lc_rs::constant_time::verify_slices_are_equal(shown.as_bytes(), wanted.as_bytes());
            match same.is_ok() && !wanted.is_empty() {
                true => Ok(Authorized { grant: None, generation, cookie: None }),
                false => Err(Refusal::Bearer),
            }
        }
        Auth::Token => {
            let (grant, cookie) = authorize_token(state, peer, request, head).await?;
            Ok(Authorized { grant: Some(grant), generation, cookie })
        }
    }
}

async fn authorize_token(
    state: &State,
    peer: Peer,
    request: &ResourceRequest<'_>,
    head: &request::Parts,
) -> Result<(Grant, Option<HeaderValue>), Denied> {
    let target = &request.target;
    let (place, token) = target.token.ok_or(Denied::Missing)?;
    let query = match place {
        TokenPlacement::Query => target.query_without_token().map(Cow::Owned),
        _ => target.query.map(Cow::Borrowed),
    };
    let facts = facts(peer, request, query.as_deref(), state.clock.unix_seconds());
    let in_cookie = || target.names.cookie(&head.headers).filter(|_| place != TokenPlacement::Cookie);
    let grant = match verify(state, token, &facts).await {
        Err(Denied::Expired) => renewed_before(state, in_cookie(), &facts).ok_or(Denied::Expired)?,
        verdict => verdict?,
    };
    state.guard.control.lease(&grant).await?;
    let renewed = if grant.is_renewable() { renew(state, &grant, in_cookie(), &facts) } else { None };
    let cookie = renewed.and_then(|renewed| cookie(&renewed, target, peer.tls));
    Ok((grant, cookie))
}

/// What a token for a resource is judged by; `query` is without the token, `now` in Unix seconds.
#[inline]
pub(crate) fn facts<'a>(peer: Peer, request: &ResourceRequest<'a>, query: Option<&'a str>, now: i64) -> Facts<'a> {
    Facts {
        path: Some(request.target.path),
        uri: RequestUri { secure: peer.tls, host: request.host, query },
        client: Some(peer.address.ip()),
        now,
    }
}

/// Judges the token of event reports, which name no path.
pub(crate) async fn authorize_report(state: &State, peer: Peer, target: &RequestTarget<'_>) -> Result<(), Denied> {
    let (_, token) = target.token.ok_or(Denied::Missing)?;
    let facts = Facts { client: Some(peer.address.ip()), now: state.clock.unix_seconds(), ..Facts::default() };
    verify(state, token, &facts).await.map(drop)
}

/// Verifies a token; where its key is unknown, the issuer's keys are refreshed once and the token verified again.
async fn verify(state: &State, token: &str, facts: &Facts<'_>) -> Result<Grant, Denied> {
    let Some(verifier) = &state.guard.verifier else { return Err(Denied::WrongIssuer) };
    match verifier.verify(token, facts) {
        Err(Denied::UnknownKey(want)) if Box::pin(state.guard.control.look_for_key(want)).await => {
            verifier.verify(token, facts)
        }
        verdict => verdict,
    }
}

/// The grant of a renewed token in the cookie.
fn renewed_before(state: &State, cookie: Option<&str>, facts: &Facts<'_>) -> Option<Grant> {
    let grant = state.guard.verifier.as_ref()?.verify(cookie?, facts).ok()?;
    grant.is_renewed().then_some(grant)
}

/// A renewed token, unless the client's token or cookie is fresh enough.
fn renew(state: &State, grant: &Grant, cookie: Option<&str>, facts: &Facts<'_>) -> Option<RenewedToken> {
    let held = renewed_before(state, cookie, facts);
    if grant.is_fresh_renewal_of(grant, facts.now)
        || held.is_some_and(|held| held.is_fresh_renewal_of(grant, facts.now))
    {
        return None;
    }
    state.guard.verifier.as_ref()?.renew(grant, facts)
}

/// `Set-Cookie` (RFC 6265, section 4.1). Pages of another site need `SameSite=None`, which browsers accept over TLS only.
fn cookie(renewed: &RenewedToken, target: &RequestTarget<'_>, tls: bool) -> Option<HeaderValue> {
    let mut path = match target.token {
        Some((TokenPlacement::Path, token)) => format!("{PATH_PREFIX}{token}"),
        _ => String::new(),
    };
    for segment in target.path.segments().take(renewed.path_depth) {
        path.push('/');
        path.push_str(segment);
    }
    if path.is_empty() {
        path.push('/');
    }
    if path.contains(';') {
        // It would end the attribute.
        return None;
    }
    let site = if tls { "Secure; SameSite=None" } else { "SameSite=Lax" };
    let RenewedToken { token, lifetime_seconds, .. } = renewed;
    let name = target.names.cookie_name();
    HeaderValue::try_from(format!("{name}={token}; Path={path}; Max-Age={lifetime_seconds}; HttpOnly; {site}")).ok()
}

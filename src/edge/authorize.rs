//! What a request's token opens, and the token that follows it (RFC 9246, section 3).
//!
//! A renewed token travels in the cookie. In the path form the cookie belongs to the path with its token, so that two
//! lessons in two tabs do not take one another's: there a token in the path that has ended lets the cookie that
//! renewed it decide. No other fault of the first token is looked past.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::HeaderValue;

use super::Inner;
use super::locate::{self, Located, TokenPlacement};
use lyceum_server::Peer;
use lyceum_token::{Denied, Facts, Grant, RenewedToken, RequestUri};

/// What a token came to.
#[derive(Debug)]
pub(super) struct Authorized {
    pub(super) grant: Grant,
    /// The cookie with the token that follows.
    pub(super) cookie: Option<HeaderValue>,
}

impl Inner {
    /// Judges the token of a request for a resource.
    pub(super) async fn admit_token(
        self: &Arc<Self>,
        peer: Peer,
        located: &Located<'_>,
        head: &http::request::Parts,
    ) -> Result<Authorized, Denied> {
        let (place, token) = located.token.ok_or(Denied::Missing)?;
        let query = match place {
            TokenPlacement::Query => located.query_without_token().map(Cow::Owned),
            _ => located.query.map(Cow::Borrowed),
        };
        let facts = Facts {
            path: Some(located.path),
            uri: RequestUri { secure: peer.tls, host: locate::host(head), query: query.as_deref() },
            client: Some(peer.address.ip()),
            now: self.clock.unix_seconds(),
        };
        let in_cookie = || located.names.cookie(&head.headers).filter(|_| place != TokenPlacement::Cookie);
        let grant = match self.verify(token, &facts).await {
            Err(Denied::Expired) => self.renewed_before(in_cookie(), &facts).ok_or(Denied::Expired)?,
            verdict => verdict?,
        };
        self.guard.follow.lease(&grant).await?;
        let cookie = if grant.is_renewable() { self.renewal(&grant, in_cookie(), &facts) } else { None };
        let cookie = cookie.and_then(|renewed| cookie_of(&renewed, located, peer.tls));
        Ok(Authorized { grant, cookie })
    }

    /// Judges the token of a request that opens no path.
    pub(super) async fn admit_report(&self, peer: Peer, located: &Located<'_>) -> Result<(), Denied> {
        let (_, token) = located.token.ok_or(Denied::Missing)?;
        let facts = Facts { client: Some(peer.address.ip()), now: self.clock.unix_seconds(), ..Facts::default() };
        self.verify(token, &facts).await.map(drop)
    }

    /// Verifies a token; a key that is not known is looked for at its issuer, boundedly, and the token tried again.
    async fn verify(&self, token: &str, facts: &Facts<'_>) -> Result<Grant, Denied> {
        let Some(verifier) = &self.guard.verifier else { return Err(Denied::WrongIssuer) };
        match verifier.verify(token, facts) {
            Err(Denied::UnknownKey(want)) if Box::pin(self.guard.follow.look_for_key(want)).await => {
                verifier.verify(token, facts)
            }
            verdict => verdict,
        }
    }

    /// The grant of a renewed token in the cookie.
    fn renewed_before(&self, cookie: Option<&str>, facts: &Facts<'_>) -> Option<Grant> {
        let grant = self.guard.verifier.as_ref()?.verify(cookie?, facts).ok()?;
        grant.is_renewed().then_some(grant)
    }

    fn renewal(&self, grant: &Grant, cookie: Option<&str>, facts: &Facts<'_>) -> Option<RenewedToken> {
        let held = self.renewed_before(cookie, facts);
        if grant.is_fresh_renewal_of(grant, facts.now)
            || held.is_some_and(|held| held.is_fresh_renewal_of(grant, facts.now))
        {
            return None;
        }
        self.guard.verifier.as_ref()?.renew(grant, facts)
    }
}

/// `Set-Cookie` (RFC 6265, section 4.1). A page of another site needs `SameSite=None`, which browsers take over TLS
/// alone.
fn cookie_of(renewed: &RenewedToken, located: &Located<'_>, tls: bool) -> Option<HeaderValue> {
    let mut path = match located.token {
        Some((TokenPlacement::Path, token)) => format!("{}{token}", locate::PATH_PREFIX),
        _ => String::new(),
    };
    for segment in located.path.segments().take(renewed.path_depth) {
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
    let name = located.names.cookie_name();
    HeaderValue::try_from(format!("{name}={token}; Path={path}; Max-Age={lifetime_seconds}; HttpOnly; {site}")).ok()
}

//! The checks of a token, in this order: form, issuer, key, signature, claims, audience, times; then, on each use, times,
//! revocation, client and scope.
//!
//! A token that passed the first group is cached. What can change afterwards is checked on each use.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::claims::{ClientBinding, ParsedClaims};
use crate::denied::{Denied, IssuerIndex};
use crate::grant::{Grant, Verified, VerifiedToken};
use crate::issuer::Issuer;
use crate::jwe::{self, ClaimKey};
use crate::jwks::VerifyingKey;
use crate::jws::{self, CompactJws, JoseHeader};
use crate::renewal::{Renewable, RenewedToken, Renewer};
use crate::revocations::Revocations;
use crate::scope::Scope;
use crate::strict_json;
use crate::uri_container::{PatternCache, RequestUri};
use crate::verified_cache::VerifiedCache;
use lyceum_core::time::monotonic;
use lyceum_http::ip_network::Network;
use lyceum_http::path::CleanPath;

/// The request that a token is checked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The requested path; none where the token need not allow one, such as for a player's reports.
    pub path: Option<CleanPath<'a>>,
    /// The requested URI beside its path.
    pub uri: RequestUri<'a>,
    /// The client's address; without it a token that is bound to a client is denied.
    pub client: Option<IpAddr>,
    /// Seconds since the Unix epoch.
    pub now: i64,
}

/// The parts of a verifier.
#[derive(Debug)]
pub struct VerifierConfig {
    /// The audience that `aud` has to name.
    pub audience: String,
    /// Who may sign.
    pub issuers: Vec<Issuer>,
    /// How many verified tokens are cached; 0 caches none.
    pub max_cached_tokens: usize,
    /// How many revoked sessions are held.
    pub max_revoked_sessions: usize,
    /// Whether a token without `jti` is denied: it could not be revoked.
    pub require_session: bool,
    /// Renews tokens that ask for it; without it they are denied.
    pub renewer: Option<Renewer>,
    /// The keys that decrypt claims.
    pub claim_keys: Vec<ClaimKey>,
}

/// Checks tokens. Never waits.
#[derive(Debug)]
pub struct Verifier {
    audience: String,
    issuers: Vec<Issuer>,
    require_session: bool,
    cache: VerifiedCache,
    revocations: Arc<Revocations>,
    renewer: Option<Renewer>,
    claim_keys: Vec<ClaimKey>,
    patterns: PatternCache,
}

impl Verifier {
    /// A verifier with an empty cache.
    pub fn new(config: VerifierConfig) -> Self {
        Self {
            audience: config.audience,
            issuers: config.issuers,
            require_session: config.require_session,
            cache: VerifiedCache::new(config.max_cached_tokens),
            revocations: Arc::new(Revocations::new(config.max_revoked_sessions)),
            renewer: config.renewer,
            claim_keys: config.claim_keys,
            patterns: PatternCache::new(),
        }
    }

    /// A verifier that replaces `former`. The two share the revoked sessions, so that none plays on under either.
    pub fn successor(config: VerifierConfig, former: &Self) -> Self {
        Self { revocations: Arc::clone(&former.revocations), ..Self::new(config) }
    }

    /// The trusted issuers, in the order given.
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// The revoked sessions.
    #[inline]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// How many verified tokens are cached now.
    pub fn cached_tokens(&self) -> usize {
        self.cache.len()
    }

    /// Checks the token `text` for one request.
    pub fn verify(&self, text: &str, facts: &Facts<'_>) -> Result<Grant, Denied> {
        let token = match self.cached(text) {
            Some(token) => token,
            None => {
                let verified = Arc::new(self.verify_text(text, facts.now)?);
                self.cache.put(text, verified.clone());
                VerifiedToken(verified)
            }
        };
        self.authorize(token, facts)
    }

    /// A token that was verified before, by a key that is still trusted.
    #[inline]
    pub fn cached(&self, text: &str) -> Option<VerifiedToken> {
        self.cache.get(text).filter(|verified| !verified.key.is_withdrawn()).map(VerifiedToken)
    }

    /// Makes the checks that depend on the request.
    #[inline]
    pub fn authorize(&self, token: VerifiedToken, facts: &Facts<'_>) -> Result<Grant, Denied> {
        let VerifiedToken(verified) = token;
        verified.check_times(facts.now)?;
        self.check_revoked(&verified)?;
        if let Some(network) = &verified.client
            && !facts.client.is_some_and(|client| network.contains(client))
        {
            return Err(Denied::WrongClient);
        }
        if !facts.path.is_none_or(|path| verified.scope.holds(path, &facts.uri, &self.patterns)) {
            return Err(Denied::OutOfScope);
        }
        Ok(Grant(verified))
    }

    /// Renews the token of `grant` for the path of `facts`. None where the token does not ask for it, or where the path has
    /// fewer segments than `cdnistd` says (RFC 9246, section 2.1.14).
    pub fn renew(&self, grant: &Grant, facts: &Facts<'_>) -> Option<RenewedToken> {
        let renewable = grant.0.renewable.as_ref()?;
        let depth = renewable.terms.path_depth;
        if facts.path?.segments().filter(|segment| !segment.is_empty()).count() < depth {
            return None;
        }
        let (token, lifetime_seconds) = self.renewer.as_ref()?.renew(&renewable.payload, renewable.terms, facts.now)?;
        Some(RenewedToken { token, lifetime_seconds, path_depth: depth })
    }

    /// The longest lifetime of a renewed token, in seconds, where tokens are renewed: for so long after its last renewal a
    /// revoked session may still have a token that has not expired.
    pub fn max_renewal_seconds(&self) -> Option<i64> {
        self.renewer.as_ref().map(Renewer::max_lifetime_seconds)
    }

    /// Whether an earlier grant still holds: checks key, times and revocation again.
    pub fn still_holds(&self, grant: &Grant, now: i64) -> Result<(), Denied> {
        let verified = &grant.0;
        if verified.key.is_withdrawn() {
            return Err(Denied::BadSignature);
        }
        verified.check_times(now)?;
        self.check_revoked(verified)
    }

    /// Checks whether the session was revoked; looks it up once for each change of the revocations.
    #[inline]
    fn check_revoked(&self, verified: &Verified) -> Result<(), Denied> {
        let Some(session) = verified.session.as_deref() else { return Ok(()) };
        // Read before the look-up: what is added meanwhile has a later generation.
        let generation = self.revocations.generation().wrapping_add(1);
        if verified.unrevoked_in.load(Ordering::Relaxed) == generation {
            return Ok(());
        }
        if self.revocations.contains(session) {
            return Err(Denied::Revoked);
        }
        verified.unrevoked_in.store(generation, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the checks that depend on the token's text alone. Times are checked too, so that an expired token is not
    /// cached. Claims are checked after the signature: a forged token learns no more than that it is forged.
    fn verify_text(&self, text: &str, now: i64) -> Result<Verified, Denied> {
        let jws = CompactJws::split(text)?;
        let header = JoseHeader::read(jws.header)?;
        let payload = jws::decode(jws.payload).and_then(|bytes| strict_json::object(&bytes));
        let key = match &payload {
            Ok(claims) => self.key_of(claims.get("iss").and_then(Value::as_str), header.kid.as_deref())?,
            // A payload that can't be read names no issuer. Whether its signature is good still tells a changed token
            // from one that its issuer made wrong.
            Err(malformed) => self.any_key(header.kid.as_deref()).ok_or(*malformed)?,
        };
        if !jws.is_signed_by(&key, &header) {
            return Err(Denied::BadSignature);
        }
        let payload = payload?;
        let renewed = self
            .renewer
            .as_ref()
            .is_some_and(|renewer| payload.get("iss").and_then(Value::as_str) == Some(renewer.issuer()));
        let kept = payload.contains_key("cdnistt").then(|| payload.clone());
        let mut parsed = ParsedClaims::read(payload)?;
        if let Some(claim) = header.unsupported.or(parsed.unsupported) {
            return Err(Denied::UnsupportedClaim(claim));
        }
        if !parsed.audiences.contains(&self.audience) {
            return Err(Denied::WrongAudience);
        }
        if self.require_session && parsed.session.is_none() {
            return Err(Denied::Malformed);
        }
        let renewable = match (parsed.renewal, kept, &self.renewer) {
            (Some(terms), Some(payload), Some(_)) => Some(Box::new(Renewable { terms, payload })),
            // Its issuer counts on the renewal: it is denied at the start rather than in the middle of playback.
            (Some(_), _, None) => return Err(Denied::UnsupportedClaim("cdnistt")),
            _ => None,
        };
        let client = self.client_network(&parsed)?;
        let scope = Scope::new(&mut parsed);
        let verified = Verified {
            key,
            expires: parsed.expires,
            not_before: parsed.not_before,
            session: parsed.session.map(String::into_boxed_str),
            user: parsed.subject.map(String::into_boxed_str),
            client,
            scope,
            renewed,
            renewable,
            verified_at: monotonic(),
            other_checks_skipped_until_ms: AtomicU64::new(0),
            unrevoked_in: AtomicU64::new(0),
        };
        verified.check_times(now)?;
        Ok(verified)
    }

    /// The network that `cdniip` names (RFC 9246, section 2.1.10).
    fn client_network(&self, parsed: &ParsedClaims) -> Result<Option<Network>, Denied> {
        match &parsed.client {
            None => Ok(None),
            Some(ClientBinding::Plain(network)) => Ok(Some(*network)),
            Some(ClientBinding::Encrypted(claim)) => {
                jwe::decrypt(claim, &self.claim_keys)?.parse().map(Some).map_err(|_| Denied::Malformed)
            }
        }
    }

    fn key_of(&self, issuer: Option<&str>, kid: Option<&str>) -> Result<Arc<VerifyingKey>, Denied> {
        let named = issuer.ok_or(Denied::WrongIssuer)?;
        let (index, issuer) =
            self.issuers.iter().enumerate().find(|(_, i)| i.name == named).ok_or(Denied::WrongIssuer)?;
        kid.and_then(|kid| issuer.keys.load().by_kid.get(kid).cloned()).ok_or(Denied::UnknownKey(IssuerIndex(index)))
    }

    fn any_key(&self, kid: Option<&str>) -> Option<Arc<VerifyingKey>> {
        let kid = kid?;
        self.issuers.iter().find_map(|issuer| issuer.keys.load().by_kid.get(kid).cloned())
    }
}

//! The checks, in one order: shape, issuer, key, signature, times, audience, claims, session, scope.
//!
//! A token whose signature was good once is remembered; what can change since (time, key, revocation, path) is
//! looked at again on each use.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::claims::{self, ClientBinding, ParsedClaims};
use super::jwe::{self, ClaimKey};
use super::jwks::{Key, KeySet};
use super::renewal::{Renewable, RenewedToken, Renewer};
use super::revocations::Revocations;
use super::scope::Scope;
use super::uri_container::{PatternCache, RequestUri};
use super::verified_cache::VerifiedCache;
use super::{Algorithm, CLOCK_SKEW_SECONDS, MAX_TOKEN_BYTES};
use lyceum_core::time::{Instant, monotonic};
use lyceum_http::ip_network::Network;
use lyceum_http::path::CleanPath;

/// Why a token opens nothing. [`Denied::code`] is stable and is what clients, logs and metrics see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denied {
    /// None came.
    #[error("no token came with the request")]
    Missing,
    /// It is no token: its shape, its length, the type of a claim, no `exp`.
    #[error("the token is malformed")]
    Malformed,
    /// The signature is not one of the named key, or the algorithm is another than the key's.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// Its issuer has no such key; [`IssuerIndex`] says whose keys may be out of date.
    #[error("the token's key is not known")]
    UnknownKey(IssuerIndex),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is none that is trusted.
    #[error("the token is of another issuer")]
    WrongIssuer,
    /// `aud` does not name this edge.
    #[error("the token is for another audience")]
    WrongAudience,
    /// The token is bound to another client.
    #[error("the token is bound to another client")]
    WrongClient,
    /// A claim that must be understood is not.
    #[error("the token has a claim that is not supported here")]
    UnsupportedClaim(&'static str),
    /// Path, height or preview.
    #[error("the token does not open this path")]
    OutOfScope,
    /// The session was ended.
    #[error("the session was ended")]
    Revoked,
    /// The user plays as many streams as allowed.
    #[error("too many streams play at once")]
    TooManyStreams,
}

/// Which issuer a key was looked for at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IssuerIndex(pub(super) usize);

impl IssuerIndex {
    /// The place of the issuer in the list that the verifier was made with.
    pub fn issuer(self) -> usize {
        self.0
    }
}

impl Denied {
    /// Every code, for a metric that shows zeros from the start.
    pub const CODES: [&'static str; 13] = [
        "token_missing",
        "token_malformed",
        "token_bad_signature",
        "token_unknown_key",
        "token_expired",
        "token_not_yet_valid",
        "token_wrong_issuer",
        "token_wrong_audience",
        "token_wrong_client",
        "token_unsupported_claim",
        "token_out_of_scope",
        "token_revoked",
        "too_many_streams",
    ];

    /// The stable code of the design's section 4.
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Malformed => "token_malformed",
            Self::BadSignature => "token_bad_signature",
            Self::UnknownKey(_) => "token_unknown_key",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::WrongIssuer => "token_wrong_issuer",
            Self::WrongAudience => "token_wrong_audience",
            Self::WrongClient => "token_wrong_client",
            Self::UnsupportedClaim(_) => "token_unsupported_claim",
            Self::OutOfScope => "token_out_of_scope",
            Self::Revoked => "token_revoked",
            Self::TooManyStreams => "too_many_streams",
        }
    }
}

/// What a use of a token is judged by, beside its text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// What is asked for; none where no path is opened by it, such as for a player's reports.
    pub path: Option<CleanPath<'a>>,
    /// The rest of what is asked for.
    pub uri: RequestUri<'a>,
    /// Who asks; tokens that are bound to a client open nothing without.
    pub client: Option<IpAddr>,
    /// Seconds since the Unix epoch.
    pub now: i64,
}

/// One party that signs tokens.
#[derive(Debug)]
pub struct Issuer {
    name: String,
    keys: ArcSwap<KeySet>,
}

impl Issuer {
    /// An issuer that has no keys yet.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), keys: ArcSwap::default() }
    }

    /// Its name: what `iss` says.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Puts `keys` in the place of those it had; tokens of keys that are gone are refused from now on.
    pub fn replace(&self, keys: KeySet) {
        let former = self.keys.load();
        self.keys.store(Arc::new(keys.succeed(&former)));
    }

    /// How many keys it has.
    pub fn key_count(&self) -> usize {
        self.keys.load().by_kid.len()
    }
}

/// How a verifier is made.
#[derive(Debug)]
pub struct VerifierConfig {
    /// What `aud` has to name.
    pub audience: String,
    /// Who may sign.
    pub issuers: Vec<Issuer>,
    /// How many verified tokens are remembered.
    pub max_cached_tokens: usize,
    /// How many revoked sessions are held.
    pub max_revoked_sessions: usize,
    /// Whether a token without `jti` is refused: where revocations are followed, it could not be revoked.
    pub require_session: bool,
    /// What renews tokens that ask for it; without it they are refused.
    pub renewer: Option<Renewer>,
    /// What opens encrypted claims.
    pub claim_keys: Vec<ClaimKey>,
}

/// A token whose signature and fixed claims are good.
#[derive(Debug)]
pub(super) struct Verified {
    key: Arc<Key>,
    expires: i64,
    not_before: Option<i64>,
    session: Option<Box<str>>,
    user: Option<Box<str>>,
    client: Option<Network>,
    scope: Scope,
    /// Whether this edge's own renewer signed it, or another with its key.
    renewed: bool,
    renewable: Option<Box<Renewable>>,
    made: Instant,
    /// See [`Grant::skip_other_checks_until`]; in milliseconds since `made`.
    cleared: AtomicU64,
    /// The generation of revocations, and one, in which its session was not among them.
    unrevoked: AtomicU64,
}

/// A token whose signature and fixed claims are good. Whether it is for this use only [`Verifier::authorize`] tells.
#[derive(Debug)]
pub struct VerifiedToken(Arc<Verified>);

/// Leave to have what was asked for. Only [`Verifier::authorize`] makes one.
#[derive(Clone, Debug)]
pub struct Grant(Arc<Verified>);

impl Grant {
    /// The session (`jti`).
    pub fn session(&self) -> Option<&str> {
        self.0.session.as_deref()
    }

    /// The user (`sub`).
    pub fn user(&self) -> Option<&str> {
        self.0.user.as_deref()
    }

    /// When the token ends, in seconds since the Unix epoch.
    pub fn expires(&self) -> i64 {
        self.0.expires
    }

    /// The largest shorter side of a rendition, in pixels.
    pub fn max_height(&self) -> Option<u32> {
        self.0.scope.max_height
    }

    /// Whether the token is one that was renewed.
    pub fn is_renewed(&self) -> bool {
        self.0.renewed
    }

    /// Whether the token asks to be renewed while it is used.
    pub fn is_renewable(&self) -> bool {
        self.0.renewable.is_some()
    }

    /// Whether the token is a renewal for the same session and user as `other` that does not need the next one yet:
    /// more than half of its life is left at `now`.
    pub fn is_fresh_renewal_of(&self, other: &Self, now: i64) -> bool {
        let (this, other) = (&self.0, &other.0);
        let Some(renewable) = this.renewable.as_ref().filter(|_| this.renewed) else { return false };
        let left = this.expires.saturating_sub(now);
        this.session == other.session && this.user == other.user && left.saturating_mul(2) > renewable.terms.seconds
    }

    /// Notes with the remembered token that whatever else decides on its use has agreed, and need not be asked before
    /// `at`. Revocation and expiry end it all the same.
    pub fn skip_other_checks_until(&self, at: Instant) {
        let since = at.saturating_duration_since(self.0.made).as_millis();
        self.0.cleared.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether that holds at `now`.
    pub fn skips_other_checks_at(&self, now: Instant) -> bool {
        let cleared = Duration::from_millis(self.0.cleared.load(Ordering::Relaxed));
        now.saturating_duration_since(self.0.made) < cleared
    }

    /// Only what starts before this many milliseconds.
    pub fn preview_ms(&self) -> Option<u64> {
        self.0.scope.preview_ms
    }
}

/// Checks tokens. Shared by reference; nothing in it waits.
#[derive(Debug)]
pub struct Verifier {
    audience: String,
    issuers: Vec<Issuer>,
    require_session: bool,
    memory: VerifiedCache,
    revocations: Arc<Revocations>,
    renewer: Option<Renewer>,
    claim_keys: Vec<ClaimKey>,
    patterns: PatternCache,
}

impl Verifier {
    /// A verifier whose issuers have the keys that they were given.
    pub fn new(config: VerifierConfig) -> Self {
        Self {
            audience: config.audience,
            issuers: config.issuers,
            require_session: config.require_session,
            memory: VerifiedCache::new(config.max_cached_tokens),
            revocations: Arc::new(Revocations::new(config.max_revoked_sessions)),
            renewer: config.renewer,
            claim_keys: config.claim_keys,
            patterns: PatternCache::new(),
        }
    }

    /// A verifier that follows `former`: the sessions that were ended are shared, so that none plays on under either.
    pub fn successor(config: VerifierConfig, former: &Self) -> Self {
        Self { revocations: Arc::clone(&former.revocations), ..Self::new(config) }
    }

    /// Who may sign, in the order given.
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// The sessions that were ended.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// How many verified tokens are remembered now.
    pub fn cached_tokens(&self) -> usize {
        self.memory.len()
    }

    /// Judges the token `text` for one use.
    pub fn verify(&self, text: &str, facts: &Facts<'_>) -> Result<Grant, Denied> {
        let recalled = match self.cached(text) {
            Some(recalled) => recalled,
            None => {
                let verified = Arc::new(self.verify_text(text, facts.now)?);
                self.memory.put(text, verified.clone());
                VerifiedToken(verified)
            }
        };
        self.authorize(recalled, facts)
    }

    /// A token that was verified before, by a key that is still trusted.
    pub fn cached(&self, text: &str) -> Option<VerifiedToken> {
        self.memory.get(text).filter(|verified| !verified.key.is_withdrawn()).map(VerifiedToken)
    }

    /// Judges it for one use.
    pub fn authorize(&self, recalled: VerifiedToken, facts: &Facts<'_>) -> Result<Grant, Denied> {
        let VerifiedToken(verified) = recalled;
        within_times(&verified, facts.now)?;
        self.look_revoked(&verified)?;
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

    /// The token that follows the one of `grant` for the path of `facts`. Nothing where the token does not ask for
    /// it, or where the path has fewer segments than the renewal is for (RFC 9246, section 2.1.14).
    pub fn renew(&self, grant: &Grant, facts: &Facts<'_>) -> Option<RenewedToken> {
        let renewable = grant.0.renewable.as_ref()?;
        let depth = renewable.terms.depth;
        if facts.path?.segments().filter(|segment| !segment.is_empty()).count() < depth {
            return None;
        }
        let (token, lifetime_seconds) = self.renewer.as_ref()?.renew(&renewable.payload, renewable.terms, facts.now)?;
        Some(RenewedToken { token, lifetime_seconds, path_depth: depth })
    }

    /// For how long after a session was revoked a token of it may still be about, in seconds, where renewed ones are.
    pub fn max_renewal_seconds(&self) -> Option<i64> {
        self.renewer.as_ref().map(Renewer::max_lifetime_seconds)
    }

    /// Whether a grant that was made earlier still holds: the key, the time and the session are looked at again.
    pub fn still_holds(&self, grant: &Grant, now: i64) -> Result<(), Denied> {
        let verified = &grant.0;
        if verified.key.is_withdrawn() {
            return Err(Denied::BadSignature);
        }
        within_times(verified, now)?;
        self.look_revoked(verified)
    }

    /// Whether the session was revoked: looked up once for each change of what is.
    fn look_revoked(&self, verified: &Verified) -> Result<(), Denied> {
        let Some(session) = verified.session.as_deref() else { return Ok(()) };
        // Read before the look: what is added meanwhile is of a later generation.
        let generation = self.revocations.generation().wrapping_add(1);
        if verified.unrevoked.load(Ordering::Relaxed) == generation {
            return Ok(());
        }
        if self.revocations.contains(session) {
            return Err(Denied::Revoked);
        }
        verified.unrevoked.store(generation, Ordering::Relaxed);
        Ok(())
    }

    /// Everything that a token's text decides for good. Times are looked at too, so that a token past its end is
    /// not remembered. Claims are judged behind the signature: one that was changed is told no more than that.
    fn verify_text(&self, text: &str, now: i64) -> Result<Verified, Denied> {
        let parts = Parts::split(text)?;
        let header = Header::read(parts.header)?;
        let payload = decode(parts.payload).and_then(|bytes| claims::object(&bytes));
        let key = match &payload {
            Ok(claims) => self.key_of(claims.get("iss").and_then(Value::as_str), header.kid.as_deref())?,
            // A payload that can't be read names no issuer; whether its signature is good still tells a changed
            // token from one that was made wrong.
            Err(malformed) => self.any_key(header.kid.as_deref()).ok_or(*malformed)?,
        };
        if !parts.signed_by(&key, &header) {
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
            // Its issuer counts on the renewal: better refused at the start than ended in the middle.
            (Some(_), _, None) => return Err(Denied::UnsupportedClaim("cdnistt")),
            _ => None,
        };
        let client = self.bound_to(&parsed)?;
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
            made: monotonic(),
            cleared: AtomicU64::new(0),
            unrevoked: AtomicU64::new(0),
        };
        within_times(&verified, now)?;
        Ok(verified)
    }

    /// The network that `cdniip` names (RFC 9246, section 2.1.10).
    fn bound_to(&self, parsed: &ParsedClaims) -> Result<Option<Network>, Denied> {
        match &parsed.client {
            None => Ok(None),
            Some(ClientBinding::Plain(network)) => Ok(Some(*network)),
            Some(ClientBinding::Sealed(sealed)) => {
                jwe::open(sealed, &self.claim_keys)?.parse().map(Some).map_err(|_| Denied::Malformed)
            }
        }
    }

    fn key_of(&self, issuer: Option<&str>, kid: Option<&str>) -> Result<Arc<Key>, Denied> {
        let named = issuer.ok_or(Denied::WrongIssuer)?;
        let (index, issuer) =
            self.issuers.iter().enumerate().find(|(_, i)| i.name == named).ok_or(Denied::WrongIssuer)?;
        kid.and_then(|kid| issuer.keys.load().by_kid.get(kid).cloned()).ok_or(Denied::UnknownKey(IssuerIndex(index)))
    }

    fn any_key(&self, kid: Option<&str>) -> Option<Arc<Key>> {
        let kid = kid?;
        self.issuers.iter().find_map(|issuer| issuer.keys.load().by_kid.get(kid).cloned())
    }
}

fn within_times(verified: &Verified, now: i64) -> Result<(), Denied> {
    if now >= verified.expires.saturating_add(CLOCK_SKEW_SECONDS) {
        return Err(Denied::Expired);
    }
    match verified.not_before {
        Some(not_before) if now < not_before.saturating_sub(CLOCK_SKEW_SECONDS) => Err(Denied::NotYetValid),
        _ => Ok(()),
    }
}

/// The compact serialization (RFC 7515, section 7.1).
struct Parts<'a> {
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
    signed: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, Denied> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Denied::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Denied::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Denied::Malformed)?;
        let filled = !header.is_empty() && !payload.is_empty() && !signature.is_empty();
        if !filled || payload.contains('.') {
            return Err(Denied::Malformed);
        }
        Ok(Self { header, payload, signature, signed: signed.as_bytes() })
    }

    /// RFC 8725, section 3.1: the key says which algorithm, the token may only agree.
    fn signed_by(&self, key: &Key, header: &Header) -> bool {
        let agrees = header.algorithm == key.algorithm.name()
            || (key.algorithm == Algorithm::EdDsa && header.algorithm == "Ed25519");
        agrees
            && jsonwebtoken::crypto::verify(self.signature, self.signed, &key.decoding, key.algorithm.for_library())
                .unwrap_or(false)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Denied> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Denied::Malformed)
}

/// The JOSE header (RFC 7515, section 4).
struct Header {
    algorithm: String,
    kid: Option<String>,
    unsupported: Option<&'static str>,
}

impl Header {
    fn read(part: &str) -> Result<Self, Denied> {
        let map = claims::object(&decode(part)?)?;
        let text = |name: &str| map.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        let kid = text("kid");
        if map.contains_key("kid") && kid.is_none() {
            return Err(Denied::Malformed);
        }
        // RFC 7515, section 4.1.11, and RFC 7797: extensions that change what is signed or must be understood.
        let unsupported = ["crit", "b64"].into_iter().find(|name| map.contains_key(*name));
        Ok(Self { algorithm: text("alg").ok_or(Denied::Malformed)?, kid, unsupported })
    }
}

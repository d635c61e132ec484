//! Verified tokens, and the grants that follow from them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::denied::Denied;
use crate::jwks::VerifyingKey;
use crate::renewal::Renewable;
use crate::scope::Scope;
use lyceum_core::time::Instant;
use lyceum_http::ip_network::Network;

/// How far the clocks of issuer and edge may differ, in seconds.
pub const CLOCK_SKEW_SECONDS: i64 = 30;

/// A token whose signature is good and whose claims are acceptable here.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) key: Arc<VerifyingKey>,
    pub(super) expires: i64,
    pub(super) not_before: Option<i64>,
    pub(super) session: Option<Box<str>>,
    pub(super) user: Option<Box<str>>,
    pub(super) client: Option<Network>,
    pub(super) scope: Scope,
    /// Whether a renewer with this edge's key signed it.
    pub(super) renewed: bool,
    pub(super) renewable: Option<Box<Renewable>>,
    pub(super) verified_at: Instant,
    /// See [`Grant::skip_other_checks_until`]; in milliseconds since `verified_at`.
    pub(super) other_checks_skipped_until_ms: AtomicU64,
    /// One more than the generation of revocations in which its session was not revoked; 0 before the first look.
    pub(super) unrevoked_in: AtomicU64,
}

impl Verified {
    /// Checks `exp` and `nbf` at `now`, in seconds since the Unix epoch.
    #[inline]
    pub(super) fn check_times(&self, now: i64) -> Result<(), Denied> {
        if now >= self.expires.saturating_add(CLOCK_SKEW_SECONDS) {
            return Err(Denied::Expired);
        }
        match self.not_before {
            Some(not_before) if now < not_before.saturating_sub(CLOCK_SKEW_SECONDS) => Err(Denied::NotYetValid),
            _ => Ok(()),
        }
    }
}

/// A token whose signature is good and whose claims are acceptable here. Whether it allows a request is decided by
/// [`Verifier::authorize`](crate::Verifier::authorize).
#[derive(Debug)]
pub struct VerifiedToken(pub(super) Arc<Verified>);

/// Permission to deliver what a request asks for. Only [`Verifier::authorize`](crate::Verifier::authorize) makes one.
#[derive(Clone, Debug)]
pub struct Grant(pub(super) Arc<Verified>);

impl Grant {
    /// The session (`jti`).
    #[inline]
    pub fn session(&self) -> Option<&str> {
        self.0.session.as_deref()
    }

    /// The user (`sub`).
    #[inline]
    pub fn user(&self) -> Option<&str> {
        self.0.user.as_deref()
    }

    /// When the token ends, in seconds since the Unix epoch.
    #[inline]
    pub fn expires(&self) -> i64 {
        self.0.expires
    }

    /// The largest shorter side of a rendition, in pixels.
    #[inline]
    pub fn max_height(&self) -> Option<u32> {
        self.0.scope.max_height
    }

    /// Whether the token is the result of a renewal.
    #[inline]
    pub fn is_renewed(&self) -> bool {
        self.0.renewed
    }

    /// Whether the token is to be renewed while it is used (`cdnistt`).
    #[inline]
    pub fn is_renewable(&self) -> bool {
        self.0.renewable.is_some()
    }

    /// Whether the token is a renewal for the same session and user as `other` that need not be renewed itself yet: more
    /// than half of its lifetime is left at `now`.
    #[inline]
    pub fn is_fresh_renewal_of(&self, other: &Self, now: i64) -> bool {
        let (this, other) = (&self.0, &other.0);
        let Some(renewable) = this.renewable.as_ref().filter(|_| this.renewed) else { return false };
        let left = this.expires.saturating_sub(now);
        this.session == other.session
            && this.user == other.user
            && left.saturating_mul(2) > renewable.terms.lifetime_seconds
    }

    /// Notes with the cached token that the checks outside of this crate have passed and need not be made again before
    /// `at`. Revocation and expiry are checked all the same.
    #[inline]
    pub fn skip_other_checks_until(&self, at: Instant) {
        let ms = at.saturating_duration_since(self.0.verified_at).as_millis();
        self.0.other_checks_skipped_until_ms.store(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether those checks can be skipped at `now`.
    #[inline]
    pub fn skips_other_checks_at(&self, now: Instant) -> bool {
        let until = Duration::from_millis(self.0.other_checks_skipped_until_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(self.0.verified_at) < until
    }

    /// Only segments that start before this many milliseconds.
    #[inline]
    pub fn preview_ms(&self) -> Option<u64> {
        self.0.scope.preview_ms
    }
}

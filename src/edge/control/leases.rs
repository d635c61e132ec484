//! Stream leases: an origin's permission for a session to stream, one a session, renewed while it plays.
//!
//! The origin counts leases to limit concurrent streams. While no origin can be reached, `control.when_unreachable`
//! decides for new sessions, and sessions that play go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use http::Method;
use tokio::sync::Mutex as AsyncMutex;

use crate::config::{self, WhenUnreachable};
use crate::metrics::counters::Metrics;
use lyceum_client::{self as client, Http};
use lyceum_core::time::{Instant, monotonic};
use lyceum_token::{Denied, Grant};

/// How long a request waits for its stream lease, or for a refresh of the keys of its issuer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a refusal, or a verdict made without an origin, is remembered.
const REFUSED_FOR: Duration = Duration::from_secs(2);

/// The leases of all sessions.
#[derive(Debug)]
pub(super) struct Leases {
    config: config::Control,
    held: RwLock<HashMap<Box<str>, Lease>>,
    /// Sessions whose lease is being requested; the lock of each is held meanwhile.
    requests: Mutex<HashMap<Box<str>, Arc<AsyncMutex<()>>>>,
    http: Http,
    metrics: Arc<Metrics>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    verdict: Result<(), Denied>,
    /// From when on it is renewed in the background.
    renew: Instant,
    until: Instant,
}

impl Leases {
    pub(super) fn new(config: config::Control, http: Http, metrics: Arc<Metrics>) -> Self {
        Self { config, held: RwLock::default(), requests: Mutex::default(), http, metrics }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Box<str>, Lease>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the leases of revoked sessions.
    pub(super) fn forget<'a>(&self, sessions: impl Iterator<Item = &'a str> + Clone) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.retain(|session, _| !sessions.clone().any(|revoked| *revoked == **session));
    }

    /// Whether the grant's session is known to hold a lease at `now`, with nothing to ask or to renew.
    #[inline]
    pub(super) fn holds(&self, grant: &Grant, now: Instant) -> bool {
        let Some(session) = grant.session() else { return true };
        if grant.skips_other_checks_at(now) {
            return true;
        }
        let known = self.read().get(session).copied();
        let good = known.filter(|lease| now < lease.renew && lease.verdict.is_ok());
        if let Some(lease) = &good {
            grant.skip_other_checks_until(lease.renew);
        }
        good.is_some()
    }

    /// Sees to it that the grant's session holds a lease: waits for one at most [`REQUEST_TIMEOUT`].
    pub(super) async fn acquire(self: &Arc<Self>, grant: &Grant) -> Result<(), Denied> {
        let Some(session) = grant.session() else { return Ok(()) };
        let now = monotonic();
        let known = self.read().get(session).copied();
        match known {
            Some(lease) if now < lease.renew => lease.verdict,
            Some(lease) if now < lease.until => {
                // Still valid: one of the requests that come now renews it in the background.
                if let Some(turn) = self.turn_if_free(session) {
                    let (leases, session) = (Arc::clone(self), session.to_owned());
                    tokio::spawn(async move {
                        let _turn = turn.lock().await;
                        let _ = leases.request(&session).await;
                    });
                }
                lease.verdict
            }
            _ => tokio::time::timeout(REQUEST_TIMEOUT, Box::pin(self.first(session)))
                .await
                .unwrap_or_else(|_| self.verdict_when_unreachable()),
        }
    }

    /// Requests a session's lease, once for all of its requests that wait for it.
    async fn first(&self, session: &str) -> Result<(), Denied> {
        let turn = self.turn(session);
        let _turn = turn.lock().await;
        let now = monotonic();
        let known = self.read().get(session).copied();
        match known {
            Some(lease) if now < lease.until => lease.verdict,
            _ => self.request(session).await,
        }
    }

    fn verdict_when_unreachable(&self) -> Result<(), Denied> {
        match self.config.when_unreachable {
            WhenUnreachable::Refuse => Err(Denied::TooManyStreams),
            WhenUnreachable::Allow => Ok(()),
        }
    }

    /// Asks the origins in turn; the first that answers decides.
    async fn request(&self, session: &str) -> Result<(), Denied> {
        let mut verdict = None;
        for origin in &self.config.origins {
            let url = format!("{}/v1/sessions/{}/lease", origin.trim_end_matches('/'), percent_encoded(session));
            let response =
                self.http.json::<serde_json::Value>(Method::POST, &url, &self.config.bearer, None::<&()>).await;
            verdict = match response {
                Ok(_) => Some(Ok(())),
                Err(error) => match verdict_of_refusal(&error) {
                    Some(verdict) => Some(verdict),
                    None => {
                        tracing::debug!(origin, %error, "this origin grants no stream lease");
                        None
                    }
                },
            };
            if verdict.is_some() {
                break;
            }
        }
        let result = if verdict.is_some() { "ok" } else { "failed" };
        self.metrics.refreshes.with_label_values(&["lease", result]).inc();
        let now = monotonic();
        let span = self.config.lease.get();
        let lease = match verdict {
            Some(Ok(())) => Lease { verdict: Ok(()), renew: now + span / 2, until: now + span },
            Some(Err(denied)) => Lease { verdict: Err(denied), renew: now + REFUSED_FOR, until: now + REFUSED_FOR },
            None => {
                let known = self.read().get(session).copied();
                // A session that plays goes on while the origins are unreachable.
                let playing = known.is_some_and(|lease| lease.verdict.is_ok());
                let verdict = if playing { Ok(()) } else { self.verdict_when_unreachable() };
                Lease { verdict, renew: now + REFUSED_FOR, until: now + if playing { span } else { REFUSED_FOR } }
            }
        };
        self.keep(session, lease, now);
        lease.verdict
    }

    /// The lock that serializes the requests for a session's lease.
    fn turn(&self, session: &str) -> Arc<AsyncMutex<()>> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(requests.entry(session.into()).or_default())
    }

    /// The same, unless a request is under way.
    fn turn_if_free(&self, session: &str) -> Option<Arc<AsyncMutex<()>>> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.retain(|_, turn| Arc::strong_count(turn) > 1);
        if requests.contains_key(session) {
            return None;
        }
        Some(Arc::clone(requests.entry(session.into()).or_default()))
    }

    fn keep(&self, session: &str, lease: Lease, now: Instant) {
        let max_sessions = usize::try_from(self.config.sessions).unwrap_or(usize::MAX);
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= max_sessions {
            held.retain(|_, lease| lease.until > now);
        }
        if held.len() < max_sessions {
            held.insert(session.into(), lease);
        }
    }
}

/// What an origin's refusal means. A session that the origin does not know belongs to another issuer: its token is
/// valid, and the origin has no limit for it.
fn verdict_of_refusal(error: &client::Error) -> Option<Result<(), Denied>> {
    let client::Error::Status { status, problem, .. } = error else { return None };
    match status.as_u16() {
        409 if problem.code == "session_revoked" => Some(Err(Denied::Revoked)),
        409 => Some(Err(Denied::TooManyStreams)),
        400 | 404 => Some(Ok(())),
        _ => None,
    }
}

fn percent_encoded(text: &str) -> percent_encoding::PercentEncode<'_> {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
}

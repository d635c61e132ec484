//! The feed of revocations and purges: one long poll to every origin, so that the loss of one delays nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use serde::{Deserialize, Serialize};

use super::leases::Leases;
use super::purge_order::PurgeOrder;
use crate::config;
use crate::metrics::counters::Metrics;
use lyceum_cache::{Cache, Purge};
use lyceum_client::Http;
use lyceum_core::time::{Clock, monotonic};
use lyceum_token::{CLOCK_SKEW_SECONDS, Verifier};
use lyceum_upstream::FetchError;

/// How long an origin may hold a poll while there is no event.
const LONG_POLL: &str = "25s";
/// The pause after a poll that failed, or that came back at once with nothing new.
const POLL_PAUSE: Duration = Duration::from_millis(500);
/// A poll without news that is answered sooner than this was not held by the origin.
const NOT_HELD: Duration = Duration::from_millis(100);

/// Follows the feeds of the configured origins.
#[derive(Debug)]
pub(super) struct Feed {
    config: config::Control,
    verifier: Option<Arc<Verifier>>,
    leases: Arc<Leases>,
    http: Http,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// One answer of `GET /v1/revocations`.
#[derive(Debug, Default, Deserialize)]
struct FeedPage {
    /// The cursor of the next poll.
    next: i64,
    events: Vec<FeedEvent>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum FeedEvent {
    /// A session was revoked; `until` is when its last token expires, in Unix seconds.
    Session { session: String, until: i64 },
    /// Stored responses are to be purged.
    Purge { purge: PurgeOrder },
}

/// What `control.state` holds: revoked sessions, and until when (Unix seconds).
#[derive(Debug, Serialize, Deserialize)]
struct PersistedRevocations {
    sessions: Vec<(String, i64)>,
}

impl Feed {
    pub(super) fn new(
        config: config::Control,
        verifier: Option<Arc<Verifier>>,
        leases: Arc<Leases>,
        http: Http,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { config, verifier, leases, http, clock, metrics }
    }

    /// Follows every origin, without end.
    pub(super) async fn follow(&self, cache: &Arc<Cache<FetchError>>) {
        join_all(self.config.origins.iter().map(|origin| self.follow_origin(origin, cache))).await;
    }

    async fn follow_origin(&self, origin: &str, cache: &Arc<Cache<FetchError>>) {
        let mut after = 0_i64;
        loop {
            let url = format!("{}/v1/revocations?after={after}&wait={LONG_POLL}", origin.trim_end_matches('/'));
            let asked = monotonic();
            match self.http.json::<FeedPage>(Method::GET, &url, &self.config.bearer, None::<&()>).await {
                Ok(page) => {
                    let page = page.unwrap_or_default();
                    self.metrics.refreshes.with_label_values(&["feed", "ok"]).inc();
                    let news = !page.events.is_empty();
                    let purges = self.apply(page.events);
                    if !purges.is_empty() {
                        purge(purges, Arc::clone(cache), self.clock.steady_millis()).await;
                    }
                    if news {
                        self.persist().await;
                    }
                    let not_held = page.next == after && asked.elapsed() < NOT_HELD;
                    after = page.next;
                    if not_held {
                        // Without a pause this would be a busy loop of requests.
                        tokio::time::sleep(POLL_PAUSE).await;
                    }
                }
                Err(error) => {
                    self.metrics.refreshes.with_label_values(&["feed", "failed"]).inc();
                    tracing::debug!(origin, %error, "the feed of revocations can't be read");
                    tokio::time::sleep(POLL_PAUSE).await;
                }
            }
        }
    }

    /// Revokes sessions, and returns the purges for the caller to run.
    fn apply(&self, events: Vec<FeedEvent>) -> Vec<Purge> {
        let now = self.clock.unix_seconds();
        let (mut revoked, mut purges) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                FeedEvent::Session { session, until } => revoked.push((session, until)),
                FeedEvent::Purge { purge } => purges.extend(purge.purges()),
            }
        }
        if let (Some(verifier), false) = (&self.verifier, revoked.is_empty()) {
            self.leases.forget(revoked.iter().map(|(session, _)| session.as_str()));
            if let Some(longest) = verifier.max_renewal_seconds() {
                // The origin knows when its own tokens expire; one that this edge renewed may live longer.
                let last = now.saturating_add(longest).saturating_add(CLOCK_SKEW_SECONDS);
                revoked.iter_mut().for_each(|(_, until)| *until = last.max(*until));
            }
            let forgotten = verifier.revocations().add(revoked, now);
            if forgotten > 0 {
                tracing::error!(forgotten, "more sessions are revoked than tokens.revocations holds");
            }
        }
        purges
    }

    /// Writes the revocations to a file next to the state file, and renames it.
    async fn persist(&self) {
        let Some(path) = self.config.state.clone() else { return };
        let Some(verifier) = &self.verifier else { return };
        let persisted = PersistedRevocations { sessions: verifier.revocations().snapshot() };
        let written = tokio::task::spawn_blocking(move || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let staging = path.with_extension("part");
            std::fs::write(&staging, serde_json::to_vec(&persisted)?)?;
            std::fs::rename(&staging, &path)
        });
        if let Ok(Err(cause)) = written.await {
            tracing::warn!(%cause, "control.state can't be written: revocations are held in memory only");
        }
    }

    /// Loads the revocations that were persisted before a restart.
    pub(super) fn restore(&self) {
        let Some(path) = &self.config.state else { return };
        let Some(verifier) = &self.verifier else { return };
        match std::fs::read(path).map(|bytes| serde_json::from_slice::<PersistedRevocations>(&bytes)) {
            Ok(Ok(persisted)) => drop(verifier.revocations().add(persisted.sessions, self.clock.unix_seconds())),
            Ok(Err(error)) => tracing::warn!(path = %path.display(), %error, "control.state is not readable"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "control.state is not readable"),
        }
    }
}

/// Purges on a blocking thread: it scans the whole cache and may delete files.
async fn purge(purges: Vec<Purge>, cache: Arc<Cache<FetchError>>, now_ms: i64) {
    let done = tokio::task::spawn_blocking(move || {
        for purge in purges {
            let count = cache.purge(&purge, now_ms);
            tracing::info!(?purge, count, "purged");
        }
    });
    if done.await.is_err() {
        tracing::error!("a purge failed midway");
    }
}

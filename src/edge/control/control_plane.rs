//! Keys, feed and leases together, as the rest of the edge uses them.

use std::sync::Arc;

use super::feed::Feed;
use super::keys::Keys;
use super::leases::{Leases, REQUEST_TIMEOUT};
use crate::config;
use crate::error::StartError;
use crate::metrics::counters::Metrics;
use lyceum_cache::Cache;
use lyceum_client::{Http, Limits};
use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::{Clock, Instant};
use lyceum_core::units::{ByteSize, Span};
use lyceum_token::{Denied, Grant, IssuerIndex, Verifier};
use lyceum_upstream::FetchError;

/// What the edge follows at its origins.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    keys: Keys,
    feed: Option<Feed>,
    leases: Option<Arc<Leases>>,
}

impl ControlPlane {
    /// Reads the key files and the persisted revocations; nothing is fetched before [`run`](Self::run).
    pub(crate) fn new(
        config: &config::Config,
        verifier: Option<Arc<Verifier>>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let limits = Limits {
            connect: Span::secs(2),
            response: Span::secs(5),
            body: Span::secs(5),
            body_bytes: ByteSize::mib(4),
            ..Limits::default()
        };
        let http = Http::new(limits.clone());
        let keys = Keys::new(config.tokens.as_ref(), verifier.clone(), http.clone(), Arc::clone(&metrics))?;
        let leases = config.control.clone().map(|config| Arc::new(Leases::new(config, http, Arc::clone(&metrics))));
        let feed = config.control.clone().zip(leases.clone()).map(|(config, leases)| {
            // Longer than an origin may hold a long poll.
            let poll = Http::new(Limits { response: Span::secs(35), ..limits });
            Feed::new(config, verifier, leases, poll, clock, metrics)
        });
        if let Some(feed) = &feed {
            feed.restore();
        }
        Ok(Self { keys, feed, leases })
    }

    /// Why tokens can't be verified yet, if they can't.
    pub(crate) fn ready(&self) -> Result<(), String> {
        self.keys.ready()
    }

    /// Keeps keys and revocations up to date until the shutdown.
    pub(crate) async fn run(self: Arc<Self>, cache: Arc<Cache<FetchError>>, shutdown: Shutdown) {
        let feed = async {
            if let Some(feed) = &self.feed {
                feed.follow(&cache).await;
            }
        };
        tokio::select! {
            () = shutdown.draining() => {}
            _ = futures_util::future::join(self.keys.keep_fresh(), feed) => {}
        }
    }

    /// Refreshes every key document once, after the operator has reloaded the configuration.
    pub(crate) async fn refresh_keys_once(self: Arc<Self>, shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.draining() => {}
            () = self.keys.refresh_all() => {}
        }
    }

    /// Looks for an unknown key at its issuer; whether it is worth verifying the token again.
    pub(crate) async fn look_for_key(&self, want: IssuerIndex) -> bool {
        tokio::time::timeout(REQUEST_TIMEOUT, self.keys.look_for(want)).await.unwrap_or(false)
    }

    /// Whether the grant's session is known to hold a lease at `now`, with nothing to request or to renew.
    #[inline]
    pub(crate) fn has_lease(&self, grant: &Grant, now: Instant) -> bool {
        match &self.leases {
            Some(leases) => leases.holds(grant, now),
            None => true,
        }
    }

    /// Sees to it that the grant's session holds a stream lease.
    pub(crate) async fn lease(&self, grant: &Grant) -> Result<(), Denied> {
        match &self.leases {
            Some(leases) => leases.acquire(grant).await,
            None => Ok(()),
        }
    }
}

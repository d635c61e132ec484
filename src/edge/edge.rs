//! The running edge: start, reload, housekeeping, and the handler that its listeners call.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response};

use crate::admin;
use crate::config::Config;
use crate::error::StartError;
use crate::fetch::fetcher::Fetcher;
use crate::fetch::prefetch::Prefetcher;
use crate::metrics::counters::{Metrics, PrefetchMetrics};
use crate::metrics::playback::Playback;
use crate::request::cors::Cors;
use crate::request::route::Routes;
use crate::response::body::Body;
use crate::response::body_guard::BodyGuards;
use crate::serve;
use crate::state::{AccessControl, Pools, Shared, State};
use lyceum_cache::Cache;
use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::{Clock, Instant, monotonic};
use lyceum_server::{Handler, Peer, Refused, RequestBody, ResponseFuture};
use lyceum_upstream::{self as upstream, FetchError};

/// How often gauges are set and idle playback sessions forgotten.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(2);

/// Keys of `edge.toml` that take effect after a restart only: what they name is bound, opened or registered once.
pub const FIXED: [&str; 5] = ["admin", "cache", "limits", "listen", "playback"];

/// What an edge is given at its start.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The wall clock.
    pub clock: Clock,
    /// Where its metrics are registered.
    pub registry: prometheus::Registry,
    /// Tells it to drain and stop.
    pub shutdown: Shutdown,
}

/// A running edge. Clones are handles to the same edge and see every reload.
#[derive(Clone, Debug)]
pub struct Edge(Shared);

fn prefixes(config: &Config) -> Vec<&str> {
    config.route.iter().map(|route| route.prefix.as_str()).collect()
}

impl Edge {
    /// Starts an edge: reads its key files, then follows origins, health and keys in tasks that end with `shutdown`.
    pub async fn start(config: Config, parts: Parts) -> Result<Self, StartError> {
        let Parts { clock, registry, shutdown } = parts;
        let upstream = upstream::Metrics::new(&registry);
        let pools = Pools::new(&config, &upstream, shutdown.part())?;
        let cors = Arc::new(Cors::new(&config.cors));
        let routes = Routes::new(&config.route, &pools.named, config.tokens.as_ref(), &cors)?;
        let metrics = Arc::new(Metrics::new(&registry, &prefixes(&config)));
        let cache: Arc<Cache<FetchError>> = Cache::open(&config.cache, clock.clone(), &registry)?;
        let guard = AccessControl::new(&config, None, &clock, &metrics, shutdown.part())?;
        let fetcher = Fetcher {
            cache: Arc::clone(&cache),
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
            shutdown: shutdown.clone(),
        };
        pools.watch();
        tokio::spawn(Arc::clone(&guard.control).run(cache, guard.end.clone()));
        let body_guards = BodyGuards::new(&metrics, guard.verifier.as_ref(), &clock);
        let state = Arc::new(ArcSwap::from_pointee(State {
            routes,
            pools,
            guard,
            fetcher,
            prefetcher: Prefetcher::new(&config.ahead, PrefetchMetrics::new(&registry)),
            playback: Arc::new(Playback::new(&config.playback, &registry)),
            cors,
            metrics,
            body_guards,
            upstream,
            clock,
        }));
        tokio::spawn(housekeeping(Arc::clone(&state), shutdown));
        Ok(Self(state))
    }

    /// Puts another configuration in force for requests that arrive from now on; `changed` names its keys that differ.
    /// Requests under way finish under the former one. The cache and the revoked sessions stay, and key files are read
    /// again. On an error nothing has changed. [`FIXED`] keys keep their former values.
    pub fn reload(&self, config: &Config, changed: &[String]) -> Result<(), StartError> {
        let differs = |keys: &[&str]| keys.iter().any(|key| changed.iter().any(|changed| changed == key));
        let former = self.0.load_full();
        let role = &former.fetcher.shutdown;
        let metrics = Arc::new(former.metrics.rerouted(&prefixes(config)));
        let (new_pools, new_guard) = (differs(&["pool"]), differs(&["tokens", "control"]));
        let pools = match new_pools {
            true => Pools::new(config, &former.upstream, role.part())?,
            false => former.pools.clone(),
        };
        let cors = Arc::new(Cors::new(&config.cors));
        let routes = Routes::new(&config.route, &pools.named, config.tokens.as_ref(), &cors)?;
        let guard = match new_guard {
            true => AccessControl::new(config, former.guard.verifier.as_deref(), &former.clock, &metrics, role.part())?,
            false => former.guard.clone(),
        };
        let cache = Arc::clone(&former.fetcher.cache);
        if new_pools {
            pools.watch();
        }
        let (control, end) = (Arc::clone(&guard.control), guard.end.clone());
        if new_guard {
            tokio::spawn(control.run(cache, end));
        } else {
            tokio::spawn(control.refresh_keys_once(end));
        }
        let body_guards = BodyGuards::new(&metrics, guard.verifier.as_ref(), &former.clock);
        let (metrics_in_force, pools_in_force) = (Arc::clone(&metrics), pools.clone());
        self.0.store(Arc::new(State {
            routes,
            pools,
            guard,
            fetcher: former.fetcher.clone(),
            prefetcher: former.prefetcher.reconfigured(&config.ahead),
            playback: Arc::clone(&former.playback),
            cors,
            metrics,
            body_guards,
            upstream: former.upstream.clone(),
            clock: former.clock.clone(),
        }));
        // What is out of the configuration is out of the metrics: nothing of it is down or quiet.
        former.metrics.remove_routes_not_in(&metrics_in_force);
        if new_pools {
            former.pools.end.retire();
            upstream::remove_retired(&former.upstream, &former.pools.list(), &pools_in_force.list());
        }
        if new_guard {
            former.guard.end.retire();
        }
        Ok(())
    }

    /// Whether it can serve; else why not.
    pub fn ready(&self) -> Result<(), String> {
        self.0.load().ready()
    }

    /// The edge's own admin routes, in addition to those that every role has.
    pub fn admin_routes(&self) -> lyceum_admin::Routes {
        lyceum_admin::routes(admin::routes(Arc::clone(&self.0)))
    }
}

async fn housekeeping(state: Shared, shutdown: Shutdown) {
    let mut beat = tokio::time::interval(HOUSEKEEPING_INTERVAL);
    let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            () = shutdown.draining() => return,
        }
        let state = state.load_full();
        state.clock.notice_suspension();
        state.playback.expire(monotonic());
        let (bytes, objects) = state.fetcher.cache.memory_size();
        state.metrics.cache_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        state.metrics.cache_objects.set(i64::try_from(objects).unwrap_or(i64::MAX));
        state.metrics.fills_open.set(whole(state.fetcher.cache.fills_in_progress()));
        if let Some(verifier) = &state.guard.verifier {
            state.metrics.tokens.set(whole(verifier.cached_tokens()));
            state.metrics.revoked.set(whole(verifier.revocations().len()));
        }
    }
}

impl Handler for Edge {
    type Body = Body;

    fn call(&self, peer: Peer, request: Request<RequestBody>, began: Instant) -> ResponseFuture<Body> {
        serve::call(self.0.load(), peer, request, began)
    }

    fn refuse(&self, request: &http::request::Parts, refused: Refused) -> Response<Body> {
        serve::refuse(&self.0.load(), request, refused)
    }
}

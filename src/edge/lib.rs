//! The edge: admit → authorize → lookup → fetch → deliver → record.
//!
//! A role: it composes `token`, `cache`, `upstream` and `semantics` behind one handler. It meets origins over HTTP
//! alone and must not import them. [`serve`](Edge) reads top to bottom in `serve.rs`.
#![forbid(unsafe_code)]

mod admin;
mod ahead;
mod authorize;
mod body;
mod config;
mod cors;
mod decision;
mod deliver;
mod error;
mod fetch;
mod fill;
mod first_byte;
mod follow;
mod head;
mod hit;
mod locate;
mod metrics;
mod pass;
mod playback;
mod route;
mod serve;
mod slices;
mod sound;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard as Guarded};
use http::{Request, Response};
use http_body::Body as _;

use lyceum_cache::{Cache, DiskError};
use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::{Clock, Instant, monotonic};
use lyceum_server::{Handler, Peer, Refused, RequestBody, ResponseFuture};
use lyceum_token::{ClaimKey, Issuer, KeyError, Renewer, Verifier, VerifierConfig};
use lyceum_upstream::{self as upstream, FetchError, Pool, PoolError};

pub use body::{Body, BodyError};
pub use config::Config;

/// How often gauges are set and silent sessions forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(2);

/// What an edge is given.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The wall clock.
    pub clock: Clock,
    /// Where its metrics go.
    pub registry: prometheus::Registry,
    /// Its end.
    pub shutdown: Shutdown,
}

/// Why an edge can't start: always the configuration or a file that it names.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A route.
    #[error("route \"{prefix}\": {what}")]
    Route {
        /// Its prefix.
        prefix: String,
        /// What is wrong with it.
        what: String,
    },
    /// A pool.
    #[error("pool \"{pool}\": {cause}")]
    Pool {
        /// Its name.
        pool: String,
        /// What is wrong with it.
        cause: PoolError,
    },
    /// The cache's disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Keys.
    #[error("{0}")]
    Keys(String),
}

/// Keys of `edge.toml` that take a restart: what they name is bound, opened or registered once.
pub const FIXED: [&str; 5] = ["admin", "cache", "limits", "listen", "playback"];

/// A running edge. Clones are the same edge, whatever is reloaded.
#[derive(Clone, Debug)]
pub struct Edge(Arc<ArcSwap<Inner>>);

/// What requests work with, from one configuration to the next.
#[derive(Debug)]
struct Inner {
    routes: route::Routes,
    pools: Pools,
    guard: Guard,
    fetcher: fetch::Fetcher,
    ahead: ahead::Ahead,
    playback: Arc<playback::Playback>,
    cors: Arc<cors::Cors>,
    metrics: Arc<metrics::Metrics>,
    posts: watch::Posts,
    upstream: upstream::Metrics,
    clock: Clock,
}

/// The pools, and the end of their health checks.
#[derive(Clone, Debug)]
struct Pools {
    /// By name, with whether each shows credentials.
    named: HashMap<String, (Arc<Pool>, bool)>,
    /// As configured, in order.
    all: Vec<(Arc<Pool>, Option<upstream::Health>)>,
    end: Shutdown,
}

/// Who checks tokens, and what keeps it fresh until its end.
#[derive(Clone, Debug)]
struct Guard {
    verifier: Option<Arc<Verifier>>,
    follow: Arc<follow::Follow>,
    end: Shutdown,
}

impl Config {
    /// Says what can't work in a configuration that reads well, without starting anything.
    pub fn check(&self) -> Result<(), StartError> {
        let metrics = upstream::Metrics::new(&prometheus::Registry::new());
        let pools = Pools::new(self, &metrics, Shutdown::new())?;
        let cors = Arc::new(cors::Cors::new(&self.cors));
        route::Routes::new(&self.route, &pools.named, self.tokens.as_ref(), &cors).map(drop)
    }
}

impl Pools {
    fn new(config: &Config, metrics: &upstream::Metrics, end: Shutdown) -> Result<Self, StartError> {
        let mut pools = Self { named: HashMap::new(), all: Vec::with_capacity(config.pool.len()), end };
        for pool in &config.pool {
            let failed = |cause| StartError::Pool { pool: pool.name.clone(), cause };
            if pool.origins.is_empty() {
                return Err(failed(PoolError::Empty(pool.name.clone())));
            }
            let made = Arc::new(Pool::new(pool, metrics).map_err(failed)?);
            if pools.named.insert(pool.name.clone(), (Arc::clone(&made), pool.auth.is_some())).is_some() {
                return Err(StartError::Route {
                    prefix: pool.name.clone(),
                    what: "two pools have this name".to_owned(),
                });
            }
            pools.all.push((made, pool.health.clone()));
        }
        Ok(pools)
    }

    fn watch(&self) {
        for (pool, health) in &self.all {
            let (watch, end) = (Arc::clone(pool).check_health(health.clone()), self.end.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = watch => {}
                    () = end.draining() => {}
                }
            });
        }
    }
}

fn verifier(config: &Config, former: Option<&Verifier>) -> Result<Option<Arc<Verifier>>, StartError> {
    let Some(tokens) = &config.tokens else { return Ok(None) };
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let failed = |e: KeyError| StartError::Keys(format!("tokens: {e}"));
    let mut issuers: Vec<Issuer> = tokens.issuers.iter().map(|issuer| Issuer::new(&issuer.name)).collect();
    let renewer = match &tokens.renewal {
        Some(renewal) => {
            if tokens.issuers.iter().any(|issuer| issuer.name == renewal.issuer) {
                let what = "tokens.renewal.issuer: has to be a name that no other issuer has: a key signs for its issuer alone";
                return Err(StartError::Keys(what.to_owned()));
            }
            let longest = i64::try_from(renewal.longest.get().as_secs()).unwrap_or(i64::MAX);
            let renewer = Renewer::open(&renewal.key, &renewal.issuer, &tokens.audience, longest).map_err(failed)?;
            let issuer = Issuer::new(&renewal.issuer);
            issuer.replace(renewer.keys().map_err(failed)?);
            // Behind those whose keys are followed, whose places count.
            issuers.push(issuer);
            Some(renewer)
        }
        None => None,
    };
    let config = VerifierConfig {
        audience: tokens.audience.clone(),
        issuers,
        max_cached_tokens: number(tokens.remembered),
        max_revoked_sessions: number(tokens.revocations),
        require_session: config.control.is_some(),
        renewer,
        claim_keys: tokens
            .claim_keys
            .iter()
            .map(|path| ClaimKey::load(path))
            .collect::<Result<_, _>>()
            .map_err(failed)?,
    };
    Ok(Some(Arc::new(match former {
        Some(former) => Verifier::successor(config, former),
        None => Verifier::new(config),
    })))
}

impl Guard {
    fn new(
        config: &Config,
        former: Option<&Verifier>,
        clock: &Clock,
        metrics: &Arc<metrics::Metrics>,
        end: Shutdown,
    ) -> Result<Self, StartError> {
        let verifier = verifier(config, former)?;
        let follow = follow::Follow::new(config, verifier.clone(), clock.clone(), Arc::clone(metrics))?;
        Ok(Self { verifier, follow: Arc::new(follow), end })
    }
}

fn prefixes(config: &Config) -> Vec<&str> {
    config.route.iter().map(|route| route.prefix.as_str()).collect()
}

impl Edge {
    /// Starts an edge: reads its key files, and follows origins, health and keys in tasks that end with `shutdown`.
    pub async fn start(config: Config, parts: Parts) -> Result<Self, StartError> {
        let Parts { clock, registry, shutdown } = parts;
        let upstream = upstream::Metrics::new(&registry);
        let pools = Pools::new(&config, &upstream, shutdown.part())?;
        let cors = Arc::new(cors::Cors::new(&config.cors));
        let routes = route::Routes::new(&config.route, &pools.named, config.tokens.as_ref(), &cors)?;
        let metrics = Arc::new(metrics::Metrics::new(&registry, &prefixes(&config)));
        let cache: Arc<Cache<FetchError>> = Cache::open(&config.cache, clock.clone(), &registry)?;
        let guard = Guard::new(&config, None, &clock, &metrics, shutdown.part())?;
        let fetcher = fetch::Fetcher {
            cache: Arc::clone(&cache),
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
            shutdown: shutdown.clone(),
        };
        pools.watch();
        tokio::spawn(Arc::clone(&guard.follow).run(cache, guard.end.clone()));
        let posts = watch::Posts::new(&metrics, guard.verifier.as_ref(), &clock);
        let edge = Self(Arc::new(ArcSwap::from_pointee(Inner {
            routes,
            pools,
            guard,
            fetcher,
            ahead: ahead::Ahead::new(&config.ahead, metrics::AheadMetrics::new(&registry)),
            playback: Arc::new(playback::Playback::new(&config.playback, &registry)),
            cors,
            metrics,
            posts,
            upstream,
            clock,
        })));
        tokio::spawn(housekeeping(edge.clone(), shutdown));
        Ok(edge)
    }

    /// Puts another configuration in force for the requests that come from now on; `changed` are its keys that differ.
    /// Those under way end under the former one. What is cached stays, ended sessions stay ended, and key files are
    /// read again. On an error nothing has changed. [`FIXED`] keys are left as they were.
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
        let cors = Arc::new(cors::Cors::new(&config.cors));
        let routes = route::Routes::new(&config.route, &pools.named, config.tokens.as_ref(), &cors)?;
        let guard = match new_guard {
            true => Guard::new(config, former.guard.verifier.as_deref(), &former.clock, &metrics, role.part())?,
            false => former.guard.clone(),
        };
        let cache = Arc::clone(&former.fetcher.cache);
        if new_pools {
            pools.watch();
        }
        if new_guard {
            tokio::spawn(Arc::clone(&guard.follow).run(cache, guard.end.clone()));
        } else {
            tokio::spawn(Arc::clone(&guard.follow).look_again(guard.end.clone()));
        }
        let posts = watch::Posts::new(&metrics, guard.verifier.as_ref(), &former.clock);
        self.0.store(Arc::new(Inner {
            routes,
            pools,
            guard,
            fetcher: former.fetcher.clone(),
            ahead: former.ahead.reconfigured(&config.ahead),
            playback: Arc::clone(&former.playback),
            cors,
            metrics,
            posts,
            upstream: former.upstream.clone(),
            clock: former.clock.clone(),
        }));
        if new_pools {
            former.pools.end.retire();
        }
        if new_guard {
            former.guard.end.retire();
        }
        Ok(())
    }

    /// Whether it can serve; else why not.
    pub fn ready(&self) -> Result<(), String> {
        self.0.load().guard.follow.ready()
    }

    /// The operators' routes beside those that every role has.
    pub fn admin_routes(&self) -> lyceum_admin::Routes {
        lyceum_admin::routes(admin::routes(self.clone()))
    }
}

async fn housekeeping(edge: Edge, shutdown: Shutdown) {
    let mut beat = tokio::time::interval(HOUSEKEEPING);
    let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            () = shutdown.draining() => return,
        }
        let inner = edge.0.load_full();
        inner.playback.expire(monotonic());
        let (bytes, objects) = inner.fetcher.cache.memory_size();
        inner.metrics.cache_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        inner.metrics.cache_objects.set(i64::try_from(objects).unwrap_or(i64::MAX));
        inner.metrics.fills_open.set(whole(inner.fetcher.cache.fills_in_progress()));
        if let Some(verifier) = &inner.guard.verifier {
            inner.metrics.tokens.set(whole(verifier.cached_tokens()));
            inner.metrics.revoked.set(whole(verifier.revocations().len()));
        }
    }
}

impl Handler for Edge {
    type Body = Body;

    fn call(&self, peer: Peer, request: Request<RequestBody>, began: Instant) -> ResponseFuture<Body> {
        let inner = self.0.load();
        let (mut head, body) = request.into_parts();
        if body.is_end_stream()
            && let Some((mut response, lines)) = inner.at_once(peer, &head, began)
        {
            let Some(lines) = lines else { return ResponseFuture::Ready(response) };
            // The map goes on to the next request.
            head.headers.clear();
            *response.headers_mut() = head.headers;
            return ResponseFuture::Prepared(response, lines);
        }
        let inner = Guarded::into_inner(inner);
        ResponseFuture::boxed(async move { inner.serve(peer, head, body, began).await })
    }

    fn refuse(&self, request: &http::request::Parts, refused: Refused) -> Response<Body> {
        self.0.load().refuse(request, refused)
    }
}

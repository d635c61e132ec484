//! The edge: admit → authorize → lookup → fetch → deliver → record.
//!
//! A role: it composes `token`, `cache`, `upstream` and `semantics` behind one handler. It meets origins over HTTP
//! alone and must not import them. [`serve`](Edge) reads top to bottom in `serve.rs`.

mod admin;
mod authorize;
mod body;
mod config;
mod cors;
mod cut;
mod deliver;
mod error;
mod fetch;
mod follow;
mod locate;
mod metrics;
mod pass;
mod playback;
mod route;
mod serve;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::cache::Cache;
use crate::front::{Handler, Peer, Shutdown};
use crate::time::{Clock, monotonic};
use crate::token::{ClaimKey, Issuer, KeyError, Renewer, Verifier, VerifierConfig};
use crate::upstream::{self, FetchError, Pool, UpstreamError};

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
        cause: UpstreamError,
    },
    /// Keys.
    #[error("{0}")]
    Keys(String),
}

/// A running edge. Clones are the same edge.
#[derive(Clone, Debug)]
pub struct Edge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    routes: route::Routes,
    pools: Vec<Arc<Pool>>,
    verifier: Option<Arc<Verifier>>,
    fetcher: fetch::Fetcher,
    follow: Arc<follow::Follow>,
    playback: playback::Playback,
    cors: cors::Cors,
    metrics: Arc<metrics::Metrics>,
    clock: Clock,
}

impl Config {
    /// Says what can't work in a configuration that reads well, without starting anything.
    pub fn check(&self) -> Result<(), StartError> {
        let metrics = upstream::Metrics::new(&prometheus::Registry::new());
        let pools = pools(self, &metrics)?;
        route::Routes::new(&self.route, &pools, self.tokens.is_some()).map(drop)
    }
}

/// The pools by name, and whether each shows credentials.
fn pools(config: &Config, metrics: &upstream::Metrics) -> Result<HashMap<String, (Arc<Pool>, bool)>, StartError> {
    let mut pools = HashMap::new();
    for pool in &config.pool {
        let failed = |cause| StartError::Pool { pool: pool.name.clone(), cause };
        if pool.origins.is_empty() {
            return Err(failed(UpstreamError::Empty(pool.name.clone())));
        }
        let made = Pool::new(pool, metrics).map_err(failed)?;
        if pools.insert(pool.name.clone(), (Arc::new(made), pool.auth.is_some())).is_some() {
            return Err(StartError::Route { prefix: pool.name.clone(), what: "two pools have this name".to_owned() });
        }
    }
    Ok(pools)
}

fn verifier(config: &Config) -> Result<Option<Arc<Verifier>>, StartError> {
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
    Ok(Some(Arc::new(Verifier::new(VerifierConfig {
        audience: tokens.audience.clone(),
        issuers,
        remembered: number(tokens.remembered),
        revocations: number(tokens.revocations),
        require_session: config.control.is_some(),
        renewer,
        claim_keys: tokens.claim_keys.iter().map(|path| ClaimKey::load(path)).collect::<Result<_, _>>().map_err(failed)?,
    }))))
}

impl Edge {
    /// Starts an edge: reads its key files, and follows origins, health and keys in tasks that end with `shutdown`.
    pub async fn start(config: Config, parts: Parts) -> Result<Self, StartError> {
        let Parts { clock, registry, shutdown } = parts;
        let pools = pools(&config, &upstream::Metrics::new(&registry))?;
        let routes = route::Routes::new(&config.route, &pools, config.tokens.is_some())?;
        let prefixes: Vec<&str> = config.route.iter().map(|route| route.prefix.as_str()).collect();
        let metrics = Arc::new(metrics::Metrics::new(&registry, &prefixes));
        let verifier = verifier(&config)?;
        let cache: Arc<Cache<FetchError>> = Cache::new(&config.cache);
        let follow = Arc::new(follow::Follow::new(&config, verifier.clone(), clock.clone(), Arc::clone(&metrics))?);
        let fetcher = fetch::Fetcher {
            cache: Arc::clone(&cache),
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
            shutdown: shutdown.clone(),
        };
        let edge = Self(Arc::new(Inner {
            routes,
            pools: config.pool.iter().filter_map(|pool| pools.get(&pool.name)).map(|(pool, _)| Arc::clone(pool)).collect(),
            verifier,
            fetcher,
            follow: Arc::clone(&follow),
            playback: playback::Playback::new(&config.playback, &registry),
            cors: cors::Cors::new(&config.cors),
            metrics,
            clock,
        }));
        for (pool, config) in edge.0.pools.iter().zip(&config.pool) {
            let watch = Arc::clone(pool).watch(config.health.clone());
            let shutdown = shutdown.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = watch => {}
                    () = shutdown.draining() => {}
                }
            });
        }
        tokio::spawn(follow.run(cache, shutdown.clone()));
        tokio::spawn(housekeeping(edge.clone(), shutdown));
        Ok(edge)
    }

    /// Whether it can serve; else why not.
    pub fn ready(&self) -> Result<(), String> {
        self.0.follow.ready()
    }

    /// The operators' routes beside those that every role has.
    pub fn admin_routes(&self) -> axum::Router {
        admin::routes(self.clone())
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
        let inner = &edge.0;
        inner.playback.expire(monotonic());
        let (bytes, objects) = inner.fetcher.cache.size();
        inner.metrics.cache_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        inner.metrics.cache_objects.set(i64::try_from(objects).unwrap_or(i64::MAX));
        inner.metrics.fills_open.set(whole(inner.fetcher.cache.filling()));
        if let Some(verifier) = &inner.verifier {
            inner.metrics.tokens.set(whole(verifier.remembered()));
            inner.metrics.revoked.set(whole(verifier.revocations().len()));
        }
    }
}

impl Handler for Edge {
    type Body = Body;

    fn call(&self, peer: Peer, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send {
        let inner = Arc::clone(&self.0);
        async move { inner.serve(peer, request).await }
    }
}

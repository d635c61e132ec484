//! What requests work with under one configuration: routes, origin pools, token checks, the cache, metrics.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::control::control_plane::ControlPlane;
use crate::error::StartError;
use crate::fetch::fetcher::Fetcher;
use crate::fetch::prefetch::Prefetcher;
use crate::metrics::counters::Metrics;
use crate::metrics::playback::Playback;
use crate::request::cors::Cors;
use crate::request::route::Routes;
use crate::response::body_guard::BodyGuards;
use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::Clock;
use lyceum_token::{ClaimKey, Issuer, KeyError, Renewer, Verifier, VerifierConfig};
use lyceum_upstream::{self as upstream, Pool, PoolError};

/// The state in force, replaced as a whole when the configuration is reloaded.
pub(crate) type Shared = Arc<ArcSwap<State>>;

/// All that one request works with.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) routes: Routes,
    pub(crate) pools: Pools,
    pub(crate) guard: AccessControl,
    pub(crate) fetcher: Fetcher,
    pub(crate) prefetcher: Prefetcher,
    pub(crate) playback: Arc<Playback>,
    pub(crate) cors: Arc<Cors>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) body_guards: BodyGuards,
    pub(crate) upstream: upstream::Metrics,
    pub(crate) clock: Clock,
}

/// The origin pools, and the signal that ends their health checks.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    /// Each pool by its name, and whether it sends credentials to its origins.
    pub(crate) named: HashMap<String, (Arc<Pool>, bool)>,
    /// The pools in the order of the configuration, with their health checks.
    pub(crate) all: Vec<(Arc<Pool>, Option<upstream::Health>)>,
    pub(crate) end: Shutdown,
}

/// The token verifier, and the tasks that keep its keys and revocations up to date until `end`.
#[derive(Clone, Debug)]
pub(crate) struct AccessControl {
    pub(crate) verifier: Option<Arc<Verifier>>,
    pub(crate) control: Arc<ControlPlane>,
    pub(crate) end: Shutdown,
}

impl Pools {
    pub(crate) fn new(config: &Config, metrics: &upstream::Metrics, end: Shutdown) -> Result<Self, StartError> {
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

    /// The pools themselves.
    pub(crate) fn list(&self) -> Vec<&Pool> {
        self.all.iter().map(|(pool, _)| &**pool).collect()
    }

    /// Starts the health checks.
    pub(crate) fn watch(&self) {
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

impl AccessControl {
    /// A verifier as configured; from `former`, it takes over revoked sessions and verified tokens.
    pub(crate) fn new(
        config: &Config,
        former: Option<&Verifier>,
        clock: &Clock,
        metrics: &Arc<Metrics>,
        end: Shutdown,
    ) -> Result<Self, StartError> {
        let verifier = verifier(config, former)?;
        let control = ControlPlane::new(config, verifier.clone(), clock.clone(), Arc::clone(metrics))?;
        Ok(Self { verifier, control: Arc::new(control), end })
    }
}

impl State {
    /// Whether it can serve; else why not.
    pub(crate) fn ready(&self) -> Result<(), String> {
        self.guard.control.ready()
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
            // Last: key refreshes address the configured issuers by their index.
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

//! Builds a role from its configuration, serves it, and ends it.

use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::de::DeserializeOwned;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;
use super::reload_metrics::{ReloadMetrics, Reloaded};
use lyceum_admin::{self as admin, Admin, Routes};
use lyceum_core::config;
use lyceum_core::config::{Fault, Loaded};
use lyceum_core::shutdown::Shutdown;
use lyceum_core::telemetry::logs;
use lyceum_core::time::Clock;
use lyceum_edge as edge;
use lyceum_origin as origin;
use lyceum_server::{Handler, Limits, Listen, Server, TlsReload, WorkerThreads};

/// How long a thread that serves may take to come to its next task until it counts as stuck.
const HEALTH_LIMIT: Duration = Duration::from_secs(2);

/// How long a role whose supervisor is gone may take to end.
const ORPHAN: Duration = Duration::from_millis(500);

pub(super) async fn edge(path: &Path, exit_with_stdin: bool) -> Result<(), Failure> {
    let file = ConfigFile::load(path, edge::Config::faults)?;
    let config = file.in_force.value.clone();
    let base = Base::bind(&config.admin, &config.listen, &config.limits, exit_with_stdin).await?;
    let parts =
        edge::Parts { clock: Clock::system(), registry: base.registry.clone(), shutdown: base.shutdown.clone() };
    let edge = edge::Edge::start(config, parts).await.map_err(Failure::usage)?;
    let routes = edge.admin_routes();
    let ready = {
        let edge = edge.clone();
        move || edge.ready()
    };
    let reload = {
        let edge = edge.clone();
        file.reloading(edge::FIXED.as_slice(), edge::Config::faults, move |config, changed| {
            edge.reload(config, changed)
        })
    };
    let workers = WorkerThreads::start(&base.shutdown).map_err(Failure::other)?;
    base.serve(workers, edge, Some(routes), Arc::new(ready), reload).await
}

pub(super) async fn origin(path: &Path, exit_with_stdin: bool) -> Result<(), Failure> {
    let file = ConfigFile::load(path, origin::Config::faults)?;
    let config = file.in_force.value.clone();
    let base = Base::bind(&config.admin, &config.listen, &config.limits, exit_with_stdin).await?;
    let parts =
        origin::Parts { clock: Clock::system(), registry: base.registry.clone(), shutdown: base.shutdown.clone() };
    let origin = origin::Origin::start(config, parts).await.map_err(Failure::other)?;
    let ready = {
        let origin = origin.clone();
        move || origin.ready()
    };
    let reload = {
        let origin = origin.clone();
        file.reloading(origin::FIXED.as_slice(), origin::Config::faults, move |config, _| {
            origin.reload(config.clone());
            Ok::<_, std::convert::Infallible>(())
        })
    };
    base.serve(WorkerThreads::none(), origin, None, Arc::new(ready), reload).await
}

/// A role's configuration file, and what of it is in force.
struct ConfigFile<T> {
    path: PathBuf,
    at_start: Loaded<T>,
    in_force: Loaded<T>,
}

impl<T: DeserializeOwned + Clone + Send + 'static> ConfigFile<T> {
    fn load(path: &Path, check: fn(&T) -> Vec<Fault>) -> Result<Self, Failure> {
        let in_force: Loaded<T> = config::load_checked(path, &check)?;
        Ok(Self { path: path.to_owned(), at_start: in_force.clone(), in_force })
    }

    /// What SIGHUP does with it: reads it again and has `apply` put it in force with the keys that differ. What is
    /// wrong in it is logged, and the former one stays in force; so do keys that are `fixed`.
    fn reloading<E: Display>(
        mut self,
        fixed: &'static [&'static str],
        check: fn(&T) -> Vec<Fault>,
        apply: impl Fn(&T, &[String]) -> Result<(), E> + Send + 'static,
    ) -> Reload {
        Box::new(move || {
            let fresh = match Self::load(&self.path, check) {
                Ok(fresh) => fresh.in_force,
                Err(Failure::Usage(error) | Failure::Other(error)) => {
                    tracing::error!(error, "the configuration in force stays in force");
                    return false;
                }
            };
            let is_fixed = |key: &String| fixed.contains(&key.as_str());
            let restart: Vec<String> = fresh.changed_since(&self.at_start).into_iter().filter(is_fixed).collect();
            let mut changed = fresh.changed_since(&self.in_force);
            changed.retain(|key| !is_fixed(key));
            if !restart.is_empty() {
                tracing::warn!(keys = ?restart, "these keys of the configuration take effect at the next start");
            }
            match apply(&fresh.value, &changed) {
                Ok(()) => {
                    tracing::info!(?changed, "configuration read again");
                    self.in_force = fresh;
                    true
                }
                Err(error) => {
                    tracing::error!(%error, "the configuration in force stays in force");
                    false
                }
            }
        })
    }
}

/// What SIGHUP does beside the certificates; whether it worked.
type Reload = Box<dyn FnMut() -> bool + Send>;

/// What every role has: listeners, metrics, an end.
struct Base {
    server: Server,
    admin: Option<Admin>,
    limits: Limits,
    registry: Registry,
    shutdown: Shutdown,
}

/// A connection is an open file: takes as many as this machine's administrator lets it have, where most systems give 1024
/// and let a program ask for more.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(cause) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::info!(%cause, files = ?limit.current, "the number of open files stays as it was");
    }
}

impl Base {
    async fn bind(
        admin: &Option<admin::Config>,
        listens: &[Listen],
        limits: &Limits,
        exit_with_stdin: bool,
    ) -> Result<Self, Failure> {
        allow_files();
        let registry = Registry::new();
        logs::register(&registry);
        let shutdown = Shutdown::new();
        if exit_with_stdin {
            end_with_stdin(shutdown.clone());
        }
        if listens.is_empty() {
            return Err(Failure::usage("the configuration has no [[listen]]: add one with an address"));
        }
        let server = Server::bind(listens, limits, &registry).map_err(Failure::other)?;
        let admin = match admin {
            Some(config) => Some(Admin::bind(config).await.map_err(Failure::other)?),
            None => None,
        };
        Ok(Self { server, admin, limits: limits.clone(), registry, shutdown })
    }

    async fn serve<H: Handler>(
        self,
        workers: WorkerThreads,
        handler: H,
        routes: Option<Routes>,
        ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
        reload: Reload,
    ) -> Result<(), Failure> {
        let admin_url = self.admin.as_ref().map(Admin::url);
        announce(&self.server.urls(), admin_url.as_deref());
        if let Some(admin) = self.admin {
            let threads = workers.clone();
            let serving: admin::Serving = Arc::new(move || {
                let threads = threads.clone();
                Box::pin(async move { threads.respond(HEALTH_LIMIT).await.map_err(|stuck| stuck.to_string()) })
            });
            let role = admin::Role {
                registry: self.registry.clone(),
                ready,
                serving: Some(serving),
                shutdown: self.shutdown.clone(),
                routes,
            };
            tokio::spawn(admin.serve(role));
        }
        let drain = self.limits.drain_timeout.get();
        let signals = Signals::listen().map_err(Failure::other)?;
        let metrics = ReloadMetrics::new(&self.registry);
        tokio::spawn(signals.follow(self.shutdown.clone(), self.server.tls(), reload, metrics));
        tokio::spawn(self.server.serve_with(workers, handler, self.shutdown.clone()));
        if !self.shutdown.drained(drain).await {
            tracing::warn!(drain_timeout = %lyceum_core::units::Span(drain), "what was still under way is cut off");
        }
        Ok(())
    }
}

/// One line on standard output once everything is bound, for whoever started the program.
fn announce(listen: &[String], admin: Option<&str>) {
    let line = serde_json::json!({ "ready": { "listen": listen, "admin": admin } });
    // A closed standard output is no reason not to serve.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
    tracing::info!(listen = ?listen, admin, "serving");
}

/// Ends the process soon after standard input does, whatever is under way.
fn end_with_stdin(shutdown: Shutdown) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        shutdown.begin();
        std::thread::sleep(ORPHAN);
        logs::exit(0);
    });
}

/// SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reads configuration, keys and certificates again.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn follow(mut self, shutdown: Shutdown, tls: TlsReload, mut reload: Reload, metrics: ReloadMetrics) {
        loop {
            tokio::select! {
                Some(()) = self.hangup.recv() => {
                    metrics.reloaded(Reloaded::Configuration, reload());
                    let certificates = tls.reload();
                    metrics.reloaded(Reloaded::Certificates, certificates.is_ok());
                    match certificates {
                        Ok(()) => tracing::info!("certificates read again"),
                        Err(error) => tracing::error!(%error, "the certificates in force stay in force"),
                    }
                }
                _ = self.terminate.recv() => Self::told(&shutdown),
                _ = self.interrupt.recv() => Self::told(&shutdown),
            }
        }
    }

    fn told(shutdown: &Shutdown) {
        if shutdown.is_draining() {
            logs::exit(0);
        }
        tracing::info!("draining");
        shutdown.begin();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Tiny {
        loud: bool,
        #[serde(default)]
        port: u16,
    }

    #[test]
    fn what_is_wrong_changes_nothing_and_fixed_keys_are_left() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let say = |text: &str| std::fs::write(file.path(), text).unwrap();
        say("loud = false");
        let check = |tiny: &Tiny| if tiny.port == 1 { vec![Fault::at("port", "a bad port")] } else { Vec::new() };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let applied = Arc::clone(&seen);
        let mut reload =
            ConfigFile::load(file.path(), check).unwrap().reloading(&["port"], check, move |tiny: &Tiny, changed| {
                applied.lock().unwrap().push((tiny.loud, changed.to_vec()));
                if tiny.port == 2 { Err("it can't be had") } else { Ok(()) }
            });
        for text in
            ["loud = 1", "loud = true\nport = 1", "loud = true\nport = 2", "loud = true\nport = 3", "loud = true"]
        {
            say(text);
            reload();
        }
        let loud = || vec!["loud".to_owned()];
        // The third could not be applied, so the fourth still differs from what is in force.
        assert_eq!(*seen.lock().unwrap(), [(true, loud()), (true, loud()), (true, vec![])]);
    }
}

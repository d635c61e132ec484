//! Builds a role from its configuration, serves it, and ends it.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use crate::admin::{self, Admin};
use crate::front::{Front, Handler, Limits, Listen, Shutdown, TlsReload};
use crate::time::Clock;
use crate::{config, edge, origin};

/// How long a role whose supervisor is gone may take to end.
const ORPHAN: Duration = Duration::from_millis(500);

pub(super) async fn edge(path: &Path, exit_with_stdin: bool) -> Result<(), Failure> {
    let config: edge::Config = config::load(path)?;
    config.check().map_err(|what| Failure::usage(format!("{}: {what}", path.display())))?;
    let base = Base::bind(&config.admin, &config.listen, &config.limits, exit_with_stdin).await?;
    let parts = edge::Parts {
        clock: Clock::system(),
        registry: base.registry.clone(),
        shutdown: base.shutdown.clone(),
    };
    let edge = edge::Edge::start(config, parts).await.map_err(Failure::usage)?;
    let routes = edge.admin_routes();
    let ready = { let edge = edge.clone(); move || edge.ready() };
    base.serve(edge, routes, Arc::new(ready)).await
}

pub(super) async fn origin(path: &Path, exit_with_stdin: bool) -> Result<(), Failure> {
    let config: origin::Config = config::load(path)?;
    config.check().map_err(|what| Failure::usage(format!("{}: {what}", path.display())))?;
    let base = Base::bind(&config.admin, &config.listen, &config.limits, exit_with_stdin).await?;
    let parts = origin::Parts {
        clock: Clock::system(),
        registry: base.registry.clone(),
        shutdown: base.shutdown.clone(),
    };
    let origin = origin::Origin::start(config, parts).await.map_err(Failure::other)?;
    let routes = origin.admin_routes();
    let ready = { let origin = origin.clone(); move || origin.ready() };
    base.serve(origin, routes, Arc::new(ready)).await
}

/// What every role has: listeners, metrics, an end.
struct Base {
    front: Front,
    admin: Option<Admin>,
    limits: Limits,
    registry: Registry,
    shutdown: Shutdown,
}

impl Base {
    async fn bind(
        admin: &Option<admin::Config>,
        listens: &[Listen],
        limits: &Limits,
        exit_with_stdin: bool,
    ) -> Result<Self, Failure> {
        let registry = Registry::new();
        let shutdown = Shutdown::new();
        if exit_with_stdin {
            end_with_stdin(shutdown.clone());
        }
        if listens.is_empty() {
            return Err(Failure::usage("the configuration has no [[listen]]: add one with an address"));
        }
        let front = Front::bind(listens, limits, &registry).map_err(Failure::other)?;
        let admin = match admin {
            Some(config) => Some(Admin::bind(config).await.map_err(Failure::other)?),
            None => None,
        };
        Ok(Self { front, admin, limits: limits.clone(), registry, shutdown })
    }

    async fn serve<H: Handler>(
        self,
        handler: H,
        routes: axum::Router,
        ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    ) -> Result<(), Failure> {
        let admin_url = self.admin.as_ref().map(Admin::url);
        announce(&self.front.urls(), admin_url.as_deref());
        if let Some(admin) = self.admin {
            let role = admin::Role {
                registry: self.registry.clone(),
                ready,
                shutdown: self.shutdown.clone(),
                routes,
            };
            tokio::spawn(admin.serve(role));
        }
        let drain = self.limits.drain_timeout.get();
        let signals = Signals::listen().map_err(Failure::other)?;
        tokio::spawn(signals.follow(self.shutdown.clone(), self.front.tls()));
        tokio::spawn(self.front.serve(handler, self.shutdown.clone()));
        if !self.shutdown.drained(drain).await {
            tracing::warn!(drain_timeout = %crate::units::Span(drain), "what was still under way is cut off");
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
        std::process::exit(0);
    });
}

/// SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reads certificates again.
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

    async fn follow(mut self, shutdown: Shutdown, tls: TlsReload) {
        loop {
            tokio::select! {
                Some(()) = self.hangup.recv() => match tls.reload() {
                    Ok(()) => tracing::info!("certificates read again"),
                    Err(error) => tracing::error!(%error, "the certificates in force stay in force"),
                },
                _ = self.terminate.recv() => Self::told(&shutdown),
                _ = self.interrupt.recv() => Self::told(&shutdown),
            }
        }
    }

    fn told(shutdown: &Shutdown) {
        if shutdown.is_draining() {
            std::process::exit(0);
        }
        tracing::info!("draining");
        shutdown.begin();
    }
}

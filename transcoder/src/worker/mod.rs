//! `lyceum-transcoder worker`: leases tasks from origins over HTTP, runs each in a process of its own, and hands back
//! what it makes. It holds an API key and nothing else: no database, no bucket, no state on disk.

mod api;
mod lease;
mod metrics;
mod remote;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use lyceum_admin::{self as admin, Admin};
use lyceum_client as client;
use lyceum_core::shutdown::Shutdown;
use lyceum_core::units::{self, ByteSize, Span};
use serde::Deserialize;

use crate::limits::Limits;
use api::Api;
use metrics::Metrics;

/// `worker --config FILE`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The configuration (worker.toml)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only say what is wrong with the configuration
    #[arg(long, hide = true)]
    check: bool,
    /// End at once when standard input does
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

/// `worker.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The operators' listener; none by default.
    #[serde(default)]
    admin: Option<admin::Config>,
    /// The origins' URLs, 1 to 64; tasks are leased from each in turn.
    #[serde(deserialize_with = "origins")]
    origins: Vec<String>,
    /// An API key of role `worker`.
    api_key: String,
    /// Tasks at once, 1 to 256; default one for each core. A task uses about one core.
    #[serde(default = "cores", deserialize_with = "units::number::<_, 1, 256>")]
    slots: u64,
    /// On SIGTERM, what is under way gets this long to finish before it is given back: 0ms to 1h, default 30s.
    #[serde(default = "drain_timeout", deserialize_with = "units::span::<_, 0, 3_600_000>")]
    drain_timeout: Span,
    /// How long an origin may hold a request for a task open: 0ms to 25s, default 10s.
    #[serde(default = "lease_wait", deserialize_with = "units::span::<_, 0, 25_000>")]
    lease_wait: Span,
    /// Memory for what was read of a task's source: 1MiB to 4GiB, default 16MiB.
    #[serde(default = "source_cache", deserialize_with = "units::size::<_, { 1 << 20 }, { 4 << 30 }>")]
    source_cache: ByteSize,
    /// What each task may use.
    #[serde(default)]
    limits: Limits,
    /// What a call to an origin may cost.
    #[serde(default)]
    client: client::Limits,
}

fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(256)
}

fn drain_timeout() -> Span {
    Span::secs(30)
}

fn lease_wait() -> Span {
    Span::secs(10)
}

fn source_cache() -> ByteSize {
    ByteSize::mib(16)
}

fn origins<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    use serde::de::Error;
    let origins = Vec::<String>::deserialize(from)?;
    if !(1..=64).contains(&origins.len()) {
        return Err(D::Error::custom("a worker has 1 to 64 origins"));
    }
    for origin in &origins {
        let uri: Option<http::Uri> = origin.parse().ok();
        let good = uri.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some() && uri.query().is_none()
        });
        if !good {
            return Err(D::Error::custom(format!(
                "\"{origin}\" is no URL of an origin, such as \"http://127.0.0.1:8080\""
            )));
        }
    }
    Ok(origins.into_iter().map(|origin| origin.trim_end_matches('/').to_owned()).collect())
}

/// Runs until a signal, or until standard input ends where that was asked for.
pub(crate) async fn main(options: &Options) -> ExitCode {
    let config = match lyceum_core::config::load::<Config>(&options.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("lyceum-transcoder: {error}");
            return ExitCode::from(2);
        }
    };
    if options.check {
        println!("{}: a good worker configuration", options.config.display());
        return ExitCode::SUCCESS;
    }
    if options.exit_with_stdin {
        end_with_stdin();
    }
    match serve(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lyceum-transcoder: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Task processes notice by themselves: the sockets that serve them close with this process.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(0);
    });
}

async fn serve(config: Config) -> Result<(), admin::AdminError> {
    let shutdown = Shutdown::new();
    let registry = prometheus::Registry::new();
    let metrics = Metrics::new(&registry, config.slots);
    let mut admin_url = None;
    if let Some(admin) = &config.admin {
        let admin = Admin::bind(admin).await?;
        admin_url = Some(admin.url());
        let role = admin::Role {
            registry,
            ready: Arc::new(|| Ok(())),
            shutdown: shutdown.clone(),
            routes: Default::default(),
        };
        tokio::spawn(admin.serve(role));
    }
    let ready = serde_json::json!({"ready": {"listen": [], "admin": admin_url}});
    let _ = std::io::Write::write_all(&mut std::io::stdout().lock(), format!("{ready}\n").as_bytes());
    tracing::info!(origins = ?config.origins, slots = config.slots, admin = admin_url, "leasing tasks");

    let context = Arc::new(lease::Context {
        api: Api::new(&config),
        limits: config.limits.clone(),
        source_cache: config.source_cache,
        metrics,
        shutdown: shutdown.clone(),
        drain_timeout: config.drain_timeout.get(),
    });
    tokio::spawn(follow_signals(shutdown.clone()));
    let slots: Vec<_> = (0..config.slots).map(|slot| tokio::spawn(lease::slot(slot, context.clone()))).collect();
    for slot in slots {
        let _ = slot.await;
    }
    Ok(())
}

async fn follow_signals(shutdown: Shutdown) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tracing::info!("draining: no more tasks are leased");
    shutdown.begin();
}

/// A random share of `most`, at least half of it, so that workers do not ask all at once.
fn jittered(most: Duration) -> Duration {
    let [byte] = lyceum_core::ids::random_bytes::<1>();
    most.mul_f64(0.5 + f64::from(byte) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        lyceum_core::config::parse(text, std::path::Path::new("worker.toml"), &|_| None).map_err(|e| e.to_string())
    }

    #[test]
    fn a_configuration_needs_origins_and_a_key() {
        let config =
            read("origins = [\"http://127.0.0.1:8080/\"]\napi_key = \"k\"\nslots = 3\n[limits]\nmemory = \"2GiB\"")
                .unwrap();
        assert_eq!((config.origins[0].as_str(), config.slots), ("http://127.0.0.1:8080", 3));
        for (bad, says) in [
            ("api_key = \"k\"", "origins"),
            ("origins = []\napi_key = \"k\"", "1 to 64"),
            ("origins = [\"ftp://x\"]\napi_key = \"k\"", "no URL of an origin"),
            ("origins = [\"http://x\"]\napi_key = \"k\"\nslots = 0", "slots"),
            ("origins = [\"http://x\"]\napi_key = \"k\"\n[limits]\nmemory = \"1MiB\"", "limits.memory"),
            ("origins = [\"http://x\"]\napi_key = \"k\"\ncolour = 1", "colour"),
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}

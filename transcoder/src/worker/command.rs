//! The `worker` command: configuration, operators' listener, slots, signals.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use lyceum_admin::{self as admin, Admin};
use lyceum_core::shutdown::Shutdown;
use lyceum_core::telemetry::logs;

use super::config::Config;
use super::context::Context;
use super::lease;
use super::metrics::Metrics;
use super::origin_client::OriginClient;

/// `worker --config FILE`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The configuration (worker.toml)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only check the configuration
    #[arg(long, hide = true)]
    check: bool,
    /// Exit at once when standard input is closed
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

/// Runs until a signal, or until standard input ends where that was asked for.
pub(crate) async fn main(options: &Options) -> ExitCode {
    if options.check {
        return check(&options.config);
    }
    let config = match lyceum_core::config::load_checked(&options.config, &Config::faults) {
        Ok(loaded) => loaded.value,
        Err(error) => {
            eprintln!("lyceum-transcoder: {error}");
            return ExitCode::from(2);
        }
    };
    if options.exit_with_stdin {
        end_with_stdin();
    }
    match serve(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logs::say(&format!("lyceum-transcoder: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with a configuration; `lyceum config check` prints what this prints.
fn check(path: &Path) -> ExitCode {
    match lyceum_core::config::check(path, &Config::faults) {
        Ok(unset) => {
            println!("{}: a good worker configuration", path.display());
            if !unset.is_empty() {
                println!("note: not set here, and needed at the start: {}", unset.join(", "));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lyceum-transcoder: {error}");
            ExitCode::from(2)
        }
    }
}

/// Task processes end by themselves, as their sockets close with this process.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        logs::exit(0);
    });
}

async fn serve(config: Config) -> Result<(), admin::AdminError> {
    let shutdown = Shutdown::new();
    let registry = prometheus::Registry::new();
    logs::register(&registry);
    let metrics = Metrics::new(&registry, config.slots);
    let mut admin_url = None;
    if let Some(admin) = &config.admin {
        let admin = Admin::bind(admin).await?;
        admin_url = Some(admin.url());
        let role = admin::Role {
            registry,
            ready: Arc::new(|| Ok(())),
            serving: None,
            shutdown: shutdown.clone(),
            routes: Default::default(),
        };
        tokio::spawn(admin.serve(role));
    }
    let ready = serde_json::json!({"ready": {"listen": [], "admin": admin_url}});
    let _ = std::io::Write::write_all(&mut std::io::stdout().lock(), format!("{ready}\n").as_bytes());
    tracing::info!(origins = ?config.origins, slots = config.slots, admin = admin_url, "leasing tasks");

    let context = Arc::new(Context {
        origins: OriginClient::new(&config),
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

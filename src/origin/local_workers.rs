//! Transcoding processes that the origin starts: `lyceum-transcoder worker`, from the directory of the origin's own
//! program. One that dies is restarted; all end with the origin, however that ends, since their standard input closes.
//!
//! Their API key is made at each start and kept in memory alone, here and in their environment. Their configuration,
//! which holds no secret, is a file in memory (memfd), so nothing is left on a disk.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use lyceum_core::time::monotonic;

use crate::config::Config;
use crate::start_error::StartError;
use crate::state::App;

/// The wait before a worker that died is restarted; it doubles up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The backoff begins anew after a worker that ran for longer.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// How long a worker may take to give its task back when the origin drains.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Starts the configured workers. They end with the origin.
pub(crate) fn start(app: &Arc<App>) -> Result<(), StartError> {
    let count = app.config().workers.count;
    if count == 0 {
        return Ok(());
    }
    let program = program().map_err(StartError::Workers)?;
    let failed = |error: std::io::Error| StartError::Workers(format!("their configuration can't be made: {error}"));
    let config = Arc::new(configuration(&app.config()).map_err(failed)?);
    for number in 0..count {
        tokio::spawn(keep_alive(app.clone(), program.clone(), config.clone(), number));
    }
    Ok(())
}

fn program() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("the path of this program is not known: {error}"))?;
    // Test programs are one folder deeper than the programs that they start.
    let folders = own.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("lyceum-transcoder")).find(|path| path.is_file());
    found.ok_or_else(|| {
        format!("lyceum-transcoder is not beside {}: install it there, or set workers = {{ count = 0 }}", own.display())
    })
}

/// A file in memory, which the workers inherit.
fn configuration(config: &Config) -> std::io::Result<File> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let slots = (cores / config.workers.count.max(1)).max(1);
    // Without `MFD_CLOEXEC`, so that the worker inherits it.
    let mut file = File::from(memfd_create("lyceum-worker.toml", MemfdFlags::empty())?);
    writeln!(file, "origins = [\"${{LYCEUM_WORKER_ORIGIN}}\"]")?;
    writeln!(file, "api_key = \"${{LYCEUM_WORKER_KEY}}\"")?;
    writeln!(file, "slots = {slots}")?;
    Ok(file)
}

/// Where a process on this machine reaches the origin.
fn own_url(config: &Config) -> String {
    let plain = config.listen.iter().find(|listen| listen.tls.is_none() && listen.address.port() != 0);
    let Some(listen) = plain else { return config.public_url.clone() };
    let mut address = listen.address;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        });
    }
    format!("http://{address}")
}

async fn keep_alive(app: Arc<App>, program: PathBuf, config: Arc<File>, number: u64) {
    let mut backoff = FIRST_BACKOFF;
    while !app.shutdown.is_draining() {
        let started = monotonic();
        match spawn(&app, &program, &config) {
            Ok(mut worker) => {
                tracing::info!(number, pid = worker.id(), "worker started");
                // Taken out, since waiting for a child closes its standard input, and that ends the worker.
                let stdin = worker.stdin.take();
                tokio::select! {
                    ended = worker.wait() => {
                        let status = ended.map(|status| status.to_string()).unwrap_or_default();
                        tracing::warn!(number, status, "a worker ended; it is restarted");
                    }
                    () = app.shutdown.draining() => return drain(&app, worker).await,
                }
                drop(stdin);
            }
            Err(error) => tracing::error!(number, %error, "a worker can't be started"),
        }
        backoff = if started.elapsed() > HEALTHY_AFTER { FIRST_BACKOFF } else { (backoff * 2).min(MAX_BACKOFF) };
        tokio::select! {
            () = sleep(backoff) => {}
            () = app.shutdown.draining() => {}
        }
    }
}

fn spawn(app: &App, program: &PathBuf, config: &File) -> std::io::Result<Child> {
    Command::new(program)
        .args(["worker", "--exit-with-stdin", "--config"])
        .arg(format!("/proc/self/fd/{}", config.as_raw_fd()))
        .env("LYCEUM_WORKER_ORIGIN", own_url(&app.config()))
        .env("LYCEUM_WORKER_KEY", app.worker_key.expose())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
}

/// Lets a worker give its task back. Then it ends, as its standard input closes.
async fn drain(app: &App, mut worker: Child) {
    let _guard = app.shutdown.guard();
    let pid = worker.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::TERM);
    }
    let _ = timeout(DRAIN_TIMEOUT, worker.wait()).await;
}

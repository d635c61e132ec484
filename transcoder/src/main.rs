//! `lyceum-transcoder`: the only program that links FFmpeg. `run` makes one file into HLS and DASH, `worker` leases
//! tasks from origins; both run each task in a process of its own (`task`, which only they start).
#![deny(unsafe_code)]

mod limits;
mod process;
mod run;
mod task;
mod wire;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lyceum_core::telemetry::logs::{self, LogFormat};
use lyceum_core::units::Span;

/// Turns recordings into HLS and DASH.
#[derive(Parser, Debug)]
#[command(name = "lyceum-transcoder", version)]
struct Cli {
    /// The form of log lines on standard error
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make one file into HLS and DASH on disk; needs no server
    Run(run::Options),
    /// Lease tasks from origins and do them
    Worker(worker::Options),
    /// Make a sample recording with motion, a clock and sound
    Sample {
        /// The MP4 file to write
        out: PathBuf,
        /// How long it is: 1s to 12h
        #[arg(long, default_value = "60s")]
        duration: Span,
    },
    /// Do one task; started by the other commands alone
    #[command(hide = true)]
    Task,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    logs::init(cli.log_format);
    match cli.command {
        Command::Task => task::main(),
        Command::Worker(options) => with_runtime(worker::main(&options)),
        Command::Sample { out, duration } => sample(&out, duration),
        Command::Run(options) => with_runtime(run::main(&options)),
    }
}

fn with_runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // A read of the source that hangs on a dead disk does not keep the program from ending.
            runtime.shutdown_background();
            code
        }
        Err(cause) => {
            eprintln!("lyceum-transcoder: the program can't start its threads: {cause}");
            ExitCode::FAILURE
        }
    }
}

/// Written beside its place and renamed, so that nothing half-made stays.
fn sample(out: &Path, duration: Span) -> ExitCode {
    let seconds = duration.get().as_secs();
    if !(1..=43_200).contains(&seconds) {
        eprintln!("lyceum-transcoder: --duration {duration} is out of bounds: from 1s to 12h");
        return ExitCode::from(2);
    }
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = tempfile::Builder::new()
        .prefix(".sample-")
        .suffix(".mp4")
        .tempfile_in(parent)
        .map_err(|cause| cause.to_string());
    let made = made.and_then(|file| {
        let path = file.into_temp_path();
        task::sample::make(&path, seconds).map_err(|error| error.to_string())?;
        path.persist(out).map_err(|error| error.to_string())
    });
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("lyceum-transcoder: {}: the sample can't be made: {why}", out.display());
            ExitCode::FAILURE
        }
    }
}

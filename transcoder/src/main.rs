//! `lyceum-transcoder`: the only program that links FFmpeg. `run` makes one file into HLS and DASH, `worker` leases
//! tasks from origins; both run each task in a process of its own (`task`, which only they start).
#![deny(unsafe_code)]

mod ipc;
mod limits;
mod run;
mod sample_recording;
mod task;
mod task_process;
mod worker;

use std::path::PathBuf;
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
        Command::Sample { out, duration } => sample_recording::main(&out, duration),
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

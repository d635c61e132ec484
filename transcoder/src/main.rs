//! `lyceum-transcoder`, the only program that links FFmpeg. `run` converts one file to HLS and DASH, `worker` leases
//! tasks from origins. Both run each task in a process of its own, the hidden command `task`.
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

use clap::{CommandFactory, Parser, Subcommand};
use lyceum_core::shell::{Completions, Man, print_completions, write_manual_pages};
use lyceum_core::telemetry::logs::{self, LogOptions};
use lyceum_core::units::Span;

/// Converts recordings to HLS and DASH.
#[derive(Parser, Debug)]
#[command(name = "lyceum-transcoder", version)]
struct Cli {
    #[command(flatten)]
    log: LogOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Convert one file to HLS and DASH on disk, without a server
    Run(run::Options),
    /// Lease tasks from origins and run them
    Worker(worker::Options),
    /// Make a sample recording with motion, a clock and sound
    Sample {
        /// The MP4 file to write
        out: PathBuf,
        /// Its duration: 1s to 12h
        #[arg(long, default_value = "60s")]
        duration: Span,
    },
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(Completions),
    /// Write manual pages
    #[command(after_help = MAN_EXAMPLES)]
    Man(Man),
    /// Run one task; started by the other commands only
    #[command(hide = true)]
    Task,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  lyceum-transcoder completions bash > ~/.local/share/bash-completion/completions/lyceum-transcoder
  lyceum-transcoder completions zsh > ~/.zfunc/_lyceum-transcoder";

const MAN_EXAMPLES: &str = "\
Example:
  lyceum-transcoder man --out /usr/local/share/man/man1 && man lyceum-transcoder-run";

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Task) {
        // The sandbox would not hold a thread that was started before it.
        logs::init_unqueued(&cli.log);
        return task::main();
    }
    let _log = logs::init(&cli.log);
    match cli.command {
        // Above.
        Command::Task => ExitCode::FAILURE,
        Command::Worker(options) => with_runtime(worker::main(&options)),
        Command::Sample { out, duration } => sample_recording::main(&out, duration),
        Command::Run(options) => with_runtime(run::main(&options)),
        Command::Completions(arguments) => {
            print_completions(&arguments, Cli::command());
            ExitCode::SUCCESS
        }
        Command::Man(Man { out }) => match write_manual_pages(&out, Cli::command()) {
            Ok(()) => {
                println!("{}: manual pages are written", out.display());
                ExitCode::SUCCESS
            }
            Err(cause) => {
                eprintln!("lyceum-transcoder: {}: {cause}", out.display());
                ExitCode::FAILURE
            }
        },
    }
}

fn with_runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // A blocked read of the source must not keep the program from exiting.
            runtime.shutdown_background();
            code
        }
        Err(cause) => {
            eprintln!("lyceum-transcoder: the program can't start its threads: {cause}");
            ExitCode::FAILURE
        }
    }
}

//! `lyceum-load`: load generator and side-by-side benchmarks. Each subcommand is a module of its own.
#![forbid(unsafe_code)]

pub mod hls;
pub mod report;
pub mod viewers;

use std::process::ExitCode;

use clap::Parser;

/// Load generator and benchmarks for Lyceum.
#[derive(Debug, Parser)]
#[command(version, about)]
enum Command {
    /// Virtual players that watch a lesson through an edge and report start-up, rebuffering, throughput and errors
    Viewers(viewers::Args),
}

fn main() -> ExitCode {
    let command = Command::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lyceum-load: threads can't be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        match command {
            Command::Viewers(args) => viewers::run(args).await,
        }
    })
}

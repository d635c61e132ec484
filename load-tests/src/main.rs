//! `lyceum-load`: load generator and side-by-side benchmarks. Each subcommand is a module of its own.
#![forbid(unsafe_code)]

pub mod bench;
pub mod cache;
pub mod faults;
pub mod hls;
pub mod origin;
pub mod programs;
pub mod report;
pub mod transcode;
pub mod uploads;
pub mod viewers;
pub mod world;

use std::process::ExitCode;

use clap::Parser;

/// Load generator and benchmarks for Lyceum.
#[derive(Debug, Parser)]
#[command(version, about)]
enum Command {
    /// Virtual players that watch a lesson through an edge and report start-up, rebuffering, throughput and errors
    Viewers(viewers::Args),
    /// CPU cost of a cache hit, against nginx and a floor of bare hyper and rustls
    Bench(bench::Args),
    /// Soak an edge with random faults between it and its origins; afterwards the counters have to balance
    Faults(faults::Args),
    /// Hit ratio, collapse, memory and cost of the edge's cache
    Cache(cache::Args),
    /// Performance of the origin: upload throughput against nginx, memory, playback sessions, cold segments
    Uploads(uploads::Args),
    /// The transcoder against Debian's ffmpeg: processor time, wall time, memory, first segment, slides, workers
    Transcode(transcode::Args),
    /// Answer constants from memory: the floor of `bench`
    #[command(hide = true)]
    Floor(bench::floor::Args),
}

/// The allocator of `lyceum`, so that the floor of `bench` is comparable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = match Command::parse() {
        Command::Floor(args) => return bench::floor::run(&args),
        Command::Bench(args) => return bench::run(&args),
        Command::Transcode(args) => return transcode::run(&args),
        command @ (Command::Viewers(_) | Command::Faults(_) | Command::Cache(_) | Command::Uploads(_)) => command,
    };
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
            Command::Faults(args) => faults::run(args).await,
            Command::Cache(args) => cache::run(args).await,
            Command::Uploads(args) => uploads::run(args).await,
            // They run without this runtime and have returned above.
            Command::Bench(_) | Command::Floor(_) | Command::Transcode(_) => ExitCode::FAILURE,
        }
    })
}

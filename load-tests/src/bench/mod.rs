//! `lyceum-load bench`: what a hit costs, beside nginx, Varnish and a floor of bare hyper and rustls.
//!
//! One run, interleaved rounds: each server is held to the first core and the load to another, and what counts is the
//! CPU time that the kernel accounts to the server, per request and per gigabyte. The edge has everything on: a
//! token in the path, cache, metrics, limits. nginx has `proxy_cache`, `sendfile` and `secure_link`. Varnish answers from
//! memory and checks no link: Debian's has no module for that, and it speaks no TLS.
//!
//! Beside the cost of hits (`--parts hits`) there are goals that one figure each decides: `latency`, `idle`,
//! `connections` and `objects`.

pub mod floor;

mod account;
mod goals;
mod idle;
mod latency;
mod load;
mod report;
mod scale;
mod servers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use load::Protocol;
use servers::{Server, Setting};

/// What stops a benchmark: a program that is missing, a server that does not answer as it should.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BenchError(pub String);

impl BenchError {
    fn new(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}

/// Compare the cost of hits: the edge, nginx and a floor of bare hyper
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Interleaved rounds; medians and spread are taken over them
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load for each cell of a round
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Body sizes in bytes
    #[arg(long, value_delimiter = ',', default_values_t = [2 << 10, 64 << 10, 1 << 20, 4 << 20])]
    sizes: Vec<usize>,
    /// Connections of the load
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Servers to compare: floor, edge, nginx, varnish
    #[arg(long, value_delimiter = ',', default_values_t = ["floor", "edge", "nginx", "varnish"].map(str::to_owned))]
    servers: Vec<String>,
    /// What is measured: hits, latency (at 70 % of each server's own maximum), idle (memory of TLS connections), connections
    /// and objects (the cost of a hit with few of them and with many)
    #[arg(long, value_delimiter = ',', default_values_t = [Part::Hits])]
    parts: Vec<Part>,
    /// Write the figures as JSON here
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the table as Markdown here
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Hits,
    Latency,
    Idle,
    Connections,
    Objects,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        clap::ValueEnum::to_possible_value(self).map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

/// Runs the benchmark.
pub fn run(args: &Args) -> ExitCode {
    match told(args) {
        Ok((json, markdown)) => {
            println!("{markdown}");
            let written = args
                .json
                .iter()
                .map(|path| (path, &json))
                .chain(args.markdown.iter().map(|path| (path, &markdown)))
                .try_for_each(|(path, text)| {
                    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
                });
            match written {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("lyceum-load bench: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => {
            eprintln!("lyceum-load bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The figures of the parts that are asked for, as JSON and as Markdown.
fn told(args: &Args) -> Result<(String, String), BenchError> {
    let goals = measure_goals(args)?;
    if !args.parts.contains(&Part::Hits) {
        return Ok((format!("{:#}\n", serde_json::json!({ "goals": goals })), goals::markdown(&goals)));
    }
    let report = measure(args)?;
    match goals.is_empty() {
        true => Ok((report.json(), report.markdown())),
        false => {
            let mut json = report.value();
            if let Some(json) = json.as_object_mut() {
                json.insert("goals".to_owned(), serde_json::to_value(&goals).map_err(BenchError::new)?);
            }
            Ok((format!("{json:#}\n"), format!("{}\n{}", report.markdown(), goals::markdown(&goals))))
        }
    }
}

fn measure_goals(args: &Args) -> Result<Vec<goals::Goal>, BenchError> {
    let mut goals = Vec::new();
    for part in &args.parts {
        match part {
            Part::Hits => {}
            Part::Latency => goals.extend(latency::measure(args)?),
            Part::Idle => goals.extend(idle::measure()?),
            Part::Connections => goals.push(scale::connections(args)?),
            Part::Objects => goals.push(scale::objects(args)?),
        }
    }
    Ok(goals)
}

fn measure(args: &Args) -> Result<report::Report, BenchError> {
    load::have_programs(&args.servers)?;
    let setting = Setting::new(&args.sizes)?;
    let servers: Vec<Server> = args.servers.iter().map(|name| setting.start(name)).collect::<Result<_, _>>()?;
    let mut report = report::Report::default();
    let span = Duration::from_secs(args.seconds.max(1));
    for round in 0..args.rounds.max(1) {
        for protocol in Protocol::ALL {
            for size in &args.sizes {
                for server in &servers {
                    let Some(url) = server.url(protocol, *size) else { continue };
                    load::check_answer(protocol, &url, *size)?;
                    load::run(protocol, &url, args.connections, Duration::from_millis(300))?;
                    let before = account::cpu(server.pids())?;
                    let requests = load::run(protocol, &url, args.connections, span)?;
                    let spent = account::cpu(server.pids())?.saturating_sub(before);
                    eprintln!("round {}: {} {protocol} {size}: {requests} requests", round + 1, server.name());
                    report.add(server.name(), protocol, *size, requests, spent);
                }
            }
        }
    }
    Ok(report)
}

//! `lyceum-load uploads`: what the origin owes its uploads, its playback sessions and its deliveries, measured.
//!
//! Each figure has its bound, and the run fails where one is missed:
//! upload throughput beside nginx's WebDAV `PUT` followed by a sync to the same disk, in interleaved rounds; the memory of
//! many large uploads at once, into a directory and into a bucket; durable playback sessions a second on one core; the CPU time of a cold segment beyond
//! that of reading its file.

mod bucket;
mod delivery;
mod memory;
mod nginx;
mod playback;
mod process;
mod setting;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::report::write_json;

/// What stops a measurement.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(pub String);

impl LoadError {
    fn new(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}

fn failed(what: &str) -> impl FnOnce(std::io::Error) -> LoadError {
    let what = what.to_owned();
    move |error| LoadError::new(format!("{what}: {error}"))
}

/// What can be measured.
const FIGURES: [&str; 5] = ["throughput", "memory", "memory-s3", "playback", "delivery"];

/// Measure the origin: uploads beside nginx, memory, playback sessions, cold segments
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to measure: throughput, memory, memory-s3, playback, delivery
    #[arg(long, value_delimiter = ',', default_values_t = FIGURES.map(str::to_owned))]
    figures: Vec<String>,
    /// The folder on the disk to measure; default the system's for temporary files
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Interleaved rounds of `throughput`
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// MiB of an upload of `throughput`
    #[arg(long, default_value_t = 512)]
    size: u64,
    /// Uploads at once of `memory`
    #[arg(long, default_value_t = 20)]
    parallel: usize,
    /// MiB of each upload of `memory`
    #[arg(long, default_value_t = 1024)]
    each: u64,
    /// The store of `memory` as `origin.toml` says it, such as `{ s3 = { … } }`; default a directory
    #[arg(long)]
    store: Option<String>,
    /// SeaweedFS's program, which `memory-s3` starts
    #[arg(long, default_value = ".cache/python/bin/weed")]
    weed: PathBuf,
    /// Seconds of `playback`
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Connections of `playback`
    #[arg(long, default_value_t = 128)]
    connections: usize,
    /// Segments of `delivery`
    #[arg(long, default_value_t = 400)]
    segments: usize,
    /// Write the figures as JSON here
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the table as Markdown here
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// A figure and its bound.
#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    /// What it must reach, or stay below.
    bound: f64,
    reached: bool,
    /// What lies behind it.
    details: serde_json::Value,
}

impl Figure {
    fn at_least(name: &'static str, value: f64, unit: &'static str, bound: f64, details: serde_json::Value) -> Self {
        Self { name, value, unit, bound, reached: value >= bound, details }
    }

    fn at_most(name: &'static str, value: f64, unit: &'static str, bound: f64, details: serde_json::Value) -> Self {
        Self { name, value, unit, bound, reached: value <= bound, details }
    }
}

fn markdown(figures: &[Figure]) -> String {
    let mut text = String::from("| figure | measured | bound | reached | behind it |\n|---|---|---|---|---|\n");
    for figure in figures {
        let reached = if figure.reached { "yes" } else { "no" };
        let (value, bound, unit) = (figure.value, figure.bound, figure.unit);
        text +=
            &format!("| {} | {value:.3} {unit} | {bound} {unit} | {reached} | `{}` |\n", figure.name, figure.details);
    }
    text
}

/// Runs the measurements.
pub async fn run(args: Args) -> ExitCode {
    let mut figures = Vec::new();
    for name in &args.figures {
        let figure = match name.as_str() {
            "throughput" => throughput::measure(&args).await,
            "memory" => memory::measure(&args).await,
            "memory-s3" => memory::measure_s3(&args).await,
            "playback" => playback::measure(&args).await,
            "delivery" => delivery::measure(&args).await,
            other => Err(LoadError::new(format!("no figure is called \"{other}\": {}", FIGURES.join(", ")))),
        };
        match figure {
            Ok(figure) => figures.push(figure),
            Err(error) => {
                eprintln!("lyceum-load uploads: {name}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    let text = markdown(&figures);
    println!("{text}");
    let written = args.json.iter().try_for_each(|path| write_json(path, &figures)).and_then(|()| {
        args.markdown
            .iter()
            .try_for_each(|path| std::fs::write(path, &text).map_err(|e| format!("{}: {e}", path.display())))
    });
    if let Err(error) = written {
        eprintln!("lyceum-load uploads: {error}");
        return ExitCode::FAILURE;
    }
    if figures.iter().all(|figure| figure.reached) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

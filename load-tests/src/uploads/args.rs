//! The command line of `lyceum-load uploads`.

use std::path::PathBuf;

/// What can be measured.
pub(super) const FIGURES: [&str; 5] = ["throughput", "memory", "memory-s3", "playback", "delivery"];

/// Measure the origin: uploads beside nginx, memory, playback sessions, cold segments
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to measure: throughput, memory, memory-s3, playback, delivery
    #[arg(long, value_delimiter = ',', default_values_t = FIGURES.map(str::to_owned))]
    pub(super) figures: Vec<String>,
    /// The folder on the disk to measure; default the system's for temporary files
    #[arg(long)]
    pub(super) folder: Option<PathBuf>,
    /// Interleaved rounds of `throughput`
    #[arg(long, default_value_t = 7)]
    pub(super) rounds: usize,
    /// MiB of an upload of `throughput`
    #[arg(long, default_value_t = 512)]
    pub(super) size: u64,
    /// Uploads at once of `memory`
    #[arg(long, default_value_t = 20)]
    pub(super) parallel: usize,
    /// MiB of each upload of `memory`
    #[arg(long, default_value_t = 1024)]
    pub(super) each: u64,
    /// The store of `memory` as `origin.toml` says it, such as `{ s3 = { … } }`; default a directory
    #[arg(long)]
    pub(super) store: Option<String>,
    /// SeaweedFS's program, which `memory-s3` starts
    #[arg(long, default_value = ".cache/python/bin/weed")]
    pub(super) weed: PathBuf,
    /// Seconds of `playback`
    #[arg(long, default_value_t = 10)]
    pub(super) seconds: u64,
    /// Connections of `playback`
    #[arg(long, default_value_t = 128)]
    pub(super) connections: usize,
    /// Segments of `delivery`
    #[arg(long, default_value_t = 400)]
    pub(super) segments: usize,
    /// Write the figures as JSON here
    #[arg(long)]
    pub(super) json: Option<PathBuf>,
    /// Write the table as Markdown here
    #[arg(long)]
    pub(super) markdown: Option<PathBuf>,
}

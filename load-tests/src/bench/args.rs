//! The command line of `lyceum-load bench`.

use std::path::PathBuf;

/// Compare the cost of hits: the edge, nginx and a floor of bare hyper
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Interleaved rounds; medians and spread are taken over them
    #[arg(long, default_value_t = 5)]
    pub(super) rounds: usize,
    /// Seconds of load for each cell of a round
    #[arg(long, default_value_t = 3)]
    pub(super) seconds: u64,
    /// Body sizes in bytes
    #[arg(long, value_delimiter = ',', default_values_t = [2 << 10, 64 << 10, 1 << 20, 4 << 20])]
    pub(super) sizes: Vec<usize>,
    /// Connections of the load
    #[arg(long, default_value_t = 16)]
    pub(super) connections: usize,
    /// Servers to compare: floor, edge, nginx, varnish
    #[arg(long, value_delimiter = ',', default_values_t = ["floor", "edge", "nginx", "varnish"].map(str::to_owned))]
    pub(super) servers: Vec<String>,
    /// What is measured: hits, latency (at 70 % of each server's own maximum), idle (memory of TLS connections), connections
    /// and objects (the cost of a hit with few of them and with many)
    #[arg(long, value_delimiter = ',', default_values_t = [BenchPart::Hits])]
    pub(super) parts: Vec<BenchPart>,
    /// Write the figures as JSON here
    #[arg(long)]
    pub(super) json: Option<PathBuf>,
    /// Write the table as Markdown here
    #[arg(long)]
    pub(super) markdown: Option<PathBuf>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum BenchPart {
    Hits,
    Latency,
    Idle,
    Connections,
    Objects,
}

impl std::fmt::Display for BenchPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        clap::ValueEnum::to_possible_value(self).map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

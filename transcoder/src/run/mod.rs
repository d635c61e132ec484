//! `lyceum-transcoder run`: converts one file to HLS and DASH on disk with the same plan and task processes as workers,
//! over all cores.

mod command;
mod error;
mod file_source;
mod out_dir;
mod progress;
mod queue;
mod sidecars;

pub(crate) use command::{Options, main};

//! `lyceum-transcoder run`: one file to HLS and DASH on disk, by the same plan and the same task processes that
//! workers use, over all cores.

mod command;
mod error;
mod file_source;
mod out_dir;
mod progress;
mod queue;
mod sidecars;

pub(crate) use command::{Options, main};

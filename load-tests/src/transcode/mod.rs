//! `lyceum-load transcode`: the transcoder against Debian's `ffmpeg` with the same ladder, preset and segments, in
//! alternating runs: CPU time, wall time, memory of the process tree; time to the first playable segment of an hour;
//! slides; two workers against one; and the cost of a killed worker.
//!
//! Compare ratios, as machines differ. The transcoder also measures loudness, limits peaks, and makes a poster and a
//! storyboard, which `ffmpeg` here does not; this work is included. Only its quality measurement (SSIM) is switched off.

mod command;
mod command_line;
mod cost;
mod error;
mod fleet;
mod report;
mod rival;

pub use command::{Args, run};

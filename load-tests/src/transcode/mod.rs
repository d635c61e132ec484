//! `lyceum-load transcode`: the transcoder beside Debian's `ffmpeg` doing the same ladder with the same preset and
//! segments, in one run, the two in turn: processor time, wall time, memory of the whole process tree; how soon an
//! hour's recording begins to play; slides; two workers against one; and what a killed worker costs.
//!
//! Ratios are what counts: machines differ, and so do their neighbours. The transcoder also measures loudness, limits
//! peaks, and makes a poster and a storyboard, which `ffmpeg` here does not: all is counted, but for the measurement of its
//! own quality, which is switched off.

mod command;
mod command_line;
mod cost;
mod error;
mod fleet;
mod report;
mod rival;

pub use command::{Args, run};

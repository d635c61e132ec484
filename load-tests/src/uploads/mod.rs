//! `lyceum-load uploads`: performance of the origin, each figure against a bound. The run fails if one is missed.
//!
//! - upload throughput against nginx's WebDAV `PUT` followed by a sync to the same disk, in interleaved rounds
//! - memory of many large concurrent uploads, into a directory and into a bucket
//! - durable playback sessions per second on one core
//! - CPU time of delivering an uncached segment, beyond that of reading its file

mod args;
mod bucket;
mod command;
mod delivery;
mod error;
mod figure;
mod memory;
mod nginx;
mod playback;
mod process;
mod setting;
mod throughput;

pub use args::Args;
pub use command::run;

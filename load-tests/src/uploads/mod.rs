//! `lyceum-load uploads`: what the origin owes its uploads, its playback sessions and its deliveries, measured.
//!
//! Each figure has its bound, and the run fails where one is missed:
//! upload throughput beside nginx's WebDAV `PUT` followed by a sync to the same disk, in interleaved rounds; the memory of
//! many large uploads at once, into a directory and into a bucket; durable playback sessions a second on one core; the CPU time of a cold segment beyond
//! that of reading its file.

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

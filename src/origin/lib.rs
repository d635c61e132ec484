//! The origin: what a course shop's backend and a creator's browser talk to, where workers lease tasks, and where
//! edges fetch. It composes catalogue, queue, uploads and store and speaks HTTP for them.
//!
//! Several origins over one database and one store behave as one: nothing that matters is kept in a process. This
//! crate never imports the edge; they meet over HTTP.
#![forbid(unsafe_code)]

mod access;
mod api;
mod attempts;
mod background;
mod bootstrap;
mod change;
mod config;
mod identities;
mod ingest;
mod keys;
mod local_workers;
mod metrics;
mod playback;
mod probes;
mod readiness;
mod service;
mod start_error;
mod state;
mod waiting;

pub use config::{Api, Config, Cors, Encryption, FIXED, Recordings, Secret, Streams, Tokens, WhenFull, Workers};
pub use keys::sealing::SealError;
pub use service::{Origin, Parts};
pub use start_error::StartError;

//! The stories: what Lyceum does, told with real programs, sockets, stores and players.
#![allow(unreachable_pub, reason = "one binary of many modules exports nothing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a story fails so"
)]
#![allow(clippy::await_holding_lock, reason = "a story that needs the machine for itself holds it from end to end")]

mod dashboards;
mod demo;
mod deployment;
mod documentation;
mod edge;
mod layering;
mod licences;
mod load;
mod origin;
mod playback;
mod server;
mod shipped_configs;
mod store;
mod support;
mod tools;
mod transcode;

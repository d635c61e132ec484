//! `lyceum-transcoder worker`: leases tasks from origins over HTTP, runs each in a process of its own, and uploads the
//! results. It needs only an API key: no database, no bucket, no state on disk.

mod backoff;
mod command;
mod config;
mod context;
mod lease;
mod metrics;
mod origin_client;
mod source;

pub(crate) use command::{Options, main};

//! `lyceum-load bench`: what a hit costs, beside nginx, Varnish and a floor of bare hyper and rustls.
//!
//! One run, interleaved rounds: each server is held to the first core and the load to another, and what counts is the
//! CPU time that the kernel accounts to the server, per request and per gigabyte. The edge has everything on: a
//! token in the path, cache, metrics, limits. nginx has `proxy_cache`, `sendfile` and `secure_link`. Varnish answers from
//! memory and checks no link: Debian's has no module for that, and it speaks no TLS.
//!
//! Beside the cost of hits (`--parts hits`) there are goals that one figure each decides: `latency`, `idle`,
//! `connections` and `objects`.

pub mod floor;

mod account;
mod args;
mod command;
mod error;
mod goals;
mod idle;
mod latency;
mod load;
mod report;
mod scale;
mod servers;

pub use args::Args;
pub use command::run;

//! `lyceum-load bench`: CPU cost of a cache hit, against nginx, Varnish and a floor of bare hyper and rustls.
//!
//! In interleaved rounds, each server is pinned to the first core and the load to another. The figure is the CPU time
//! that the kernel accounts to the server, per request and per gigabyte. The edge has everything enabled: a token in the
//! path, cache, metrics, limits. nginx has `proxy_cache`, `sendfile` and `secure_link`. Varnish answers from
//! memory without checking links, as Debian's build has no module for that, and without TLS.
//!
//! Besides the cost of hits (`--parts hits`) there are goals of a single figure: `latency`, `idle`, `connections` and
//! `objects`.

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

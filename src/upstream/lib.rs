//! Pools of origins: choosing one, sending it a request, and trying another when it fails.
//!
//! Owns the connections to origins, their health and the balance between them. It knows nothing of caches, tokens or
//! clients. An error says who failed and whether a retry may help; the pool decides from that alone.
//!
//! HTTP/1.1 and 2 (RFC 9112, RFC 9113): 2 by ALPN to `https` origins, or with `h2c = true` to `http` ones.
#![forbid(unsafe_code)]

mod balance;
mod client;
mod config;
mod error;
mod metrics;
mod origin;
mod pool;
mod request;
mod response;
mod retired;
mod server_certificate;
mod sigv4;

pub use balance::stable_hash;
pub use config::{Auth, Balance, Health, Origin as OriginConfig, Pool as PoolConfig};
pub use error::{BoxError, Failure, FetchError, PoolError};
pub use metrics::Metrics;
pub use pool::Pool;
pub use request::{RequestBody, UpstreamRequest};
pub use response::{ResponseBody, UpstreamResponse};
pub use retired::remove_retired;
pub use sigv4::S3;

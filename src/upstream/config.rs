//! `[[pool]]` of an edge's configuration.

use http::HeaderValue;
use serde::Deserialize;

use lyceum_core::units::{self, ByteSize, Span};

use crate::error::PoolError;
use crate::sigv4::S3;

/// A pool of origins that serve the same content.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The name by which routes refer to it.
    pub name: String,
    /// How requests are distributed.
    #[serde(default)]
    pub balance: Balance,
    /// Its origins.
    pub origins: Vec<Origin>,
    /// Origins that are used while all of `origins` are out.
    #[serde(default)]
    pub backup: Vec<Origin>,
    /// Active health checks; without them an origin is judged by its responses alone.
    #[serde(default)]
    pub health: Option<Health>,
    /// Credentials for the origins.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// HTTP/2 without TLS to `http` origins.
    #[serde(default)]
    pub h2c: bool,
    /// PEM file of certificate authorities for `https` origins, in addition to the public ones, or of the origins' own
    /// certificates.
    #[serde(default)]
    pub ca: Option<std::path::PathBuf>,
    /// Time to connect. 10ms to 1m; default 2s.
    #[serde(default = "defaults::connect", deserialize_with = "units::span::<_, 10, 60_000>")]
    pub connect: Span,
    /// Time from the connection to the response's header. 10ms to 10m; default 15s.
    #[serde(default = "defaults::first_byte", deserialize_with = "units::span::<_, 10, 600_000>")]
    pub first_byte: Span,
    /// How long a body may stand still. 10ms to 10m; default 15s.
    #[serde(default = "defaults::idle", deserialize_with = "units::span::<_, 10, 600_000>")]
    pub idle: Span,
    /// The fewest bytes of a body to be stored that must come within `idle` of waiting; a slower fetch fails. 0B to 1MiB;
    /// default 1KiB.
    #[serde(default = "defaults::least", deserialize_with = "units::size::<_, 0, 1_048_576>")]
    pub least: ByteSize,
    /// How far the origins' clocks may be behind this machine's: a `Date` within it does not make a response older than its
    /// `Age` says (RFC 9111, section 4.2.3). 0s to 1d; default 30s.
    #[serde(default = "defaults::clock_skew", deserialize_with = "units::span::<_, 0, 86_400_000>")]
    pub clock_skew: Span,
    /// Origins that are tried for one request. 1 to 10; default 3.
    #[serde(default = "defaults::attempts", deserialize_with = "units::number::<_, 1, 10>")]
    pub attempts: u64,
    /// Retries in percent of requests, in addition to a burst of 50. 0 to 100; default 20.
    #[serde(default = "defaults::retry_percent", deserialize_with = "units::number::<_, 0, 100>")]
    pub retry_percent: u64,
    /// Consecutive failures after which an origin is ejected for a while. 1 to 1,000; default 3.
    #[serde(default = "defaults::eject_after", deserialize_with = "units::number::<_, 1, 1_000>")]
    pub eject_after: u64,
    /// For how long at first; the time doubles with each ejection in a row, up to sixteen times this. 100ms to 10m;
    /// default 2s.
    #[serde(default = "defaults::eject_for", deserialize_with = "units::span::<_, 100, 600_000>")]
    pub eject_for: Span,
    /// Idle connections kept to each origin. 0 to 10,000; default 64.
    #[serde(default = "defaults::idle_connections", deserialize_with = "units::number::<_, 0, 10_000>")]
    pub idle_connections: u64,
}

/// One origin.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Scheme, host and port: `http://127.0.0.1:8080`.
    pub url: String,
    /// A prefix of every path: `/media` for the bucket of that name of a store with path-style addresses.
    #[serde(default)]
    pub prefix: String,
    /// Its weight relative to the others. 1 to 100; default 1.
    #[serde(default = "defaults::weight", deserialize_with = "units::number::<_, 1, 100>")]
    pub weight: u64,
}

impl Origin {
    /// Host and port, the metrics' label.
    pub fn label(&self) -> String {
        self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest).trim_end_matches('/').to_owned()
    }
}

/// How requests are distributed over a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// By the request's cache key, so that each origin's own cache holds its share; a busy origin's surplus goes to the next.
    #[default]
    ConsistentHash,
    /// The less loaded of two random origins, by requests in flight and latency.
    LeastLoaded,
    /// In turn.
    RoundRobin,
}

/// Active health checks.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// The path that is requested; a 2xx means healthy.
    pub path: String,
    /// How often. 50ms to 10m; default 2s.
    #[serde(default = "defaults::interval", deserialize_with = "units::span::<_, 50, 600_000>")]
    pub interval: Span,
    /// Time for a response. 10ms to 1m; default 1s.
    #[serde(default = "defaults::timeout", deserialize_with = "units::span::<_, 10, 60_000>")]
    pub timeout: Span,
    /// Failed checks in a row after which an origin is out. 1 to 100; default 2.
    #[serde(default = "defaults::fall", deserialize_with = "units::number::<_, 1, 100>")]
    pub fall: u64,
    /// Good checks in a row after which it is back. 1 to 100; default 1.
    #[serde(default = "defaults::rise", deserialize_with = "units::number::<_, 1, 100>")]
    pub rise: u64,
}

/// Credentials for the origins of a pool: one of the two.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Sent as `Authorization: Bearer`.
    #[serde(default)]
    pub bearer: Option<String>,
    /// The key of the buckets of an S3 store that the origins are.
    #[serde(default)]
    pub s3: Option<S3>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("bearer", &self.bearer.is_some()).field("s3", &self.s3).finish()
    }
}

impl Auth {
    pub(crate) fn bearer_header(&self) -> Option<Result<HeaderValue, PoolError>> {
        let value = match (&self.bearer, &self.s3) {
            (Some(bearer), None) => HeaderValue::try_from(format!("Bearer {bearer}")).map_err(|_| PoolError::Auth),
            (None, Some(_)) => return None,
            (Some(_), Some(_)) | (None, None) => Err(PoolError::Auth),
        };
        Some(value.map(|mut value| {
            value.set_sensitive(true);
            value
        }))
    }
}

mod defaults {
    use lyceum_core::units::{ByteSize, Span};

    pub(super) fn connect() -> Span {
        Span::secs(2)
    }
    pub(super) fn first_byte() -> Span {
        Span::secs(15)
    }
    pub(super) fn idle() -> Span {
        Span::secs(15)
    }
    pub(super) fn least() -> ByteSize {
        ByteSize::kib(1)
    }
    pub(super) fn clock_skew() -> Span {
        Span::secs(30)
    }
    pub(super) fn attempts() -> u64 {
        3
    }
    pub(super) fn retry_percent() -> u64 {
        20
    }
    pub(super) fn eject_after() -> u64 {
        3
    }
    pub(super) fn eject_for() -> Span {
        Span::secs(2)
    }
    pub(super) fn idle_connections() -> u64 {
        64
    }
    pub(super) fn weight() -> u64 {
        1
    }
    pub(super) fn interval() -> Span {
        Span::secs(2)
    }
    pub(super) fn timeout() -> Span {
        Span::secs(1)
    }
    pub(super) fn fall() -> u64 {
        2
    }
    pub(super) fn rise() -> u64 {
        1
    }
}

//! `[[pool]]` of an edge.

use http::HeaderValue;
use serde::Deserialize;

use super::{S3, UpstreamError};
use lyceum_core::units::{self, ByteSize, Span};

/// A pool of origins that serve the same.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// What routes call it.
    pub name: String,
    /// How requests are spread.
    #[serde(default)]
    pub balance: Balance,
    /// Who is asked.
    pub origins: Vec<Origin>,
    /// Who is asked when all of `origins` are out.
    #[serde(default)]
    pub backup: Vec<Origin>,
    /// Active checks; without them an origin is judged by its answers alone.
    #[serde(default)]
    pub health: Option<Health>,
    /// What the pool shows its origins.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// HTTP/2 without TLS to `http` origins.
    #[serde(default)]
    pub h2c: bool,
    /// PEM file of further certificate authorities for `https` origins.
    #[serde(default)]
    pub ca: Option<std::path::PathBuf>,
    /// Time to connect. 10ms to 1m; default 2s.
    #[serde(default = "defaults::connect", deserialize_with = "units::span::<_, 10, 60_000>")]
    pub connect: Span,
    /// Time from the connection to the header of the answer. 10ms to 10m; default 15s.
    #[serde(default = "defaults::first_byte", deserialize_with = "units::span::<_, 10, 600_000>")]
    pub first_byte: Span,
    /// How long a body may stand still. 10ms to 10m; default 15s.
    #[serde(default = "defaults::idle", deserialize_with = "units::span::<_, 10, 600_000>")]
    pub idle: Span,
    /// The fewest bytes of a body to be stored that must come in as much waiting as `idle`: a trickle below that is given
    /// up. 0B to 1MiB; default 1KiB.
    #[serde(default = "defaults::least", deserialize_with = "units::size::<_, 0, 1_048_576>")]
    pub least: ByteSize,
    /// How many origins are asked for one request. 1 to 10; default 3.
    #[serde(default = "defaults::attempts", deserialize_with = "units::number::<_, 1, 10>")]
    pub attempts: u64,
    /// Retries in percent of requests, beside a burst of 50. 0 to 100; default 20.
    #[serde(default = "defaults::retry_percent", deserialize_with = "units::number::<_, 0, 100>")]
    pub retry_percent: u64,
    /// Consecutive failures after which an origin is left alone for a while. 1 to 1,000; default 3.
    #[serde(default = "defaults::eject_after", deserialize_with = "units::number::<_, 1, 1_000>")]
    pub eject_after: u64,
    /// For how long, the first time; it doubles up to sixteen times that. 100ms to 10m; default 2s.
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
    /// What stands before each path there: `/media` for a bucket of that name whose store is asked by path.
    #[serde(default)]
    pub prefix: String,
    /// Its share beside the others. 1 to 100; default 1.
    #[serde(default = "defaults::weight", deserialize_with = "units::number::<_, 1, 100>")]
    pub weight: u64,
}

impl Origin {
    /// Host and port: a metric's label.
    pub fn label(&self) -> String {
        self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest).trim_end_matches('/').to_owned()
    }
}

/// How requests are spread over a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// By what is asked for, so that each origin's own cache holds its share; a busy origin's surplus goes to the next.
    #[default]
    ConsistentHash,
    /// The less loaded of two taken at random, by requests under way and time to answer.
    LeastLoaded,
    /// In turn.
    RoundRobin,
}

/// Active checks.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// What is asked for; a 2xx is health.
    pub path: String,
    /// How often. 50ms to 10m; default 2s.
    #[serde(default = "defaults::interval", deserialize_with = "units::span::<_, 50, 600_000>")]
    pub interval: Span,
    /// Time for an answer. 10ms to 1m; default 1s.
    #[serde(default = "defaults::timeout", deserialize_with = "units::span::<_, 10, 60_000>")]
    pub timeout: Span,
    /// Failed checks in a row after which an origin is out. 1 to 100; default 2.
    #[serde(default = "defaults::fall", deserialize_with = "units::number::<_, 1, 100>")]
    pub fall: u64,
    /// Good checks in a row after which it is back. 1 to 100; default 1.
    #[serde(default = "defaults::rise", deserialize_with = "units::number::<_, 1, 100>")]
    pub rise: u64,
}

/// What a pool shows its origins.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Sent as `Authorization: Bearer`.
    #[serde(default)]
    pub bearer: Option<String>,
    /// The origins are buckets of an S3 store, and this key opens them.
    #[serde(default)]
    pub s3: Option<S3>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("bearer", &self.bearer.is_some()).field("s3", &self.s3).finish()
    }
}

impl Auth {
    pub(super) fn value(&self) -> Option<Result<HeaderValue, UpstreamError>> {
        let value = match (&self.bearer, &self.s3) {
            (Some(bearer), None) => HeaderValue::try_from(format!("Bearer {bearer}")).map_err(|_| UpstreamError::Auth),
            (None, Some(_)) => return None,
            (Some(_), Some(_)) | (None, None) => Err(UpstreamError::Auth),
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

//! `worker.toml`.

use lyceum_admin as admin;
use lyceum_client as client;
use lyceum_core::config::Fault;
use lyceum_core::units::{self, ByteSize, Span};
use serde::Deserialize;

use crate::limits::Limits;

/// `worker.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The operators' listener; none by default.
    #[serde(default)]
    pub(super) admin: Option<admin::Config>,
    /// The origins' URLs, 1 to 64; tasks are leased from each in turn.
    #[serde(deserialize_with = "origins")]
    pub(super) origins: Vec<String>,
    /// An API key of role `worker`.
    pub(super) api_key: String,
    /// Concurrent tasks, 1 to 256; default one for each core. A task uses about one core.
    #[serde(default = "cores", deserialize_with = "units::number::<_, 1, 256>")]
    pub(super) slots: u64,
    /// On SIGTERM, running tasks may finish for this long before they are returned: 0ms to 1h, default 30s.
    #[serde(default = "drain_timeout", deserialize_with = "units::span::<_, 0, 3_600_000>")]
    pub(super) drain_timeout: Span,
    /// How long an origin may hold a request for a task open: 0ms to 25s, default 10s.
    #[serde(default = "lease_wait", deserialize_with = "units::span::<_, 0, 25_000>")]
    pub(super) lease_wait: Span,
    /// Cache for read parts of a task's source: 1MiB to 4GiB, default 16MiB.
    #[serde(default = "source_cache", deserialize_with = "units::size::<_, { 1 << 20 }, { 4 << 30 }>")]
    pub(super) source_cache: ByteSize,
    /// Resource limits of each task.
    #[serde(default)]
    pub(super) limits: Limits,
    /// Timeouts and limits of calls to origins.
    #[serde(default)]
    pub(super) client: client::Limits,
}

impl Config {
    /// Finds what no single key can tell; each fault with its key.
    pub(super) fn faults(&self) -> Vec<Fault> {
        self.admin.as_ref().and_then(|admin| admin.fault("admin")).into_iter().collect()
    }
}

fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(256)
}

fn drain_timeout() -> Span {
    Span::secs(30)
}

fn lease_wait() -> Span {
    Span::secs(10)
}

fn source_cache() -> ByteSize {
    ByteSize::mib(16)
}

fn origins<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    use serde::de::Error;
    let origins = Vec::<String>::deserialize(from)?;
    if !(1..=64).contains(&origins.len()) {
        return Err(D::Error::custom("a worker has 1 to 64 origins"));
    }
    for origin in &origins {
        let uri: Option<http::Uri> = origin.parse().ok();
        let good = uri.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some() && uri.query().is_none()
        });
        if !good {
            return Err(D::Error::custom(format!(
                "\"{origin}\" is no URL of an origin, such as \"http://127.0.0.1:8080\""
            )));
        }
    }
    Ok(origins.into_iter().map(|origin| origin.trim_end_matches('/').to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        lyceum_core::config::parse(text, std::path::Path::new("worker.toml"), &|_| None).map_err(|e| e.to_string())
    }

    #[test]
    fn a_configuration_needs_origins_and_a_key() {
        let config =
            read("origins = [\"http://127.0.0.1:8080/\"]\napi_key = \"k\"\nslots = 3\n[limits]\nmemory = \"2GiB\"")
                .unwrap();
        assert_eq!((config.origins[0].as_str(), config.slots), ("http://127.0.0.1:8080", 3));
        for (bad, says) in [
            ("api_key = \"k\"", "origins"),
            ("origins = []\napi_key = \"k\"", "1 to 64"),
            ("origins = [\"ftp://x\"]\napi_key = \"k\"", "no URL of an origin"),
            ("origins = [\"http://x\"]\napi_key = \"k\"\nslots = 0", "slots"),
            ("origins = [\"http://x\"]\napi_key = \"k\"\n[limits]\nmemory = \"1MiB\"", "limits.memory"),
            ("origins = [\"http://x\"]\napi_key = \"k\"\ncolour = 1", "colour"),
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}

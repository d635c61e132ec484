//! `database` and `[database_pool]`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use sqlx::postgres::PgConnectOptions;

use lyceum_core::units::{self, Span};

/// Which database: `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/NAME`.
#[derive(Clone, PartialEq, Eq)]
pub enum Url {
    /// A file, made when it is missing.
    Sqlite(PathBuf),
    /// A server, by libpq's URL.
    Postgres(String),
}

impl FromStr for Url {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.starts_with(':') {
                return Err("a SQLite database needs a file: \"sqlite:data/lyceum.db\"".to_owned());
            }
            return Ok(Self::Sqlite(path.into()));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            PgConnectOptions::from_str(text).map_err(|error| format!("this is no PostgreSQL URL: {error}"))?;
            return Ok(Self::Postgres(text.to_owned()));
        }
        Err("write \"sqlite:PATH\" or \"postgres://USER:PASSWORD@HOST/NAME\"".to_owned())
    }
}

/// Never shows a password.
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(_) => f.write_str("postgres://…"),
        }
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// `[database_pool]`: connections and waits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolConfig {
    /// Connections at most (SQLite: readers; one more writes). From 1 to 200, default 8.
    #[serde(deserialize_with = "units::number::<_, 1, 200>")]
    pub connections: u64,
    /// How long a request waits for a connection or for SQLite's write lock before it is answered 503.
    /// From 100ms to 1m, default 10s.
    #[serde(deserialize_with = "units::span::<_, 100, 60_000>")]
    pub wait: Span,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { connections: 8, wait: Span::secs(10) }
    }
}

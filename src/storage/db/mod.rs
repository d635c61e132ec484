//! The database: one enum of two pools (SQLite or PostgreSQL), the schema, and the transactions that the
//! catalogue, the queue and uploads work inside.
//!
//! Both engines are spoken to in one SQL: `$1` parameters, types that both know, upserts. Where they differ
//! (row locks), [`Tx::lock`] is the one place that says so. This module knows no table but its own list of
//! migrations, and nothing of HTTP.
//!
//! SQLite runs in WAL mode with `synchronous=FULL`: a transaction that was committed is on the disk. Writes take
//! the lock at once (`BEGIN IMMEDIATE`), so that a read that turns into a write can't fail half-way, and several
//! processes may share the file.

mod group;
mod schema;
mod tx;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, SqlitePool};

pub use schema::next_number;
pub use tx::{Column, Row, Tx, Value};

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

/// What went wrong with the database; its own words are for the log.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// It is away, locked or overloaded: the same may work in a moment.
    #[error("the database can't be had at the moment: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// A row with this key is there already.
    #[error("a row with this key exists: {0}")]
    Duplicate(#[source] sqlx::Error),
    /// A statement or a value is wrong: a fault of ours, or of whoever wrote into the database.
    #[error("the database refused: {0}")]
    Refused(#[source] sqlx::Error),
    /// A stored value can't be read.
    #[error("a stored value can't be read: {0}")]
    Corrupt(String),
    /// The schema was made by a newer program.
    #[error(
        "the database was made by a newer Lyceum (its schema is {found}, this program knows {known}): update this program"
    )]
    TooNew {
        /// The schema's number in the database.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
}

impl DbError {
    /// Whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(inner) if inner.is_unique_violation() => Self::Duplicate(error),
            sqlx::Error::Database(inner) => {
                let code = inner.code().unwrap_or_default();
                // SQLite: busy, locked and their extensions, I/O error, full disk. PostgreSQL: connection and
                // resource classes, an administrator's shutdown, serialization failures and deadlocks.
                let sqlite = code.parse::<i64>().is_ok_and(|n| matches!(n & 0xff, 5 | 6 | 10 | 13)) && code.len() < 5;
                let postgres = ["08", "53", "57", "40"].iter().any(|class| code.len() == 5 && code.starts_with(class));
                if sqlite || postgres { Self::Unavailable(error) } else { Self::Refused(error) }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Tls(_) => Self::Unavailable(error),
            sqlx::Error::Protocol(text) if text.contains("eof") || text.contains("closed") => Self::Unavailable(error),
            _ => Self::Refused(error),
        }
    }
}

/// A handle to the database; clones share the pools.
#[derive(Clone)]
pub struct Db {
    pools: Pools,
}

#[derive(Clone)]
enum Pools {
    Sqlite { readers: SqlitePool, writer: Arc<group::Writer> },
    Postgres(PgPool),
}

impl Db {
    /// Connects, and brings the schema up to date. Safe when several processes do so at the same moment.
    pub async fn open(url: &Url, config: &PoolConfig) -> Result<Self, DbError> {
        let connections = u32::try_from(config.connections).unwrap_or(u32::MAX);
        let pools = match url {
            Url::Sqlite(path) => {
                if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    std::fs::create_dir_all(parent).map_err(|e| DbError::Unavailable(sqlx::Error::Io(e)))?;
                }
                open_sqlite(path, connections, config.wait.get()).await?
            }
            Url::Postgres(text) => {
                let options = PgConnectOptions::from_str(text)?.application_name("lyceum");
                Pools::Postgres(
                    PgPoolOptions::new()
                        .max_connections(connections)
                        .acquire_timeout(config.wait.get())
                        .connect_with(options)
                        .await?,
                )
            }
        };
        let db = Self { pools };
        schema::migrate(&db).await?;
        Ok(db)
    }

    /// A transaction that writes. Dropped without [`Tx::commit`], it leaves nothing behind.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        Ok(match &self.pools {
            Pools::Sqlite { writer, .. } => Tx::group(writer.begin().await?),
            Pools::Postgres(pool) => begin_whole(pool, "BEGIN").await?,
        })
    }

    /// A transaction that only reads, from one state of the database; it waits for no writer.
    pub async fn read(&self) -> Result<Tx, DbError> {
        Ok(match &self.pools {
            Pools::Sqlite { readers, .. } => Tx::sqlite(readers.begin_with("BEGIN").await?),
            Pools::Postgres(pool) => begin_whole(pool, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?,
        })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), DbError> {
        self.read().await?.one("SELECT 1 AS one", Vec::new()).await.map(drop)
    }

    /// Closes the connections after what is under way.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { readers, writer } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }
}

/// A transaction of PostgreSQL's, begun in a task of its own: one that a caller gives up half-way would stay open on its
/// connection when that goes back to the pool, and the next one would write into what only reads.
async fn begin_whole(pool: &PgPool, statement: &'static str) -> Result<Tx, DbError> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(statement).await }).await;
    let begun = begun.map_err(|error| DbError::Unavailable(sqlx::Error::Io(std::io::Error::other(error))))?;
    Ok(Tx::postgres(begun?))
}

async fn open_sqlite(path: &std::path::Path, connections: u32, wait: Duration) -> Result<Pools, DbError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(wait)
        .foreign_keys(true);
    // The switch to WAL of a file that is being made by two processes answers "locked" without waiting.
    let mut tries = 0;
    let writer = loop {
        match group::Writer::open(options.clone(), wait).await {
            Err(DbError::Unavailable(error)) if tries < 50 && !matches!(error, sqlx::Error::Io(_)) => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            other => break other?,
        }
    };
    let readers = SqlitePoolOptions::new()
        .max_connections(connections)
        .test_before_acquire(false)
        .acquire_timeout(wait)
        .connect_with(options.clone().pragma("query_only", "ON"))
        .await?;
    Ok(Pools::Sqlite { readers, writer: Arc::new(writer) })
}

#[cfg(test)]
mod tests;

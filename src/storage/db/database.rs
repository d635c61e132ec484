//! The pools of either engine, and how transactions begin.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, SqlitePool};

use crate::db::config::{PoolConfig, Url};
use crate::db::error::DbError;
use crate::db::group_commit::Writer;
use crate::db::schema;
use crate::db::sessions::Sessions;
use crate::db::tx::Tx;
use crate::db_args;
use crate::private;

/// A handle to the database; clones share the pools.
#[derive(Clone)]
pub struct Db {
    pools: Pools,
}

#[derive(Clone)]
enum Pools {
    Sqlite { readers: SqlitePool, writer: Arc<Writer> },
    Postgres(PgPool, Sessions),
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
                let sessions = Sessions::default();
                let known = sessions.clone();
                let pool = PgPoolOptions::new()
                    .max_connections(connections)
                    .acquire_timeout(config.wait.get())
                    .before_acquire(move |_, session| {
                        let usable = known.may_use(session.age);
                        Box::pin(async move { Ok(usable) })
                    })
                    .connect_with(options)
                    .await?;
                Pools::Postgres(pool, sessions)
            }
        };
        let db = Self { pools };
        schema::migrate(db.begin().await?).await?;
        Ok(db)
    }

    /// A transaction that writes. Dropped without [`Tx::commit`], it leaves nothing behind.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        Ok(match &self.pools {
            Pools::Sqlite { writer, .. } => Tx::group(writer.begin().await?),
            Pools::Postgres(pool, sessions) => {
                let mut tx = begin_uncancelled(pool, sessions, "BEGIN").await?;
                if sessions.are_suspect() && tx.is_read_only().await? {
                    sessions.give_up();
                    drop(tx);
                    tx = begin_uncancelled(pool, sessions, "BEGIN").await?;
                }
                tx
            }
        })
    }

    /// A transaction that only reads, from one state of the database; it waits for no writer.
    pub async fn read(&self) -> Result<Tx, DbError> {
        Ok(match &self.pools {
            Pools::Sqlite { readers, .. } => Tx::sqlite(readers.begin_with("BEGIN").await?),
            Pools::Postgres(pool, sessions) => {
                begin_uncancelled(pool, sessions, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?
            }
        })
    }

    /// Whether the database takes a write: notes `now`, in milliseconds since the Unix epoch.
    pub async fn probe(&self, now: i64) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let sql = "INSERT INTO counters (name, value) VALUES ('probe', $1)
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        tx.execute(sql, db_args![now]).await?;
        tx.commit().await
    }

    /// Closes the connections once their transactions have ended.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { readers, writer } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres(pool, _) => pool.close().await,
        }
    }
}

/// Begins a PostgreSQL transaction in a task of its own. If a caller were cancelled while it begins, it would stay open on
/// a connection that goes back to the pool, and the next user would write inside a read-only transaction.
async fn begin_uncancelled(pool: &PgPool, sessions: &Sessions, statement: &'static str) -> Result<Tx, DbError> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(statement).await }).await;
    let begun = begun.map_err(|error| DbError::Unavailable(sqlx::Error::Io(std::io::Error::other(error))))?;
    Ok(Tx::postgres(begun?, sessions.clone()))
}

async fn open_sqlite(path: &std::path::Path, connections: u32, wait: Duration) -> Result<Pools, DbError> {
    // SQLite gives the files beside it, `-wal` and `-shm`, the mode of this one.
    private::file(path).map_err(|error| DbError::Unavailable(sqlx::Error::Io(error)))?;
    for suffix in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        private::close(std::path::Path::new(&beside));
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(wait)
        .foreign_keys(true);
    // The switch of a new file to WAL by two processes at once fails with "locked" without waiting.
    let mut tries = 0;
    let writer = loop {
        match Writer::open(options.clone(), wait).await {
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

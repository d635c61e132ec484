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

mod args;
pub(crate) mod config;
pub(crate) mod database;
pub(crate) mod error;
pub(crate) mod group_commit;
pub(crate) mod schema;
pub(crate) mod series;
pub(crate) mod sessions;
pub(crate) mod tx;

pub use config::{PoolConfig, Url};
pub use database::Db;
pub use error::DbError;
pub use series::next_number;
pub use tx::{Column, Row, Tx, Value};

#[cfg(test)]
mod tests;

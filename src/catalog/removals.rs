//! Prefixes of the object store that were removed and are looked at once more.

use lyceum_storage::db::{DbError, Tx};
use lyceum_storage::db_args;

/// Notes a prefix that is to be looked at again at `due`, in milliseconds since the Unix epoch.
pub async fn add_removal(tx: &mut Tx, prefix: &str, due: i64) -> Result<(), DbError> {
    let sql =
        "INSERT INTO removals (prefix, due) VALUES ($1, $2) ON CONFLICT (prefix) DO UPDATE SET due = excluded.due";
    tx.execute(sql, db_args![prefix, due]).await.map(drop)
}

/// Prefixes that are due at `now`, `limit` at most.
pub async fn removals_due(tx: &mut Tx, now: i64, limit: i64) -> Result<Vec<String>, DbError> {
    let sql = "SELECT prefix FROM removals WHERE due <= $1 ORDER BY due LIMIT $2";
    tx.all(sql, db_args![now, limit]).await?.iter().map(|row| row.get("prefix")).collect()
}

/// Forgets a prefix.
pub async fn forget_removal(tx: &mut Tx, prefix: &str) -> Result<(), DbError> {
    tx.execute("DELETE FROM removals WHERE prefix = $1", db_args![prefix]).await.map(drop)
}

//! The audit log: who changed what. One row for each change; rows are never changed.

use lyceum_storage::db::{DbError, Tx, next_number};
use lyceum_storage::db_args;

use crate::page::Page;

/// A row of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Rises by one with each row.
    pub position: i64,
    /// When, in milliseconds since the Unix epoch.
    pub at: i64,
    /// The id of the identity that did it.
    pub actor: String,
    /// What was done, such as `course.create`.
    pub action: String,
    /// The id of what was changed.
    pub subject: String,
    /// More about it, such as a title.
    pub detail: String,
}

/// Adds a row, in the transaction that makes the change.
pub async fn add_audit_entry(
    tx: &mut Tx,
    at: i64,
    actor: &str,
    action: &'static str,
    subject: &str,
    detail: &str,
) -> Result<(), DbError> {
    let position = next_number(tx, "audit").await?;
    tx.execute(
        "INSERT INTO audit (position, at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)",
        db_args![position, at, actor, action, subject, detail],
    )
    .await
    .map(drop)
}

/// Rows older than the position that the page names, the newest first.
pub async fn audit_entries(tx: &mut Tx, page: &Page) -> Result<Vec<AuditEntry>, DbError> {
    let rows = tx
        .all(
            "SELECT position, at, actor, action, subject, detail FROM audit WHERE position < $1
             ORDER BY position DESC LIMIT $2",
            db_args![if page.after.0 > 0 { page.after.0 } else { i64::MAX }, page.limit],
        )
        .await?;
    let entry = |row: &lyceum_storage::db::Row| {
        Ok(AuditEntry {
            position: row.get("position")?,
            at: row.get("at")?,
            actor: row.get("actor")?,
            action: row.get("action")?,
            subject: row.get("subject")?,
            detail: row.get("detail")?,
        })
    };
    rows.iter().map(entry).collect()
}

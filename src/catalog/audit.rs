//! Who did what: one row a change, never changed.

use super::Page;
use lyceum_storage::db::{DbError, Tx, next_number};
use lyceum_storage::db_args;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// Rises by one with each.
    pub position: i64,
    /// When.
    pub at: i64,
    /// Whose API key.
    pub actor: String,
    /// What was done, such as `course.create`.
    pub action: String,
    /// To what.
    pub subject: String,
    /// What else there is to say.
    pub detail: String,
}

/// Notes a change, in the transaction that makes it.
pub async fn note(
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

/// Changes behind the one whose position the page names, the newest first.
pub async fn deeds(tx: &mut Tx, page: &Page) -> Result<Vec<Deed>, DbError> {
    let rows = tx
        .all(
            "SELECT position, at, actor, action, subject, detail FROM audit WHERE position < $1
             ORDER BY position DESC LIMIT $2",
            db_args![if page.after.0 > 0 { page.after.0 } else { i64::MAX }, page.limit],
        )
        .await?;
    let deed = |row: &lyceum_storage::db::Row| {
        Ok(Deed {
            position: row.get("position")?,
            at: row.get("at")?,
            actor: row.get("actor")?,
            action: row.get("action")?,
            subject: row.get("subject")?,
            detail: row.get("detail")?,
        })
    };
    rows.iter().map(deed).collect()
}

//! Entitlements: which viewer may watch which course, and until when.

use lyceum_core::ids::Id;
use lyceum_storage::db::{DbError, Tx};
use lyceum_storage::db_args;

use crate::page::Page;
use crate::sessions::revoke_sessions_beyond;

/// A viewer's right to watch a course.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entitlement {
    /// When it ends; without one, never.
    pub expires: Option<i64>,
}

impl Entitlement {
    /// When it ends, [`i64::MAX`] for never.
    pub fn until(&self) -> i64 {
        self.expires.unwrap_or(i64::MAX)
    }
}

/// Lets a viewer watch a course, until `expires` where given. Sessions whose tokens would outlive that are revoked: no
/// valid token ends later than the entitlement that it stands on. Answers how many.
pub async fn entitle(tx: &mut Tx, viewer: &str, course: &Id, expires: Option<i64>, now: i64) -> Result<usize, DbError> {
    tx.execute(
        "INSERT INTO entitlements (viewer, course, expires) VALUES ($1, $2, $3)
         ON CONFLICT (viewer, course) DO UPDATE SET expires = excluded.expires",
        db_args![viewer, course, expires],
    )
    .await?;
    match expires {
        Some(end) => revoke_sessions_beyond(tx, viewer, course, end, now).await,
        None => Ok(0),
    }
}

/// Withdraws an entitlement.
pub async fn withdraw_entitlement(tx: &mut Tx, viewer: &str, course: &Id) -> Result<(), DbError> {
    tx.execute("DELETE FROM entitlements WHERE viewer = $1 AND course = $2", db_args![viewer, course]).await.map(drop)
}

/// The entitlement in force at `now`, if there is one. Whoever withdraws or shortens it meanwhile waits for the end of
/// this transaction, and so sees the session that is begun in it.
pub async fn entitlement(tx: &mut Tx, viewer: &str, course: &Id, now: i64) -> Result<Option<Entitlement>, DbError> {
    let sql = tx.choose(
        "SELECT expires FROM entitlements WHERE viewer = $1 AND course = $2",
        "SELECT expires FROM entitlements WHERE viewer = $1 AND course = $2 FOR SHARE",
    );
    let row = tx.one(sql, db_args![viewer, course]).await?;
    let expires = row.map(|row| row.get::<Option<i64>>("expires")).transpose()?;
    Ok(expires.filter(|expires| expires.is_none_or(|at| at > now)).map(|expires| Entitlement { expires }))
}

/// The courses that a viewer may watch now.
pub async fn courses_of_viewer(tx: &mut Tx, viewer: &str, now: i64, page: &Page) -> Result<Vec<Id>, DbError> {
    let rows = tx
        .all(
            "SELECT course FROM entitlements WHERE viewer = $1 AND (expires IS NULL OR expires > $2) AND course > $3
             ORDER BY course LIMIT $4",
            db_args![viewer, now, &page.after.1, page.limit],
        )
        .await?;
    rows.iter().map(|row| row.parse("course")).collect()
}

//! The feed of events that edges follow: sessions revoked and lessons to purge. Positions are committed in their order,
//! so whoever has seen one has seen all before it.

use lyceum_core::ids::Id;
use lyceum_storage::db::{DbError, Tx, next_number};
use lyceum_storage::db_args;

/// What edges allow a token beyond its expiry, and a second for rounding.
const TOKEN_LEEWAY_S: i64 = 31;
/// The same in milliseconds: for so long after its expiry a token may still be accepted.
pub(crate) const TOKEN_LEEWAY_MS: i64 = TOKEN_LEEWAY_S * 1000;

/// An event of the feed: its position and its JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Rises by one with each event.
    pub position: i64,
    /// As edges read it.
    pub json: String,
}

/// Adds the revocation of a session whose token ends at `expires`.
pub(crate) async fn add_revocation(tx: &mut Tx, session: &Id, expires: i64) -> Result<(), DbError> {
    // In seconds, as in the token.
    let until = expires.div_euclid(1000) + TOKEN_LEEWAY_S;
    let json = serde_json::json!({ "session": session.as_str(), "until": until }).to_string();
    add_event(tx, &json, expires + TOKEN_LEEWAY_MS).await
}

/// Adds an event to the feed, kept until `until`.
pub async fn add_event(tx: &mut Tx, json: &str, until: i64) -> Result<(), DbError> {
    let position = next_number(tx, "revocations").await?;
    tx.execute("INSERT INTO revocations (position, event, until) VALUES ($1, $2, $3)", db_args![position, json, until])
        .await
        .map(drop)
}

/// Events after the position `after` whose time is not over.
pub async fn events_after(tx: &mut Tx, after: i64, now: i64, limit: i64) -> Result<Vec<Event>, DbError> {
    let rows = tx
        .all(
            "SELECT position, event FROM revocations WHERE position > $1 AND until > $2 ORDER BY position LIMIT $3",
            db_args![after, now, limit],
        )
        .await?;
    rows.iter().map(|row| Ok(Event { position: row.get("position")?, json: row.get("event")? })).collect()
}

/// The feed's newest position, 0 when it is empty.
pub async fn newest_event(tx: &mut Tx) -> Result<i64, DbError> {
    let row = tx.one("SELECT value FROM counters WHERE name = $1", db_args!["revocations"]).await?;
    Ok(row.map(|row| row.get("value")).transpose()?.unwrap_or(0))
}

/// Forgets events whose time is over.
pub async fn drop_expired_events(tx: &mut Tx, now: i64) -> Result<(), DbError> {
    tx.execute("DELETE FROM revocations WHERE until < $1", db_args![now]).await.map(drop)
}

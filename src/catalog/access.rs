//! Who may watch what: entitlements, the sessions that playback made of them, and the feed of events that edges
//! follow. The feed's positions are committed in their order, so who has seen one has seen all below it.

use super::Page;
use lyceum_core::ids::Id;
use lyceum_storage::db::{DbError, Tx, next_number};
use lyceum_storage::db_args;

/// A playback session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id: the token's `jti`.
    pub id: Id,
    /// Whose it is.
    pub viewer: String,
    /// The lesson.
    pub lesson: Id,
    /// When its token ends.
    pub expires: i64,
    /// When it was revoked.
    pub revoked: Option<i64>,
}

/// What makes a session.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its id.
    pub id: Id,
    /// Whose it is.
    pub viewer: String,
    /// The course that it was entitled by.
    pub course: Id,
    /// The lesson.
    pub lesson: Id,
    /// When its token ends.
    pub expires: i64,
}

/// An event of the feed: its position and its JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Rises by one with each event.
    pub position: i64,
    /// As edges read it.
    pub json: String,
}

/// Lets a viewer watch a course, until `expires` where given.
pub async fn entitle(tx: &mut Tx, viewer: &str, course: &Id, expires: Option<i64>) -> Result<(), DbError> {
    tx.execute(
        "INSERT INTO entitlements (viewer, course, expires) VALUES ($1, $2, $3)
         ON CONFLICT (viewer, course) DO UPDATE SET expires = excluded.expires",
        db_args![viewer, course, expires],
    )
    .await
    .map(drop)
}

/// Takes an entitlement away.
pub async fn withdraw(tx: &mut Tx, viewer: &str, course: &Id) -> Result<(), DbError> {
    tx.execute("DELETE FROM entitlements WHERE viewer = $1 AND course = $2", db_args![viewer, course]).await.map(drop)
}

/// When the entitlement ends (`Some(None)`: never), or `None` when there is none now.
pub async fn is_entitled(tx: &mut Tx, viewer: &str, course: &Id, now: i64) -> Result<Option<Option<i64>>, DbError> {
    let row =
        tx.one("SELECT expires FROM entitlements WHERE viewer = $1 AND course = $2", db_args![viewer, course]).await?;
    let expires = row.map(|row| row.get::<Option<i64>>("expires")).transpose()?;
    Ok(expires.filter(|expires| expires.is_none_or(|at| at > now)))
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

/// Keeps a session.
pub async fn start_session(tx: &mut Tx, new: &NewSession, now: i64) -> Result<(), DbError> {
    tx.execute(
        "INSERT INTO sessions (id, viewer, course, lesson, created, expires) VALUES ($1, $2, $3, $4, $5, $6)",
        db_args![&new.id, &new.viewer, &new.course, &new.lesson, now, new.expires],
    )
    .await
    .map(drop)
}

/// Lets a session that runs live until `to.expires`, with its id, so that renewing takes no second stream. False when
/// there is none for that viewer and lesson, or it is over.
pub async fn renew_session(tx: &mut Tx, to: &NewSession, now: i64) -> Result<bool, DbError> {
    let changed = tx
        .execute(
            "UPDATE sessions SET expires = $4
             WHERE id = $1 AND viewer = $2 AND lesson = $3 AND revoked IS NULL AND expires > $5",
            db_args![&to.id, &to.viewer, &to.lesson, to.expires, now],
        )
        .await?;
    Ok(changed > 0)
}

/// One session.
pub async fn session(tx: &mut Tx, id: &Id) -> Result<Option<Session>, DbError> {
    let row = tx.one("SELECT id, viewer, lesson, expires, revoked FROM sessions WHERE id = $1", db_args![id]).await?;
    row.map(|row| {
        Ok(Session {
            id: row.parse("id")?,
            viewer: row.get("viewer")?,
            lesson: row.parse("lesson")?,
            expires: row.get("expires")?,
            revoked: row.get("revoked")?,
        })
    })
    .transpose()
}

/// Revokes a session and tells the edges; answers false when there is none. A second time changes nothing.
pub async fn revoke_session(tx: &mut Tx, id: &Id, now: i64) -> Result<bool, DbError> {
    let Some(session) = session(tx, id).await? else { return Ok(false) };
    if session.revoked.is_none() {
        let changed =
            tx.execute("UPDATE sessions SET revoked = $2 WHERE id = $1 AND revoked IS NULL", db_args![id, now]).await?;
        if changed > 0 && session.expires > now {
            add_revocation(tx, &session.id, session.expires).await?;
        }
    }
    Ok(true)
}

/// Revokes what a viewer has running of a course. Answers how many.
pub async fn revoke_viewer_sessions(tx: &mut Tx, viewer: &str, course: &Id, now: i64) -> Result<usize, DbError> {
    let rows = tx
        .all(
            "UPDATE sessions SET revoked = $3 WHERE viewer = $1 AND course = $2 AND revoked IS NULL AND expires > $3
             RETURNING id, expires",
            db_args![viewer, course, now],
        )
        .await?;
    revoke_rows(tx, rows).await
}

/// Revokes all that runs of a lesson. Answers how many.
pub async fn revoke_lesson_sessions(tx: &mut Tx, lesson: &Id, now: i64) -> Result<usize, DbError> {
    let rows = tx
        .all(
            "UPDATE sessions SET revoked = $2 WHERE lesson = $1 AND revoked IS NULL AND expires > $2
             RETURNING id, expires",
            db_args![lesson, now],
        )
        .await?;
    revoke_rows(tx, rows).await
}

async fn revoke_rows(tx: &mut Tx, rows: Vec<lyceum_storage::db::Row>) -> Result<usize, DbError> {
    for row in &rows {
        let id: Id = row.parse("id")?;
        add_revocation(tx, &id, row.get("expires")?).await?;
    }
    Ok(rows.len())
}

async fn add_revocation(tx: &mut Tx, session: &Id, expires: i64) -> Result<(), DbError> {
    // Seconds, as in the token; rounded up, and with the skew that edges allow a token.
    let until = expires.div_euclid(1000) + 31;
    let json = serde_json::json!({ "session": session.as_str(), "until": until }).to_string();
    add_event(tx, &json, expires + 31_000).await
}

/// Adds an event to the feed, kept until `until`.
pub async fn add_event(tx: &mut Tx, json: &str, until: i64) -> Result<(), DbError> {
    let position = next_number(tx, "revocations").await?;
    tx.execute("INSERT INTO revocations (position, event, until) VALUES ($1, $2, $3)", db_args![position, json, until])
        .await
        .map(drop)
}

/// Events behind `after` that still matter.
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

/// Forgets sessions and events whose time is over.
pub async fn drop_expired_sessions(tx: &mut Tx, now: i64) -> Result<(), DbError> {
    tx.execute("DELETE FROM sessions WHERE expires < $1", db_args![now - 3_600_000]).await?;
    tx.execute("DELETE FROM revocations WHERE until < $1", db_args![now]).await.map(drop)
}

/// How a stream is leased.
#[derive(Clone, Copy, Debug)]
pub struct StreamLease {
    /// How long the lease lasts, in milliseconds.
    pub span: i64,
    /// Streams that a viewer may hold at once.
    pub limit: u64,
    /// Whether the oldest stream ends where the limit is reached.
    pub end_oldest: bool,
}

/// What became of the wish for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamOutcome {
    /// It is held; `ended` says whether an older one had to go.
    Held {
        /// Whether an older stream was revoked.
        ended: bool,
    },
    /// The viewer holds as many as allowed.
    Full,
    /// The session is revoked or over.
    Over,
    /// The session is not of this catalogue: another issuer's, or an operator's own token.
    Unknown,
}

/// Holds or renews a session's stream.
pub async fn lease_stream(tx: &mut Tx, id: &Id, lease: &StreamLease, now: i64) -> Result<StreamOutcome, DbError> {
    let Some(session) = session(tx, id).await? else { return Ok(StreamOutcome::Unknown) };
    tx.lock("streams of", &session.viewer).await?;
    if session.revoked.is_some() || session.expires <= now {
        return Ok(StreamOutcome::Over);
    }
    let rows = tx
        .all(
            "SELECT id FROM sessions WHERE viewer = $1 AND id <> $2 AND stream_until > $3 AND stream_until <= $4
             AND revoked IS NULL ORDER BY created, id",
            // What lies further ahead than any lease is from before the clock was set back.
            db_args![&session.viewer, id, now, now.saturating_add(lease.span.saturating_mul(2))],
        )
        .await?;
    let over = (rows.len() as u64 + 1).saturating_sub(lease.limit);
    if over > 0 && !lease.end_oldest {
        return Ok(StreamOutcome::Full);
    }
    for row in rows.iter().take(usize::try_from(over).unwrap_or(usize::MAX)) {
        revoke_session(tx, &row.parse("id")?, now).await?;
    }
    tx.execute("UPDATE sessions SET stream_until = $2 WHERE id = $1", db_args![id, now.saturating_add(lease.span)])
        .await?;
    Ok(StreamOutcome::Held { ended: over > 0 })
}

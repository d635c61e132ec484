//! Playback sessions, their revocation, and the leases that limit how many streams a viewer watches at once.

use lyceum_core::ids::Id;
use lyceum_storage::db::{DbError, Row, Tx};
use lyceum_storage::db_args;

use crate::revocation_feed::{TOKEN_LEEWAY_MS, add_revocation};

/// How long sessions are kept after their end, in milliseconds.
const EXPIRED_KEPT_MS: i64 = 3_600_000;

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
    /// When its token ends: no later than the entitlement.
    pub expires: i64,
    /// When the entitlement ends that it stands on, [`i64::MAX`] for never; nothing for a preview or for a creator who
    /// watches what is theirs.
    pub entitled_until: Option<i64>,
}

/// Keeps a session.
pub async fn start_session(tx: &mut Tx, new: &NewSession, now: i64) -> Result<(), DbError> {
    tx.execute(
        "INSERT INTO sessions (id, viewer, course, lesson, created, expires, entitled_until)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        db_args![&new.id, &new.viewer, &new.course, &new.lesson, now, new.expires, new.entitled_until],
    )
    .await
    .map(drop)
}

/// Extends a running session to `to.expires` under the same id, so that renewing takes no second stream. Answers false
/// when there is none for that viewer and lesson, or it is over.
pub async fn renew_session(tx: &mut Tx, to: &NewSession, now: i64) -> Result<bool, DbError> {
    let changed = tx
        .execute(
            "UPDATE sessions SET expires = $4, entitled_until = $6
             WHERE id = $1 AND viewer = $2 AND lesson = $3 AND revoked IS NULL AND expires > $5",
            db_args![&to.id, &to.viewer, &to.lesson, to.expires, now, to.entitled_until],
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

/// Revokes a session and adds that to the feed; answers false when there is none. A second time changes nothing.
pub async fn revoke_session(tx: &mut Tx, id: &Id, now: i64) -> Result<bool, DbError> {
    let Some(session) = session(tx, id).await? else { return Ok(false) };
    if session.revoked.is_none() {
        let changed =
            tx.execute("UPDATE sessions SET revoked = $2 WHERE id = $1 AND revoked IS NULL", db_args![id, now]).await?;
        if changed > 0 && session.expires > now.saturating_sub(TOKEN_LEEWAY_MS) {
            add_revocation(tx, &session.id, session.expires).await?;
        }
    }
    Ok(true)
}

/// Revokes a viewer's running sessions of a course. Answers how many.
pub async fn revoke_viewer_sessions(tx: &mut Tx, viewer: &str, course: &Id, now: i64) -> Result<usize, DbError> {
    let rows = tx
        .all(
            "UPDATE sessions SET revoked = $3 WHERE viewer = $1 AND course = $2 AND revoked IS NULL AND expires > $4
             RETURNING id, expires",
            db_args![viewer, course, now, now.saturating_sub(TOKEN_LEEWAY_MS)],
        )
        .await?;
    add_revocations(tx, rows).await
}

/// Revokes all sessions of a viewer. Answers how many.
pub async fn revoke_all_of_viewer(tx: &mut Tx, viewer: &str, now: i64) -> Result<usize, DbError> {
    let rows = tx
        .all(
            "UPDATE sessions SET revoked = $2 WHERE viewer = $1 AND revoked IS NULL AND expires > $3
             RETURNING id, expires",
            db_args![viewer, now, now.saturating_sub(TOKEN_LEEWAY_MS)],
        )
        .await?;
    add_revocations(tx, rows).await
}

/// Revokes a viewer's sessions that stand on the entitlement to a course and whose tokens end after `end`. Answers how
/// many.
pub(crate) async fn revoke_sessions_beyond(
    tx: &mut Tx,
    viewer: &str,
    course: &Id,
    end: i64,
    now: i64,
) -> Result<usize, DbError> {
    let rows = tx
        .all(
            "UPDATE sessions SET revoked = $4 WHERE viewer = $1 AND course = $2 AND expires > $3 AND expires > $5
             AND revoked IS NULL AND entitled_until IS NOT NULL RETURNING id, expires",
            db_args![viewer, course, end, now, now.saturating_sub(TOKEN_LEEWAY_MS)],
        )
        .await?;
    add_revocations(tx, rows).await
}

/// Whether the entitlement of a running session has ended.
pub async fn any_lapsed_session(tx: &mut Tx, now: i64) -> Result<bool, DbError> {
    let sql = "SELECT id FROM sessions WHERE entitled_until <= $1 AND revoked IS NULL LIMIT 1";
    Ok(tx.one(sql, db_args![now]).await?.is_some())
}

/// Revokes sessions whose entitlement has ended: edges accept a token for a while after its `exp`, for clocks that
/// differ, and nobody watches beyond what was bought. Answers how many, `limit` at most.
pub async fn revoke_lapsed_sessions(tx: &mut Tx, now: i64, limit: i64) -> Result<usize, DbError> {
    let rows = tx
        .all(
            "UPDATE sessions SET revoked = $1 WHERE revoked IS NULL AND id IN
             (SELECT id FROM sessions WHERE entitled_until <= $1 AND revoked IS NULL ORDER BY entitled_until LIMIT $2)
             RETURNING id, expires",
            db_args![now, limit],
        )
        .await?;
    add_revocations(tx, rows).await
}

/// Revokes all running sessions of a lesson. Answers how many.
pub async fn revoke_lesson_sessions(tx: &mut Tx, lesson: &Id, now: i64) -> Result<usize, DbError> {
    let rows = tx
        .all(
            "UPDATE sessions SET revoked = $2 WHERE lesson = $1 AND revoked IS NULL AND expires > $3
             RETURNING id, expires",
            db_args![lesson, now, now.saturating_sub(TOKEN_LEEWAY_MS)],
        )
        .await?;
    add_revocations(tx, rows).await
}

async fn add_revocations(tx: &mut Tx, rows: Vec<Row>) -> Result<usize, DbError> {
    for row in &rows {
        let id: Id = row.parse("id")?;
        add_revocation(tx, &id, row.get("expires")?).await?;
    }
    Ok(rows.len())
}

/// Forgets sessions that expired a while ago.
pub async fn drop_expired_sessions(tx: &mut Tx, now: i64) -> Result<(), DbError> {
    tx.execute("DELETE FROM sessions WHERE expires < $1", db_args![now - EXPIRED_KEPT_MS]).await.map(drop)
}

/// How a stream is leased.
#[derive(Clone, Copy, Debug)]
pub struct StreamLease {
    /// How long the lease lasts, in milliseconds.
    pub duration_ms: i64,
    /// Streams that a viewer may hold at once.
    pub limit: u64,
    /// Whether the oldest stream ends where the limit is reached.
    pub end_oldest: bool,
}

/// The outcome of leasing a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamOutcome {
    /// The session holds its stream.
    Held {
        /// Whether an older stream had to be revoked for it.
        ended_oldest: bool,
    },
    /// The viewer holds as many as allowed.
    LimitReached,
    /// The session is revoked or has expired.
    SessionOver,
    /// The catalogue has no such session: the token is another issuer's or an operator's own.
    UnknownSession,
}

/// Holds or renews a session's stream.
pub async fn lease_stream(tx: &mut Tx, id: &Id, lease: &StreamLease, now: i64) -> Result<StreamOutcome, DbError> {
    let Some(session) = session(tx, id).await? else { return Ok(StreamOutcome::UnknownSession) };
    tx.lock("streams of", &session.viewer).await?;
    if session.revoked.is_some() || session.expires <= now {
        return Ok(StreamOutcome::SessionOver);
    }
    let rows = tx
        .all(
            "SELECT id FROM sessions WHERE viewer = $1 AND id <> $2 AND stream_until > $3 AND stream_until <= $4
             AND revoked IS NULL ORDER BY created, id",
            // Leases that end later than any can now are from before the clock was set back.
            db_args![&session.viewer, id, now, now.saturating_add(lease.duration_ms.saturating_mul(2))],
        )
        .await?;
    let over = (rows.len() as u64 + 1).saturating_sub(lease.limit);
    if over > 0 && !lease.end_oldest {
        return Ok(StreamOutcome::LimitReached);
    }
    for row in rows.iter().take(usize::try_from(over).unwrap_or(usize::MAX)) {
        revoke_session(tx, &row.parse("id")?, now).await?;
    }
    tx.execute(
        "UPDATE sessions SET stream_until = $2 WHERE id = $1",
        db_args![id, now.saturating_add(lease.duration_ms)],
    )
    .await?;
    Ok(StreamOutcome::Held { ended_oldest: over > 0 })
}

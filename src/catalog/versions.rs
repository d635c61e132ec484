//! Versions of lessons: each upload makes one, which goes `queued → transcoding → ready | failed`. And their objects, as
//! workers handed them over, in the order in which they were committed.

use lyceum_core::ids::Id;
use lyceum_storage::db::{DbError, Row, Tx};
use lyceum_storage::db_args;

/// The state of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// Waits for its probe.
    Queued,
    /// Planned; tasks are under way.
    Transcoding,
    /// All of its objects are there.
    Ready,
    /// It will never be ready, unless it is retried.
    Failed,
}

impl VersionState {
    /// The name in the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Transcoding => "transcoding",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }
}

impl std::str::FromStr for VersionState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Queued, Self::Transcoding, Self::Ready, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("not a state of a version: {text}"))
    }
}

/// A version.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its id, part of its objects' URLs.
    pub id: Id,
    /// Its lesson.
    pub lesson: Id,
    /// Its state.
    pub state: VersionState,
    /// The key of the recording in the store.
    pub source: String,
    /// The recording's size in bytes.
    pub source_bytes: u64,
    /// When its upload was complete.
    pub created: i64,
    /// When transcoding began.
    pub started: Option<i64>,
    /// Rises with each change of its objects; the position of the newest.
    pub revision: i64,
    /// Whether a player that starts now reaches the end without waiting.
    pub playable: bool,
    /// How much of it is made, 0 to 1.
    pub progress: f64,
    /// Its duration in milliseconds, once probed.
    pub duration: Option<u64>,
    /// The renditions as the API shows them, JSON.
    pub renditions: String,
    /// Why it failed: code and sentence.
    pub error: Option<(String, String)>,
    /// How many of its plan's tasks, the last ones, are not queued yet.
    pub tasks_left: u64,
}

/// What makes a version.
#[derive(Clone, Debug)]
pub struct NewVersion {
    /// Its id.
    pub id: Id,
    /// Its lesson.
    pub lesson: Id,
    /// The key of the recording in the store.
    pub source: String,
    /// The recording's size in bytes.
    pub source_bytes: u64,
    /// What the creator called the file.
    pub filename: String,
}

/// An object of a version.
#[derive(Clone, Debug)]
pub struct StoredObject {
    /// Relative to the version.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// The handover, JSON.
    pub handover: String,
}

const VERSION: &str = "SELECT id, lesson, state, source, source_bytes, created, started, revision, playable, progress,
     duration, renditions, error_code, error_detail, tasks_left FROM versions WHERE id = $1";
const PLAYING: &str = "SELECT v.id, v.lesson, v.state, v.source, v.source_bytes, v.created, v.started, v.revision,
     v.playable, v.progress, v.duration, v.renditions, v.error_code, v.error_detail, v.tasks_left
     FROM lessons l JOIN versions v ON v.id = l.serving WHERE l.id = $1 AND l.deleted IS NULL";

fn from_row(row: &Row) -> Result<Version, DbError> {
    let code: Option<String> = row.get("error_code")?;
    let detail: Option<String> = row.get("error_detail")?;
    Ok(Version {
        id: row.parse("id")?,
        lesson: row.parse("lesson")?,
        state: row.parse("state")?,
        source: row.get("source")?,
        source_bytes: row.unsigned("source_bytes")?,
        created: row.get("created")?,
        started: row.get("started")?,
        revision: row.get("revision")?,
        playable: row.truth("playable")?,
        progress: row.get("progress")?,
        duration: row.get::<Option<i64>>("duration")?.and_then(|ms| u64::try_from(ms).ok()),
        renditions: row.get("renditions")?,
        error: code.map(|code| (code, detail.unwrap_or_default())),
        tasks_left: row.unsigned("tasks_left")?,
    })
}

/// Adds a version and makes it its lesson's newest.
pub async fn add_version(tx: &mut Tx, new: &NewVersion, now: i64) -> Result<(), DbError> {
    tx.execute(
        "INSERT INTO versions (id, lesson, state, source, source_bytes, filename, created, revision, playable, progress,
         renditions) VALUES ($1, $2, 'queued', $3, $4, $5, $6, 0, 0, 0.0, '[]')",
        db_args![&new.id, &new.lesson, &new.source, new.source_bytes, &new.filename, now],
    )
    .await?;
    tx.execute("UPDATE lessons SET newest = $2, revision = revision + 1 WHERE id = $1", db_args![&new.lesson, &new.id])
        .await
        .map(drop)
}

/// One version.
pub async fn version(tx: &mut Tx, id: &Id) -> Result<Option<Version>, DbError> {
    let row = tx.one(VERSION, db_args![id]).await?;
    row.as_ref().map(from_row).transpose()
}

/// What the probe found and the plan made of it, both JSON; `None` before that.
pub async fn plan_of(tx: &mut Tx, id: &Id) -> Result<Option<(String, String)>, DbError> {
    let row = tx
        .one("SELECT media, plan FROM versions WHERE id = $1 AND plan IS NOT NULL AND media IS NOT NULL", db_args![id])
        .await?;
    row.map(|row| Ok((row.get("media")?, row.get("plan")?))).transpose()
}

/// What the probe found, JSON; `None` before that.
pub async fn media_of(tx: &mut Tx, id: &Id) -> Result<Option<String>, DbError> {
    let row = tx.one("SELECT media FROM versions WHERE id = $1", db_args![id]).await?;
    row.map_or(Ok(None), |row| row.get("media"))
}

/// A version's revision, and how often its plan was changed.
pub async fn revisions(tx: &mut Tx, id: &Id) -> Result<Option<(i64, i64)>, DbError> {
    let row = tx.one("SELECT revision, replanned FROM versions WHERE id = $1", db_args![id]).await?;
    row.map(|row| Ok((row.get("revision")?, row.get("replanned")?))).transpose()
}

/// Changes the plan of a version, unless it was changed since it was read at `replanned`; answers whether it was.
pub async fn replan(tx: &mut Tx, id: &Id, plan: &str, replanned: i64) -> Result<bool, DbError> {
    let changed = tx
        .execute(
            "UPDATE versions SET plan = $2, replanned = replanned + 1, revision = revision + 1
             WHERE id = $1 AND replanned = $3",
            db_args![id, plan, replanned],
        )
        .await?;
    Ok(changed > 0)
}

/// All versions of a lesson: id and the key of the recording.
pub async fn versions_of(tx: &mut Tx, lesson: &Id) -> Result<Vec<(Id, String)>, DbError> {
    let rows = tx.all("SELECT id, source FROM versions WHERE lesson = $1", db_args![lesson]).await?;
    rows.iter().map(|row| Ok((row.parse("id")?, row.get("source")?))).collect()
}

/// Whether an object of a version was committed.
pub async fn has_object(tx: &mut Tx, id: &Id, path: &str) -> Result<bool, DbError> {
    Ok(tx.one("SELECT path FROM objects WHERE version = $1 AND path = $2", db_args![id, path]).await?.is_some())
}

/// Forgets a version that was replaced, with its objects.
pub async fn forget_version(tx: &mut Tx, id: &Id) -> Result<(), DbError> {
    tx.execute("DELETE FROM objects WHERE version = $1", db_args![id]).await?;
    tx.execute("DELETE FROM content_keys WHERE version = $1", db_args![id]).await?;
    tx.execute("DELETE FROM versions WHERE id = $1", db_args![id]).await.map(drop)
}

/// The version that players of a lesson get.
pub async fn playing_version(tx: &mut Tx, lesson: &Id) -> Result<Option<Version>, DbError> {
    let row = tx.one(PLAYING, db_args![lesson]).await?;
    row.as_ref().map(from_row).transpose()
}

/// Versions that are neither ready nor failed, oldest first.
pub async fn unfinished_versions(tx: &mut Tx, limit: i64) -> Result<Vec<Id>, DbError> {
    let rows = tx
        .all(
            "SELECT id FROM versions WHERE state IN ('queued', 'transcoding') ORDER BY created LIMIT $1",
            db_args![limit],
        )
        .await?;
    rows.iter().map(|row| row.parse("id")).collect()
}

/// Records what the probe found and the plan made of it; transcoding begins. Answers false when it was planned before.
pub async fn record_plan(
    tx: &mut Tx,
    id: &Id,
    media: &str,
    plan: &str,
    duration_ms: u64,
    renditions: &str,
    now: i64,
) -> Result<bool, DbError> {
    let changed = tx
        .execute(
            "UPDATE versions SET state = 'transcoding', media = $2, plan = $3, duration = $4, renditions = $5,
             started = $6, revision = revision + 1 WHERE id = $1 AND state = 'queued'",
            db_args![id, media, plan, duration_ms, renditions, now],
        )
        .await?;
    Ok(changed > 0)
}

/// Notes how many of a version's tasks are still to be queued.
pub async fn set_tasks_left(tx: &mut Tx, id: &Id, left: u64) -> Result<(), DbError> {
    tx.execute("UPDATE versions SET tasks_left = $2 WHERE id = $1", db_args![id, left]).await.map(drop)
}

/// Versions being made whose tasks are not all queued: a crash may have come between.
pub async fn partly_queued_versions(tx: &mut Tx, limit: i64) -> Result<Vec<Id>, DbError> {
    let sql = "SELECT id FROM versions WHERE tasks_left > 0 AND state = 'transcoding' ORDER BY created LIMIT $1";
    let rows = tx.all(sql, db_args![limit]).await?;
    rows.iter().map(|row| row.parse("id")).collect()
}

/// Adds objects that were handed over; answers the version's revision. One that exists is left as it was.
pub async fn add_objects(tx: &mut Tx, id: &Id, objects: &[StoredObject]) -> Result<i64, DbError> {
    let row =
        tx.one("UPDATE versions SET revision = revision + 1 WHERE id = $1 RETURNING revision", db_args![id]).await?;
    let revision = row.ok_or_else(|| DbError::Corrupt(format!("the version {id} is gone")))?.get("revision")?;
    for object in objects {
        tx.execute(
            "INSERT INTO objects (version, path, position, bytes, handover) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (version, path) DO NOTHING",
            db_args![id, &object.path, revision, object.bytes, &object.handover],
        )
        .await?;
    }
    Ok(revision)
}

/// The handovers committed after `position`, in order.
pub async fn objects_after(tx: &mut Tx, id: &Id, position: i64) -> Result<Vec<(i64, String)>, DbError> {
    let rows = tx
        .all(
            "SELECT position, handover FROM objects WHERE version = $1 AND position > $2 ORDER BY position, path",
            db_args![id, position],
        )
        .await?;
    rows.iter().map(|row| Ok((row.get("position")?, row.get("handover")?))).collect()
}

/// Sets how much of a version is made, and whether it is playable.
pub async fn set_progress(tx: &mut Tx, id: &Id, progress: f64, playable: bool) -> Result<(), DbError> {
    tx.execute(
        "UPDATE versions SET progress = $2, playable = $3 WHERE id = $1 AND state = 'transcoding'",
        db_args![id, progress, playable],
    )
    .await
    .map(drop)
}

/// Makes this the version that players of a lesson get, and marks the one before as replaced.
pub async fn start_serving(tx: &mut Tx, lesson: &Id, id: &Id, now: i64) -> Result<(), DbError> {
    let changed = tx
        .execute(
            "UPDATE lessons SET serving = $2, revision = revision + 1
             WHERE id = $1 AND newest = $2 AND (serving IS NULL OR serving <> $2)",
            db_args![lesson, id],
        )
        .await?;
    if changed > 0 {
        tx.execute(
            "UPDATE versions SET retired = $3 WHERE lesson = $1 AND id <> $2 AND retired IS NULL",
            db_args![lesson, id, now],
        )
        .await?;
    }
    Ok(())
}

/// Makes a version ready. Answers false when it was not being transcoded.
pub async fn finish_version(tx: &mut Tx, id: &Id, renditions: &str, now: i64) -> Result<bool, DbError> {
    let changed = tx
        .execute(
            "UPDATE versions SET state = 'ready', playable = 1, progress = 1.0, renditions = $2, finished = $3,
             revision = revision + 1 WHERE id = $1 AND state = 'transcoding'",
            db_args![id, renditions, now],
        )
        .await?;
    Ok(changed > 0)
}

/// Makes a version failed. Answers false when it was ready or failed before.
pub async fn fail_version(tx: &mut Tx, id: &Id, code: &str, detail: &str, now: i64) -> Result<bool, DbError> {
    let changed = tx
        .execute(
            "UPDATE versions SET state = 'failed', playable = 0, error_code = $2, error_detail = $3, finished = $4
             WHERE id = $1 AND state IN ('queued', 'transcoding')",
            db_args![id, code, detail, now],
        )
        .await?;
    Ok(changed > 0)
}

/// Puts a failed version back into the state before. Answers false when it had not failed.
pub async fn retry_version(tx: &mut Tx, id: &Id) -> Result<bool, DbError> {
    let changed = tx
        .execute(
            "UPDATE versions SET state = CASE WHEN plan IS NULL THEN 'queued' ELSE 'transcoding' END, error_code = NULL,
             error_detail = NULL, finished = NULL WHERE id = $1 AND state = 'failed'",
            db_args![id],
        )
        .await?;
    Ok(changed > 0)
}

/// How many lessons are in each state that the API shows, but `uploading`: an upload that has begun is no version yet.
pub async fn lessons_by_state(tx: &mut Tx) -> Result<Vec<(String, u64)>, DbError> {
    let rows = tx
        .all(
            "SELECT COALESCE(v.state, 'awaiting_upload') AS state, COUNT(*) AS lessons
             FROM lessons l LEFT JOIN versions v ON v.id = l.newest WHERE l.deleted IS NULL
             GROUP BY COALESCE(v.state, 'awaiting_upload')",
            db_args![],
        )
        .await?;
    rows.iter().map(|row| Ok((row.get("state")?, row.unsigned("lessons")?))).collect()
}

/// Versions that were replaced before the instant `before`: lesson and version.
pub async fn versions_to_remove(tx: &mut Tx, before: i64, limit: i64) -> Result<Vec<(Id, Id)>, DbError> {
    let rows = tx
        .all("SELECT lesson, id FROM versions WHERE retired < $1 ORDER BY retired LIMIT $2", db_args![before, limit])
        .await?;
    rows.iter().map(|row| Ok((row.parse("lesson")?, row.parse("id")?))).collect()
}

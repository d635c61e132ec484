//! The rows of uploads.

use lyceum_core::ids::Id;

use crate::db::error::DbError;
use crate::db::tx::{Row, Tx};
use crate::db_args;
use crate::store::growth::Growth;

/// What an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadKind {
    /// A whole file.
    Whole,
    /// A part of one, to be concatenated with others.
    Partial,
    /// A whole file that is concatenated from parts; it takes no bytes of its own.
    Final,
}

impl UploadKind {
    /// Its name in the database and in lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Partial => "partial",
            Self::Final => "final",
        }
    }
}

/// The state of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadState {
    /// It takes bytes, or is whole and not processed yet.
    Open,
    /// It was whole, and was processed.
    Complete,
    /// Its client ended it, or it expired.
    Ended,
}

impl UploadState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Complete => "complete",
            Self::Ended => "ended",
        }
    }
}

/// An upload.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Its id.
    pub id: Id,
    /// The API key that made it.
    pub owner: String,
    /// The lesson that it is for; a part has none.
    pub lesson: Option<Id>,
    /// What it is.
    pub kind: UploadKind,
    /// Its state.
    pub state: UploadState,
    /// Its length in bytes, when that is known.
    pub length: Option<u64>,
    /// The bytes acknowledged: durable in the store.
    pub received: u64,
    /// The ticket of the newest request.
    pub fence: i64,
    /// The ticket of the request that writes.
    pub writer: Option<i64>,
    /// What the store needs to go on.
    pub growth: Growth,
    /// `Upload-Metadata`, as it was sent.
    pub metadata: String,
    /// The name of the file.
    pub filename: String,
    /// The parts of a final one, in order.
    pub partials: Vec<Id>,
    /// When it is removed unless bytes come.
    pub expires: i64,
}

impl Upload {
    /// Whether all bytes are there.
    pub fn is_whole(&self) -> bool {
        self.length == Some(self.received)
    }
}

const ONE: &str = "SELECT id, owner, lesson, kind, state, length, received, fence, writer, store_state, metadata,
     filename, partials, expires FROM uploads WHERE id = $1";

fn from_row(row: &Row) -> Result<Upload, DbError> {
    let kind: String = row.get("kind")?;
    let state: String = row.get("state")?;
    Ok(Upload {
        id: row.parse("id")?,
        owner: row.get("owner")?,
        lesson: match row.get::<String>("lesson")?.as_str() {
            "" => None,
            _ => Some(row.parse("lesson")?),
        },
        kind: [UploadKind::Whole, UploadKind::Partial, UploadKind::Final]
            .into_iter()
            .find(|known| known.as_str() == kind)
            .ok_or_else(|| DbError::Corrupt(format!("not a kind of upload: {kind}")))?,
        state: [UploadState::Open, UploadState::Complete, UploadState::Ended]
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or_else(|| DbError::Corrupt(format!("not a state of an upload: {state}")))?,
        length: row.get::<Option<i64>>("length")?.and_then(|length| u64::try_from(length).ok()),
        received: row.unsigned("received")?,
        fence: row.get("fence")?,
        writer: row.get("writer")?,
        growth: row.json("store_state")?,
        metadata: row.get("metadata")?,
        filename: row.get("filename")?,
        partials: match row.get::<Option<String>>("partials")? {
            None => Vec::new(),
            Some(_) => row.json("partials")?,
        },
        expires: row.get("expires")?,
    })
}

fn json(growth: &Growth) -> Result<String, DbError> {
    serde_json::to_string(growth).map_err(|error| DbError::Corrupt(error.to_string()))
}

fn partials(upload: &Upload) -> Result<Option<String>, DbError> {
    let json = (upload.kind == UploadKind::Final).then(|| serde_json::to_string(&upload.partials));
    json.transpose().map_err(|error| DbError::Corrupt(error.to_string()))
}

pub(super) async fn insert(tx: &mut Tx, upload: &Upload, now: i64) -> Result<(), DbError> {
    tx.execute(
        "INSERT INTO uploads (id, owner, lesson, kind, state, length, received, fence, store_state, metadata, filename,
         created, expires, partials) VALUES ($1, $2, $3, $4, $5, $6, 0, 0, $7, $8, $9, $10, $11, $12)",
        db_args![
            &upload.id,
            &upload.owner,
            upload.lesson.as_ref().map_or("", Id::as_str),
            upload.kind.as_str(),
            upload.state.as_str(),
            upload.length,
            json(&upload.growth)?,
            &upload.metadata,
            &upload.filename,
            now,
            upload.expires,
            partials(upload)?,
        ],
    )
    .await
    .map(drop)
}

pub(super) async fn get(tx: &mut Tx, id: &Id) -> Result<Option<Upload>, DbError> {
    let row = tx.one(ONE, db_args![id]).await?;
    row.as_ref().map(from_row).transpose()
}

/// Gives an unfinished upload of `from` to another owner.
pub async fn transfer(tx: &mut Tx, id: &Id, from: &str, to: &str) -> Result<(), DbError> {
    let sql = "UPDATE uploads SET owner = $3 WHERE id = $1 AND owner = $2 AND state = 'open'";
    tx.execute(sql, db_args![id, from, to]).await.map(drop)
}

/// How many unfinished uploads an owner has.
pub(super) async fn open_of(tx: &mut Tx, owner: &str) -> Result<u64, DbError> {
    let row =
        tx.one("SELECT COUNT(*) AS open FROM uploads WHERE owner = $1 AND state = 'open'", db_args![owner]).await?;
    row.map_or(Ok(0), |row| row.unsigned("open"))
}

/// The bytes that an owner's open uploads have or will have.
pub(super) async fn announced(tx: &mut Tx, owner: &str) -> Result<u64, DbError> {
    let row = tx
        .one(
            "SELECT CAST(COALESCE(SUM(COALESCE(length, received)), 0) AS BIGINT) AS bytes FROM uploads
             WHERE owner = $1 AND state = 'open' AND kind <> 'final'",
            db_args![owner],
        )
        .await?;
    row.map_or(Ok(0), |row| row.unsigned("bytes"))
}

/// Raises the fence: the ticket of a new request.
pub(super) async fn take_ticket(tx: &mut Tx, id: &Id) -> Result<Option<i64>, DbError> {
    let row = tx.one("UPDATE uploads SET fence = fence + 1 WHERE id = $1 RETURNING fence", db_args![id]).await?;
    row.map(|row| row.get("fence")).transpose()
}

/// The newest ticket and whether the upload is still open.
pub(super) async fn fence(tx: &mut Tx, id: &Id) -> Result<Option<(i64, bool)>, DbError> {
    let row = tx.one("SELECT fence, state FROM uploads WHERE id = $1", db_args![id]).await?;
    row.map(|row| Ok((row.get("fence")?, row.get::<String>("state")? == UploadState::Open.as_str()))).transpose()
}

/// Who writes from now on, and what is reserved for it.
pub(super) async fn set_writer(tx: &mut Tx, id: &Id, writer: Option<i64>, growth: &Growth) -> Result<(), DbError> {
    tx.execute("UPDATE uploads SET writer = $2, store_state = $3 WHERE id = $1", db_args![id, writer, json(growth)?])
        .await
        .map(drop)
}

/// Acknowledges bytes, if `ticket` still writes; answers whether it does.
pub(super) async fn acknowledge(
    tx: &mut Tx,
    id: &Id,
    ticket: i64,
    received: u64,
    growth: &Growth,
    leaves: bool,
    expires: i64,
) -> Result<bool, DbError> {
    let writer = (!leaves).then_some(ticket);
    let changed = tx
        .execute(
            "UPDATE uploads SET received = $3, store_state = $4, writer = $5, expires = $6
             WHERE id = $1 AND writer = $2 AND state = 'open'",
            db_args![id, ticket, received, json(growth)?, writer, expires],
        )
        .await?;
    Ok(changed > 0)
}

/// Says the length of an upload that began without one.
pub(super) async fn set_length(tx: &mut Tx, id: &Id, length: u64) -> Result<(), DbError> {
    tx.execute("UPDATE uploads SET length = $2 WHERE id = $1", db_args![id, length]).await.map(drop)
}

pub(super) async fn set_state(tx: &mut Tx, id: &Id, state: UploadState) -> Result<(), DbError> {
    tx.execute("UPDATE uploads SET state = $2, writer = NULL WHERE id = $1", db_args![id, state.as_str()])
        .await
        .map(drop)
}

pub(super) async fn end_all_of(tx: &mut Tx, lesson: &Id) -> Result<Vec<Id>, DbError> {
    let rows = tx
        .all(
            "UPDATE uploads SET state = 'ended', writer = NULL WHERE lesson = $1 AND state = 'open' RETURNING id",
            db_args![lesson],
        )
        .await?;
    rows.iter().map(|row| row.parse("id")).collect()
}

pub(super) async fn ended_of(tx: &mut Tx, lesson: &Id) -> Result<Vec<Upload>, DbError> {
    let rows = tx
        .all(
            "SELECT id, owner, lesson, kind, state, length, received, fence, writer, store_state, metadata, filename,
             partials, expires FROM uploads WHERE lesson = $1 AND state = 'ended'",
            db_args![lesson],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

pub(super) async fn whole_but_open(tx: &mut Tx, limit: i64) -> Result<Vec<Upload>, DbError> {
    let rows = tx
        .all(
            "SELECT id, owner, lesson, kind, state, length, received, fence, writer, store_state, metadata, filename,
             partials, expires FROM uploads WHERE state = 'open' AND kind <> 'partial' AND length = received LIMIT $1",
            db_args![limit],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Final uploads that are still to be joined and that nobody is joining now.
pub(super) async fn to_concatenate(tx: &mut Tx, limit: i64) -> Result<Vec<Id>, DbError> {
    let rows = tx
        .all(
            "SELECT id FROM uploads WHERE state = 'open' AND kind = 'final' AND received < length AND writer IS NULL
             ORDER BY created LIMIT $1",
            db_args![limit],
        )
        .await?;
    rows.iter().map(|row| row.parse("id")).collect()
}

/// Open uploads that expired before `now`, or that were made before `unused_since` and that nobody has written to.
pub(super) async fn overdue(tx: &mut Tx, now: i64, unused_since: i64, limit: i64) -> Result<Vec<Id>, DbError> {
    let rows = tx
        .all(
            "SELECT id FROM uploads WHERE state = 'open' AND (expires < $1
             OR (created < $2 AND fence = 0 AND received = 0 AND kind <> 'final')) ORDER BY expires LIMIT $3",
            db_args![now, unused_since, limit],
        )
        .await?;
    rows.iter().map(|row| row.parse("id")).collect()
}

pub(super) async fn forget_old(tx: &mut Tx, now: i64) -> Result<(), DbError> {
    let month = 30 * 24 * 3600 * 1000;
    let sql = "DELETE FROM uploads WHERE expires < $1 AND (state = 'complete' OR (state = 'ended' AND cleared = 1))";
    tx.execute(sql, db_args![now - month]).await.map(drop)
}

/// Notes that nothing is left of an ended upload in the store.
pub(super) async fn set_cleared(tx: &mut Tx, id: &Id) -> Result<(), DbError> {
    tx.execute("UPDATE uploads SET cleared = 1 WHERE id = $1", db_args![id]).await.map(drop)
}

/// Ended uploads of which something may be left in the store.
pub(super) async fn to_clear(tx: &mut Tx, limit: i64) -> Result<Vec<Upload>, DbError> {
    let rows = tx
        .all(
            "SELECT id, owner, lesson, kind, state, length, received, fence, writer, store_state, metadata, filename,
             partials, expires FROM uploads WHERE state = 'ended' AND cleared = 0 LIMIT $1",
            db_args![limit],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Open uploads after a place in the list, the oldest first, with the time of their creation: `owner`'s, or everybody's.
pub(super) async fn open_after(
    tx: &mut Tx,
    owner: Option<&str>,
    (created, id): (i64, &str),
    limit: i64,
) -> Result<Vec<(i64, Upload)>, DbError> {
    let rows = tx
        .all(
            "SELECT id, owner, lesson, kind, state, length, received, fence, writer, store_state, metadata, filename,
             partials, expires, created FROM uploads WHERE state = 'open' AND ($1 = '' OR owner = $1)
             AND (created > $2 OR (created = $2 AND id > $3)) ORDER BY created, id LIMIT $4",
            db_args![owner.unwrap_or_default(), created, id, limit],
        )
        .await?;
    rows.iter().map(|row| Ok((row.get("created")?, from_row(row)?))).collect()
}

//! The content keys of encrypted lessons, one for each version, sealed as they are stored. The keys that seal them are
//! not in the database.

use lyceum_core::ids::Id;
use lyceum_storage::db::{DbError, Row, Tx};
use lyceum_storage::db_args;

/// A sealed content key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedKey {
    /// Its id, part of its URL.
    pub id: Id,
    /// Its lesson.
    pub lesson: Id,
    /// The version that it decrypts.
    pub version: Id,
    /// Its bytes, encrypted and authenticated.
    pub sealed: Vec<u8>,
    /// The name of the key that sealed it.
    pub sealed_by: String,
}

fn from_row(row: &Row) -> Result<SealedKey, DbError> {
    Ok(SealedKey {
        id: row.parse("id")?,
        lesson: row.parse("lesson")?,
        version: row.parse("version")?,
        sealed: row.get("sealed")?,
        sealed_by: row.get("sealed_by")?,
    })
}

/// Adds the content key of a version.
pub async fn add_content_key(tx: &mut Tx, key: &SealedKey, now: i64) -> Result<(), DbError> {
    tx.execute(
        "INSERT INTO content_keys (id, lesson, version, sealed, sealed_by, created) VALUES ($1, $2, $3, $4, $5, $6)",
        db_args![&key.id, &key.lesson, &key.version, key.sealed.clone(), &key.sealed_by, now],
    )
    .await
    .map(drop)
}

/// One content key, unless its lesson was deleted.
pub async fn content_key(tx: &mut Tx, id: &Id) -> Result<Option<SealedKey>, DbError> {
    let row = tx
        .one(
            "SELECT k.id, k.lesson, k.version, k.sealed, k.sealed_by FROM content_keys k JOIN lessons l ON l.id = k.lesson
             WHERE k.id = $1 AND l.deleted IS NULL",
            db_args![id],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// The content key of a version.
pub async fn content_key_of(tx: &mut Tx, version: &Id) -> Result<Option<SealedKey>, DbError> {
    let sql = "SELECT id, lesson, version, sealed, sealed_by FROM content_keys WHERE version = $1";
    let row = tx.one(sql, db_args![version]).await?;
    row.as_ref().map(from_row).transpose()
}

/// Content keys that are not sealed by `sealer`.
pub async fn keys_not_sealed_by(tx: &mut Tx, sealer: &str, limit: i64) -> Result<Vec<SealedKey>, DbError> {
    let rows = tx
        .all(
            "SELECT id, lesson, version, sealed, sealed_by FROM content_keys WHERE sealed_by <> $1 ORDER BY id LIMIT $2",
            db_args![sealer, limit],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Replaces a key that `before` sealed by the same key sealed anew, unless it was replaced meanwhile.
pub async fn reseal(tx: &mut Tx, key: &SealedKey, before: &str) -> Result<(), DbError> {
    tx.execute(
        "UPDATE content_keys SET sealed = $2, sealed_by = $3 WHERE id = $1 AND sealed_by = $4",
        db_args![&key.id, key.sealed.clone(), &key.sealed_by, before],
    )
    .await
    .map(drop)
}

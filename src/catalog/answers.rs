//! Answers that are given again when a request comes a second time under the same `Idempotency-Key`. Kept in the
//! transaction that the request worked in, so the effect and its answer are there together or not at all.

use lyceum_storage::db::{DbError, Tx};
use lyceum_storage::db_args;

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// Nothing: the request is new.
    New,
    /// The answer of the first time: status and body.
    Answer(u16, String),
    /// The key was used for another request.
    Other,
}

/// Looks a key up; whoever else uses it at this moment is waited for.
pub async fn remembered(tx: &mut Tx, actor: &str, key: &str, fingerprint: [u8; 32]) -> Result<Remembered, DbError> {
    tx.lock("answer", &format!("{actor} {key}")).await?;
    let sql = "SELECT fingerprint, status, body FROM answers WHERE actor = $1 AND key = $2";
    let Some(row) = tx.one(sql, db_args![actor, key]).await? else { return Ok(Remembered::New) };
    if row.get::<Vec<u8>>("fingerprint")? != fingerprint {
        return Ok(Remembered::Other);
    }
    let status = u16::try_from(row.get::<i64>("status")?).unwrap_or(200);
    Ok(Remembered::Answer(status, row.get("body")?))
}

/// Keeps the answer of a request.
pub async fn keep_answer(
    tx: &mut Tx,
    (actor, key, fingerprint): (&str, &str, [u8; 32]),
    status: u16,
    body: &str,
    now: i64,
) -> Result<(), DbError> {
    tx.execute(
        "INSERT INTO answers (actor, key, fingerprint, status, body, created) VALUES ($1, $2, $3, $4, $5, $6)",
        db_args![actor, key, fingerprint, i64::from(status), body, now],
    )
    .await
    .map(drop)
}

/// Forgets one answer: what it told of came to nothing.
pub async fn forget_answer(tx: &mut Tx, actor: &str, key: &str) -> Result<(), DbError> {
    tx.execute("DELETE FROM answers WHERE actor = $1 AND key = $2", db_args![actor, key]).await.map(drop)
}

/// Forgets answers that are older than a day.
pub async fn forget_answers(tx: &mut Tx, now: i64) -> Result<(), DbError> {
    tx.execute("DELETE FROM answers WHERE created < $1", db_args![now - 24 * 3_600_000]).await.map(drop)
}

//! Answers that are repeated when a request comes a second time with the same `Idempotency-Key` (the IETF draft
//! idempotency-key-header). Kept in the transaction of the request, so that the effect and its answer are committed
//! together or not at all.

use lyceum_storage::db::{DbError, Tx};
use lyceum_storage::db_args;

/// How long answers are kept, in milliseconds.
const ANSWERS_KEPT_MS: i64 = 24 * 3_600_000;

/// What is known under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownAnswer {
    /// Nothing: the request is new.
    None,
    /// The same request came before: the status and body of its answer.
    Same(u16, String),
    /// The key was used for another request.
    OtherRequest,
}

/// Looks a key up, and locks it for this transaction: a concurrent request with the same key waits.
pub async fn known_answer(tx: &mut Tx, actor: &str, key: &str, fingerprint: [u8; 32]) -> Result<KnownAnswer, DbError> {
    tx.lock("answer", &format!("{actor} {key}")).await?;
    let sql = "SELECT fingerprint, status, body FROM answers WHERE actor = $1 AND key = $2";
    let Some(row) = tx.one(sql, db_args![actor, key]).await? else { return Ok(KnownAnswer::None) };
    if row.get::<Vec<u8>>("fingerprint")? != fingerprint {
        return Ok(KnownAnswer::OtherRequest);
    }
    let status = u16::try_from(row.get::<i64>("status")?).unwrap_or(200);
    Ok(KnownAnswer::Same(status, row.get("body")?))
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

/// Forgets one answer, whose effect is gone.
pub async fn forget_answer(tx: &mut Tx, actor: &str, key: &str) -> Result<(), DbError> {
    tx.execute("DELETE FROM answers WHERE actor = $1 AND key = $2", db_args![actor, key]).await.map(drop)
}

/// Forgets answers that are too old.
pub async fn drop_expired_answers(tx: &mut Tx, now: i64) -> Result<(), DbError> {
    tx.execute("DELETE FROM answers WHERE created < $1", db_args![now - ANSWERS_KEPT_MS]).await.map(drop)
}

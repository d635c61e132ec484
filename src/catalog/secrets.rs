//! The secrets of identities, and the logins of pages that they open. An identity may have several at once, so that a
//! new one is in use everywhere before the old one ends; an end may be set beforehand.
//!
//! A secret that is made here has 256 random bits, so storing its SHA-256 is enough: it can't be guessed, and the time of a
//! look-up by hash reveals nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use lyceum_core::ids::{Id, random_bytes};
use lyceum_storage::db::{DbError, Row, Tx};
use lyceum_storage::db_args;

use crate::identities::{Identity, Role, identity_from};
use crate::page::Page;

/// A secret, without what is secret of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Its id in the API.
    pub id: Id,
    /// Whose it is.
    pub identity: Id,
    /// When it was made.
    pub created: i64,
    /// When it ends; without one, never.
    pub expires: Option<i64>,
}

/// A new secret, to be shown once: `prefix`, `_` and 43 characters of base64url.
pub fn new_secret(prefix: &str) -> String {
    format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(random_bytes::<32>()))
}

/// Whether a text has the form of what [`new_secret`] makes, which nobody guesses; secrets of another form were chosen by
/// people.
pub fn has_form_of_new_secret(text: &str) -> bool {
    let random = text.split_once('_').filter(|(prefix, _)| prefix.len() == 3).map(|(_, random)| random);
    random.is_some_and(|random| {
        random.len() == 43 && random.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

/// What is stored of a secret: its SHA-256.
pub fn hash_secret(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn secret_from(row: &Row) -> Result<Secret, DbError> {
    Ok(Secret {
        id: row.parse("id")?,
        identity: row.parse("identity")?,
        created: row.get("created")?,
        expires: row.get("expires")?,
    })
}

/// Adds a secret.
pub async fn add_secret(tx: &mut Tx, new: &Secret, hash: [u8; 32]) -> Result<(), DbError> {
    tx.execute(
        "INSERT INTO secrets (id, identity, hash, created, expires) VALUES ($1, $2, $3, $4, $5)",
        db_args![&new.id, &new.identity, hash, new.created, new.expires],
    )
    .await
    .map(drop)
}

/// The identity whose secret has this hash, and the secret's id.
pub async fn find_by_secret(tx: &mut Tx, hash: [u8; 32], now: i64) -> Result<Option<(Identity, Id)>, DbError> {
    let row = tx
        .one(
            "SELECT i.id, i.role, i.name, i.created, i.quota, s.id AS secret
             FROM secrets s JOIN identities i ON i.id = s.identity
             WHERE s.hash = $1 AND (s.expires IS NULL OR s.expires > $2)",
            db_args![hash, now],
        )
        .await?;
    row.map(|row| Ok((identity_from(&row)?, row.parse("secret")?))).transpose()
}

/// A page of an identity's secrets, the oldest first, without those that have ended.
pub async fn secrets_of(tx: &mut Tx, identity: &Id, now: i64, page: &Page) -> Result<Vec<Secret>, DbError> {
    let rows = tx
        .all(
            "SELECT id, identity, created, expires FROM secrets
             WHERE identity = $1 AND (expires IS NULL OR expires > $2)
             AND (created > $3 OR (created = $3 AND id > $4)) ORDER BY created, id LIMIT $5",
            db_args![identity, now, page.after.0, &page.after.1, page.limit],
        )
        .await?;
    rows.iter().map(secret_from).collect()
}

/// How many secrets of an identity have not ended.
pub async fn count_secrets(tx: &mut Tx, identity: &Id, now: i64) -> Result<u64, DbError> {
    let row = tx
        .one(
            "SELECT COUNT(*) AS usable FROM secrets WHERE identity = $1 AND (expires IS NULL OR expires > $2)",
            db_args![identity, now],
        )
        .await?;
    row.map_or(Ok(0), |row| row.unsigned("usable"))
}

/// How many secrets of role admin have no end.
pub async fn count_lasting_admin_secrets(tx: &mut Tx) -> Result<u64, DbError> {
    let row = tx
        .one(
            "SELECT COUNT(*) AS lasting FROM secrets s JOIN identities i ON i.id = s.identity
             WHERE i.role = $1 AND s.expires IS NULL",
            db_args![Role::Admin.as_str()],
        )
        .await?;
    row.map_or(Ok(0), |row| row.unsigned("lasting"))
}

/// Removes a secret of an identity and the logins that it opened; answers whether it was there.
pub async fn delete_secret(tx: &mut Tx, identity: &Id, id: &Id) -> Result<bool, DbError> {
    let removed = tx.execute("DELETE FROM secrets WHERE id = $1 AND identity = $2", db_args![id, identity]).await? > 0;
    if removed {
        tx.execute("DELETE FROM page_logins WHERE secret = $1", db_args![id]).await?;
    }
    Ok(removed)
}

/// Has all secrets of an identity end at `end`, but for `newest` and those that end before. Answers how many.
pub async fn end_other_secrets(tx: &mut Tx, identity: &Id, newest: &Id, end: i64) -> Result<u64, DbError> {
    tx.execute(
        "UPDATE secrets SET expires = $3 WHERE identity = $1 AND id <> $2 AND (expires IS NULL OR expires > $3)",
        db_args![identity, newest, end],
    )
    .await
}

/// Makes the secret with this hash one of the admin `admin`, in place of the one that the configuration gave before.
/// Whoever else had it has it no longer.
pub async fn configure_admin_secret(tx: &mut Tx, admin: &Identity, hash: [u8; 32], now: i64) -> Result<(), DbError> {
    let logins = "DELETE FROM page_logins WHERE secret IN (SELECT id FROM secrets WHERE hash = $1 OR id = $2)";
    tx.execute(logins, db_args![hash, &admin.id]).await?;
    tx.execute("DELETE FROM secrets WHERE hash = $1 OR id = $2", db_args![hash, &admin.id]).await?;
    tx.execute(
        "INSERT INTO identities (id, role, name, created) VALUES ($1, $2, $3, $4)
         ON CONFLICT (id) DO UPDATE SET role = excluded.role",
        db_args![&admin.id, admin.role.as_str(), &admin.name, admin.created],
    )
    .await?;
    // By its identity's id, so that the next one takes its place.
    let secret = Secret { id: admin.id.clone(), identity: admin.id.clone(), created: now, expires: None };
    add_secret(tx, &secret, hash).await
}

/// Whether the configuration's secret `name` had this hash when it was applied the last time.
pub async fn was_applied(tx: &mut Tx, name: &'static str, hash: [u8; 32]) -> Result<bool, DbError> {
    let sql = "SELECT name FROM applied_secrets WHERE name = $1 AND hash = $2";
    Ok(tx.one(sql, db_args![name, hash]).await?.is_some())
}

/// Notes that the configuration's secret `name` was applied.
pub async fn note_applied(tx: &mut Tx, name: &'static str, hash: [u8; 32]) -> Result<(), DbError> {
    tx.execute(
        "INSERT INTO applied_secrets (name, hash) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET hash = excluded.hash",
        db_args![name, hash],
    )
    .await
    .map(drop)
}

/// Adds a page's login, which ends at `expires` and no later than the secret that opened it.
pub async fn add_login(tx: &mut Tx, hash: [u8; 32], secret: &Id, expires: i64) -> Result<(), DbError> {
    tx.execute("INSERT INTO page_logins (hash, secret, expires) VALUES ($1, $2, $3)", db_args![hash, secret, expires])
        .await
        .map(drop)
}

/// The identity that a page's login stands for.
pub async fn find_by_login(tx: &mut Tx, hash: [u8; 32], now: i64) -> Result<Option<Identity>, DbError> {
    let row = tx
        .one(
            "SELECT i.id, i.role, i.name, i.created, i.quota
             FROM page_logins l JOIN secrets s ON s.id = l.secret JOIN identities i ON i.id = s.identity
             WHERE l.hash = $1 AND l.expires > $2 AND (s.expires IS NULL OR s.expires > $2)",
            db_args![hash, now],
        )
        .await?;
    row.as_ref().map(identity_from).transpose()
}

/// Ends a page's login.
pub async fn delete_login(tx: &mut Tx, hash: [u8; 32]) -> Result<(), DbError> {
    tx.execute("DELETE FROM page_logins WHERE hash = $1", db_args![hash]).await.map(drop)
}

/// Forgets logins and secrets that have ended.
pub async fn drop_expired_secrets(tx: &mut Tx, now: i64) -> Result<(), DbError> {
    tx.execute("DELETE FROM page_logins WHERE expires <= $1", db_args![now]).await?;
    tx.execute("DELETE FROM secrets WHERE expires <= $1", db_args![now]).await.map(drop)
}

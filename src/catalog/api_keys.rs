//! API keys and the logins of pages. A secret has 256 random bits, so storing its SHA-256 is enough: it can't be guessed,
//! and the time of a look-up by hash reveals nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use lyceum_core::ids::{Id, random_bytes};
use lyceum_storage::db::{DbError, Row, Tx};
use lyceum_storage::db_args;

use crate::page::Page;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything.
    Admin,
    /// Its own courses and uploads.
    Creator,
    /// Entitlements and playback.
    Shop,
    /// Tasks.
    Worker,
}

impl Role {
    /// The name in the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Creator => "creator",
            Self::Shop => "shop",
            Self::Worker => "worker",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "admin" => Ok(Self::Admin),
            "creator" => Ok(Self::Creator),
            "shop" => Ok(Self::Shop),
            "worker" => Ok(Self::Worker),
            _ => Err("a role is admin, creator, shop or worker"),
        }
    }
}

/// An API key without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id in the API.
    pub id: Id,
    /// What it may do.
    pub role: Role,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created: i64,
    /// How many bytes of recordings its owner may keep; without one, as the configuration says.
    pub quota: Option<u64>,
}

/// A new secret, to be shown once: `prefix`, `_` and 43 characters of base64url.
pub fn new_secret(prefix: &str) -> String {
    format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(random_bytes::<32>()))
}

/// What is stored of a secret: its SHA-256.
pub fn hash_secret(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn from_row(row: &Row) -> Result<ApiKey, DbError> {
    Ok(ApiKey {
        id: row.parse("id")?,
        role: row.parse("role")?,
        name: row.get("name")?,
        created: row.get("created")?,
        quota: row.get::<Option<i64>>("quota")?.and_then(|bytes| u64::try_from(bytes).ok()),
    })
}

/// Adds a key.
pub async fn add_api_key(tx: &mut Tx, key: &ApiKey, hash: [u8; 32]) -> Result<(), DbError> {
    tx.execute(
        "INSERT INTO api_keys (id, hash, role, name, created, quota) VALUES ($1, $2, $3, $4, $5, $6)",
        db_args![&key.id, hash, key.role.as_str(), &key.name, key.created, key.quota],
    )
    .await
    .map(drop)
}

/// Adds `key`, or gives the key of its id this hash and role; another key of this hash is removed.
pub async fn ensure_api_key(tx: &mut Tx, key: &ApiKey, hash: [u8; 32]) -> Result<(), DbError> {
    tx.execute("DELETE FROM api_keys WHERE hash = $1 AND id <> $2", db_args![hash, &key.id]).await?;
    tx.execute(
        "INSERT INTO api_keys (id, hash, role, name, created) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, role = excluded.role",
        db_args![&key.id, hash, key.role.as_str(), &key.name, key.created],
    )
    .await
    .map(drop)
}

/// The key whose secret has this hash.
pub async fn find_api_key(tx: &mut Tx, hash: [u8; 32]) -> Result<Option<ApiKey>, DbError> {
    let row = tx.one("SELECT id, role, name, created, quota FROM api_keys WHERE hash = $1", db_args![hash]).await?;
    row.as_ref().map(from_row).transpose()
}

/// A page of keys, the oldest first.
pub async fn api_keys(tx: &mut Tx, page: &Page) -> Result<Vec<ApiKey>, DbError> {
    let rows = tx
        .all(
            "SELECT id, role, name, created, quota FROM api_keys WHERE created > $1 OR (created = $1 AND id > $2)
             ORDER BY created, id LIMIT $3",
            db_args![page.after.0, &page.after.1, page.limit],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// One key.
pub async fn api_key(tx: &mut Tx, id: &Id) -> Result<Option<ApiKey>, DbError> {
    let row = tx.one("SELECT id, role, name, created, quota FROM api_keys WHERE id = $1", db_args![id]).await?;
    row.as_ref().map(from_row).transpose()
}

/// Changes a key's name and quota; answers whether it was there.
pub async fn change_api_key(tx: &mut Tx, key: &ApiKey) -> Result<bool, DbError> {
    let sql = "UPDATE api_keys SET name = $2, quota = $3 WHERE id = $1";
    Ok(tx.execute(sql, db_args![&key.id, &key.name, key.quota]).await? > 0)
}

/// How many bytes of recordings an owner keeps, without those of deleted lessons. Counted anew each time, so that the
/// number can't drift.
pub async fn kept_bytes(tx: &mut Tx, owner: &str) -> Result<u64, DbError> {
    let row = tx
        .one(
            "SELECT CAST(COALESCE(SUM(v.source_bytes), 0) AS BIGINT) AS bytes
             FROM lessons l JOIN versions v ON v.lesson = l.id WHERE l.owner = $1 AND l.deleted IS NULL",
            db_args![owner],
        )
        .await?;
    row.map_or(Ok(0), |row| row.unsigned("bytes"))
}

/// Removes a key and its logins; answers whether it was there.
pub async fn delete_api_key(tx: &mut Tx, id: &Id) -> Result<bool, DbError> {
    tx.execute("DELETE FROM logins WHERE api_key = $1", db_args![id]).await?;
    Ok(tx.execute("DELETE FROM api_keys WHERE id = $1", db_args![id]).await? > 0)
}

/// Adds a page's login.
pub async fn add_login(tx: &mut Tx, hash: [u8; 32], key: &Id, expires: i64) -> Result<(), DbError> {
    tx.execute("INSERT INTO logins (hash, api_key, expires) VALUES ($1, $2, $3)", db_args![hash, key, expires])
        .await
        .map(drop)
}

/// The key that a page's login stands for.
pub async fn find_login(tx: &mut Tx, hash: [u8; 32], now: i64) -> Result<Option<ApiKey>, DbError> {
    let row = tx
        .one(
            "SELECT k.id, k.role, k.name, k.created, k.quota FROM logins l JOIN api_keys k ON k.id = l.api_key
             WHERE l.hash = $1 AND l.expires > $2",
            db_args![hash, now],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Ends a page's login.
pub async fn delete_login(tx: &mut Tx, hash: [u8; 32]) -> Result<(), DbError> {
    tx.execute("DELETE FROM logins WHERE hash = $1", db_args![hash]).await.map(drop)
}

/// Forgets logins that have ended.
pub async fn drop_expired_logins(tx: &mut Tx, now: i64) -> Result<(), DbError> {
    tx.execute("DELETE FROM logins WHERE expires <= $1", db_args![now]).await.map(drop)
}

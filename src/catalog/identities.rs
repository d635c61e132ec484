//! Identities: who acts, whose courses there are, who is named in the audit log. The API calls them keys. What an
//! identity shows to be known by are its secrets, see [`crate::secrets`]: they come and go, it stays.

use lyceum_core::ids::Id;
use lyceum_storage::db::{DbError, Row, Tx};
use lyceum_storage::db_args;

use crate::page::Page;

/// What an identity may do.
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

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its id in the API: the owner of what it makes.
    pub id: Id,
    /// What it may do.
    pub role: Role,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created: i64,
    /// How many bytes of recordings it may keep; without one, as the configuration says.
    pub quota: Option<u64>,
}

pub(crate) fn identity_from(row: &Row) -> Result<Identity, DbError> {
    Ok(Identity {
        id: row.parse("id")?,
        role: row.parse("role")?,
        name: row.get("name")?,
        created: row.get("created")?,
        quota: row.get::<Option<i64>>("quota")?.and_then(|bytes| u64::try_from(bytes).ok()),
    })
}

/// Adds an identity.
pub async fn add_identity(tx: &mut Tx, new: &Identity) -> Result<(), DbError> {
    tx.execute(
        "INSERT INTO identities (id, role, name, created, quota) VALUES ($1, $2, $3, $4, $5)",
        db_args![&new.id, new.role.as_str(), &new.name, new.created, new.quota],
    )
    .await
    .map(drop)
}

/// A page of identities, the oldest first.
pub async fn identities(tx: &mut Tx, page: &Page) -> Result<Vec<Identity>, DbError> {
    let rows = tx
        .all(
            "SELECT id, role, name, created, quota FROM identities WHERE created > $1 OR (created = $1 AND id > $2)
             ORDER BY created, id LIMIT $3",
            db_args![page.after.0, &page.after.1, page.limit],
        )
        .await?;
    rows.iter().map(identity_from).collect()
}

/// One identity.
pub async fn identity(tx: &mut Tx, id: &Id) -> Result<Option<Identity>, DbError> {
    let row = tx.one("SELECT id, role, name, created, quota FROM identities WHERE id = $1", db_args![id]).await?;
    row.as_ref().map(identity_from).transpose()
}

/// Changes an identity's name and quota.
pub async fn change_identity(tx: &mut Tx, changed: &Identity) -> Result<(), DbError> {
    let sql = "UPDATE identities SET name = $2, quota = $3 WHERE id = $1";
    tx.execute(sql, db_args![&changed.id, &changed.name, changed.quota]).await.map(drop)
}

/// Removes an identity with its secrets and logins. What it owns stays, and can be given to another.
pub async fn delete_identity(tx: &mut Tx, id: &Id) -> Result<(), DbError> {
    let logins = "DELETE FROM page_logins WHERE secret IN (SELECT id FROM secrets WHERE identity = $1)";
    tx.execute(logins, db_args![id]).await?;
    tx.execute("DELETE FROM secrets WHERE identity = $1", db_args![id]).await?;
    tx.execute("DELETE FROM identities WHERE id = $1", db_args![id]).await.map(drop)
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

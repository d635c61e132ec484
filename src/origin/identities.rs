//! Identities and their secrets: made, rotated, removed, and what they own given to others. Someone can always be let
//! in: the last secret of an admin that has no end stays. Knows nothing of HTTP.

use lyceum_catalog::{self as catalog, Course, Identity, Role, Secret};
use lyceum_core::ids::Id;
use lyceum_storage::db::{DbError, Tx};
use lyceum_storage::upload;

/// Why identities, secrets or what they own were not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// Nobody could make keys any more.
    #[error("it is the last secret of an admin without an end")]
    LastAdmin,
    /// There is no such identity, or no such secret of it.
    #[error("there is no such identity or secret")]
    Unknown,
    /// The identity has as many secrets as allowed.
    #[error("the identity has {0} secrets")]
    TooManySecrets(u64),
    /// A secret that would end before it begins.
    #[error("a secret ends in the future")]
    EndsInPast,
    /// Only creators and admins own courses.
    #[error("the new owner is no creator and no admin")]
    NotAnOwner,
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// A secret that was just made: what is kept of it, and itself, which is shown once.
pub(crate) struct NewSecret {
    pub(crate) kept: Secret,
    pub(crate) text: String,
}

/// Adds a secret to an identity, in the caller's transaction.
async fn add_secret(tx: &mut Tx, identity: &Id, expires: Option<i64>, now: i64) -> Result<NewSecret, DbError> {
    let kept = Secret { id: Id::random(), identity: identity.clone(), created: now, expires };
    let text = catalog::new_secret("lyk");
    catalog::add_secret(tx, &kept, catalog::hash_secret(&text)).await?;
    Ok(NewSecret { kept, text })
}

/// Makes an identity with its first secret.
pub(crate) async fn create(tx: &mut Tx, new: &Identity) -> Result<NewSecret, IdentityError> {
    catalog::add_identity(tx, new).await?;
    Ok(add_secret(tx, &new.id, None, new.created).await?)
}

/// One identity, whose secrets nobody else changes until the end of the transaction.
pub(crate) async fn lock(tx: &mut Tx, id: &Id) -> Result<Identity, IdentityError> {
    tx.lock("key", id.as_str()).await?;
    catalog::identity(tx, id).await?.ok_or(IdentityError::Unknown)
}

/// Adds a secret beside those that an identity has, `limit` in all.
pub(crate) async fn give_secret(
    tx: &mut Tx,
    identity: &Identity,
    expires: Option<i64>,
    limit: u64,
    now: i64,
) -> Result<NewSecret, IdentityError> {
    if expires.is_some_and(|end| end <= now) {
        return Err(IdentityError::EndsInPast);
    }
    let has = catalog::count_secrets(tx, &identity.id, now).await?;
    if has >= limit {
        return Err(IdentityError::TooManySecrets(has));
    }
    Ok(add_secret(tx, &identity.id, expires, now).await?)
}

/// Gives an identity a new secret and has all others end after `overlap_ms`: until then both are good.
pub(crate) async fn rotate(
    tx: &mut Tx,
    identity: &Identity,
    overlap_ms: i64,
    limit: u64,
    now: i64,
) -> Result<NewSecret, IdentityError> {
    let end = now.saturating_add(overlap_ms);
    let new = if overlap_ms > 0 {
        give_secret(tx, identity, None, limit, now).await?
    } else {
        add_secret(tx, &identity.id, None, now).await?
    };
    catalog::end_other_secrets(tx, &identity.id, &new.kept.id, end).await?;
    Ok(new)
}

/// Removes a secret and the logins that it opened.
pub(crate) async fn remove_secret(tx: &mut Tx, identity: &Identity, secret: &Id) -> Result<(), IdentityError> {
    if !catalog::delete_secret(tx, &identity.id, secret).await? {
        return Err(IdentityError::Unknown);
    }
    keep_an_admin(tx, identity).await
}

/// Removes an identity with its secrets and logins, and ends what it plays. Answers how many sessions ended. Its
/// courses stay: an admin may give them to another.
pub(crate) async fn remove(tx: &mut Tx, identity: &Identity, now: i64) -> Result<usize, IdentityError> {
    catalog::delete_identity(tx, &identity.id).await?;
    keep_an_admin(tx, identity).await?;
    Ok(catalog::revoke_all_of_viewer(tx, &viewer(identity.id.as_str()), now).await?)
}

/// After a secret of `identity` went: whether an admin is left.
async fn keep_an_admin(tx: &mut Tx, identity: &Identity) -> Result<(), IdentityError> {
    if identity.role != Role::Admin {
        return Ok(());
    }
    // Two that remove one another's are counted one after the other.
    tx.lock("identities", "admins").await?;
    if catalog::count_lasting_admin_secrets(tx).await? == 0 { Err(IdentityError::LastAdmin) } else { Ok(()) }
}

/// Gives a course, its lessons and the uploads to them that are under way to another identity. What the old owner plays of
/// it ends. Answers how many sessions ended.
pub(crate) async fn transfer(tx: &mut Tx, course: &Course, owner: &Id, now: i64) -> Result<usize, IdentityError> {
    let owner = lock(tx, owner).await?;
    if !matches!(owner.role, Role::Creator | Role::Admin) {
        return Err(IdentityError::NotAnOwner);
    }
    for upload in catalog::transfer_course(tx, &course.id, owner.id.as_str()).await? {
        upload::transfer(tx, &upload, &course.owner, owner.id.as_str()).await?;
    }
    Ok(catalog::revoke_viewer_sessions(tx, &viewer(&course.owner), &course.id, now).await?)
}

/// The viewer of playback sessions in which an identity watches what is its own.
pub(crate) fn viewer(identity: &str) -> String {
    format!("key-{identity}")
}

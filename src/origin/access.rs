//! Who asks, and what they may see and change. Knows nothing of HTTP: `api::auth` finds out who asks, and
//! `api::refusal` says what a client is told.

use lyceum_catalog::{self as catalog, Course, Identity, Lesson, Role};
use lyceum_core::ids::Id;
use lyceum_storage::db::{DbError, Tx};

/// Why a caller gets no access.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    /// The caller's role may not do that.
    #[error("the role may not do that")]
    Forbidden,
    /// It does not exist, or it is another creator's: the two are not told apart, so that ids can't be probed.
    #[error("there is nothing here")]
    NotFound,
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What a caller is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    /// The key of a worker that this origin started: it is in no database.
    OwnWorker,
    /// The hash of an API key's secret.
    Secret([u8; 32]),
    /// The hash of a page's login.
    Login([u8; 32]),
}

/// Who asks, and what they showed.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) identity: Identity,
    pub(crate) credential: Credential,
}

/// The caller behind a credential that is good at `now`. What lasts longer than a request asks again.
pub(crate) async fn find_caller(tx: &mut Tx, credential: Credential, now: i64) -> Result<Option<Caller>, DbError> {
    let identity = match credential {
        Credential::OwnWorker => Some(own_worker()?),
        Credential::Secret(hash) => catalog::find_by_secret(tx, hash, now).await?.map(|(identity, _)| identity),
        Credential::Login(hash) => catalog::find_by_login(tx, hash, now).await?,
    };
    Ok(identity.map(|identity| Caller { identity, credential }))
}

fn own_worker() -> Result<Identity, DbError> {
    let id = Id::parse("ownworker").map_err(|error| DbError::Corrupt(error.to_string()))?;
    Ok(Identity { id, role: Role::Worker, name: "own worker".to_owned(), created: 0, quota: None })
}

impl Caller {
    /// The id of the caller's identity: owner of what they make, actor in the audit log.
    pub(crate) fn id(&self) -> &str {
        self.identity.id.as_str()
    }

    /// Admins may do whatever another role may.
    pub(crate) fn require_role(&self, roles: &[Role]) -> Result<(), AccessError> {
        if self.identity.role == Role::Admin || roles.contains(&self.identity.role) {
            Ok(())
        } else {
            Err(AccessError::Forbidden)
        }
    }

    /// What only admins may do.
    pub(crate) fn require_admin(&self) -> Result<(), AccessError> {
        self.require_role(&[])
    }

    /// The owner whose items alone this caller's lists show: creators see their own.
    pub(crate) fn list_filter(&self) -> Option<&str> {
        (self.identity.role == Role::Creator).then(|| self.id())
    }

    /// Admins and shops see everything, a creator only their own, and nothing that tells of others'.
    pub(crate) fn may_see(&self, owner: &str) -> Result<(), AccessError> {
        match self.identity.role {
            Role::Admin | Role::Shop => Ok(()),
            Role::Creator if self.id() == owner => Ok(()),
            _ => Err(AccessError::NotFound),
        }
    }

    /// The owner and admins may change what belongs to `owner`.
    pub(crate) fn may_change(&self, owner: &str) -> Result<(), AccessError> {
        self.may_see(owner)?;
        self.require_role(&[Role::Creator])
    }
}

/// A course that the caller may see.
pub(crate) async fn visible_course(tx: &mut Tx, caller: &Caller, id: &Id) -> Result<Course, AccessError> {
    let course = catalog::course(tx, id).await?.ok_or(AccessError::NotFound)?;
    caller.may_see(&course.owner)?;
    Ok(course)
}

/// A lesson that the caller may see.
pub(crate) async fn visible_lesson(tx: &mut Tx, caller: &Caller, id: &Id) -> Result<Lesson, AccessError> {
    let lesson = catalog::lesson(tx, id).await?.ok_or(AccessError::NotFound)?;
    caller.may_see(&lesson.owner)?;
    Ok(lesson)
}

/// A lesson that the caller may change.
pub(crate) async fn own_lesson(tx: &mut Tx, caller: &Caller, id: &Id) -> Result<Lesson, AccessError> {
    let lesson = visible_lesson(tx, caller, id).await?;
    caller.may_change(&lesson.owner)?;
    Ok(lesson)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(id: &str, role: Role) -> Caller {
        let id = Id::parse(id).unwrap();
        let identity = Identity { id, role, name: String::new(), created: 0, quota: None };
        Caller { identity, credential: Credential::Secret([0; 32]) }
    }

    #[test]
    fn creators_see_and_change_their_own_and_shops_only_see() {
        let [own, other, shop, admin, worker] =
            [("a", Role::Creator), ("b", Role::Creator), ("s", Role::Shop), ("x", Role::Admin), ("w", Role::Worker)]
                .map(|(id, role)| caller(id, role));
        assert!(own.may_change("a").is_ok() && admin.may_change("a").is_ok());
        assert!(matches!(shop.may_change("a"), Err(AccessError::Forbidden)));
        assert!(shop.may_see("a").is_ok());
        assert!(matches!(other.may_see("a"), Err(AccessError::NotFound)));
        assert!(matches!(worker.may_change("w"), Err(AccessError::NotFound)));
        assert!(admin.require_admin().is_ok() && own.require_admin().is_err());
        assert_eq!((own.list_filter(), shop.list_filter()), (Some("a"), None));
    }
}

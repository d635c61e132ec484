//! The first start: makes the admin and its secret.

use lyceum_catalog::{self as catalog, Identity, Role};
use lyceum_core::ids::Id;
use lyceum_core::time::Clock;
use lyceum_storage::db::{Db, DbError, Tx, next_number};

use crate::config::Secret;
use crate::identities::{self, IdentityError};

/// Under which the configured key is noted once it was applied.
const CONFIGURED: &str = "admin_key";

fn admin(id: &str, now: i64) -> Result<Identity, DbError> {
    let id = Id::parse(id).map_err(|error| DbError::Corrupt(error.to_string()))?;
    Ok(Identity { id, role: Role::Admin, name: "admin".to_owned(), created: now, quota: None })
}

/// Makes the configured key an admin's secret; without one, makes one at the first start and prints it once.
pub(crate) async fn admin_key(db: &Db, configured: Option<&Secret>, clock: &Clock) -> Result<(), DbError> {
    let mut tx = db.begin().await?;
    tx.lock("bootstrap", "admin").await?;
    let now = clock.unix_millis();
    match configured {
        Some(secret) => {
            apply(&mut tx, catalog::hash_secret(secret.expose()), now).await?;
            tx.commit().await
        }
        None => {
            if next_number(&mut tx, "first_start").await? > 1 {
                return Ok(());
            }
            let secret = match identities::create(&mut tx, &admin("firstadmin", now)?).await {
                Ok(secret) => secret,
                Err(IdentityError::Db(error)) => return Err(error),
                Err(other) => return Err(DbError::Corrupt(other.to_string())),
            };
            tx.commit().await?;
            // Not through the log, which is kept.
            eprintln!("The admin's API key, shown this once: {}", secret.text);
            Ok(())
        }
    }
}

/// Each value of the configured key is applied once: one that was removed or rotated out since, because it leaked, does
/// not come back with the next start, while another admin is left.
async fn apply(tx: &mut Tx, hash: [u8; 32], now: i64) -> Result<(), DbError> {
    let known = catalog::find_by_secret(tx, hash, now).await?.is_some_and(|(known, _)| known.role == Role::Admin);
    let applied = catalog::was_applied(tx, CONFIGURED, hash).await?;
    if !known && applied && catalog::count_lasting_admin_secrets(tx).await? > 0 {
        tracing::warn!("`admin_key` was removed through the API and is refused; remove it here, or set another");
        return Ok(());
    }
    // Several origins start over one database: nothing is written unless it changes.
    if !known {
        catalog::configure_admin_secret(tx, &admin("admin", now)?, hash, now).await?;
    }
    if !applied {
        catalog::note_applied(tx, CONFIGURED, hash).await?;
    }
    Ok(())
}

//! The first start: makes the admin's API key.

use lyceum_catalog::{self as catalog, ApiKey, Role};
use lyceum_core::ids::Id;
use lyceum_core::time::Clock;
use lyceum_storage::db::{Db, DbError, next_number};

use crate::config::Secret;

/// Makes the configured key the admin's; without one, makes one at the first start and prints it once.
pub(crate) async fn admin_key(db: &Db, configured: Option<&Secret>, clock: &Clock) -> Result<(), DbError> {
    let mut tx = db.begin().await?;
    tx.lock("bootstrap", "admin").await?;
    let key = |id: &str| -> Result<ApiKey, DbError> {
        let id = Id::parse(id).map_err(|error| DbError::Corrupt(error.to_string()))?;
        Ok(ApiKey { id, role: Role::Admin, name: "admin".to_owned(), created: clock.unix_millis(), quota: None })
    };
    match configured {
        Some(secret) => {
            let hash = catalog::hash_secret(secret.expose());
            // Several origins start over one database: nothing is written unless it changes.
            if catalog::find_api_key(&mut tx, hash).await?.is_none_or(|known| known.role != Role::Admin) {
                catalog::ensure_api_key(&mut tx, &key("admin")?, hash).await?;
            }
            tx.commit().await
        }
        None => {
            if next_number(&mut tx, "first_start").await? > 1 {
                return Ok(());
            }
            let secret = catalog::new_secret("lyk");
            catalog::add_api_key(&mut tx, &key("firstadmin")?, catalog::hash_secret(&secret)).await?;
            tx.commit().await?;
            // Not through the log, which is kept.
            eprintln!("The admin's API key, shown this once: {secret}");
            Ok(())
        }
    }
}

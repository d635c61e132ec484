//! API keys: made, listed, changed and removed by an admin; a secret is shown once.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Deserializer, Serialize};

use super::answer::{self, ApiResult};
use super::auth::Caller;
use super::extract::{self, Json, Path, Query};
use super::idempotency::Once;
use super::paging::Paging;
use super::refusal::Refusal;
use crate::state::App;
use lyceum_catalog::{self as catalog, ApiKey, Role};
use lyceum_core::ids::Id;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewKey {
    role: String,
    name: String,
    /// How many bytes of recordings it may keep.
    #[serde(default)]
    quota: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyChange {
    #[serde(default)]
    name: Option<String>,
    /// `null` takes the key's own quota away.
    #[serde(default, deserialize_with = "said")]
    quota: Option<Option<u64>>,
}

/// Tells a `null` from what is left out.
fn said<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(from).map(Some)
}

#[derive(Serialize)]
struct Shown {
    id: Id,
    role: &'static str,
    name: String,
    quota: Option<u64>,
}

fn shown(key: &ApiKey) -> Shown {
    Shown { id: key.id.clone(), role: key.role.as_str(), name: key.name.clone(), quota: key.quota }
}

/// A quota that the database can keep.
fn quota(bytes: Option<u64>) -> Result<Option<u64>, Refusal> {
    match bytes {
        Some(bytes) if i64::try_from(bytes).is_err() => Err(Refusal::Invalid("`quota` is too large.".to_owned())),
        bytes => Ok(bytes),
    }
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Once { value: new, repeat }: Once<NewKey>,
) -> ApiResult {
    caller.is(&[])?;
    let role: Role = new.role.parse().map_err(|what: &str| Refusal::Invalid(format!("{what}.")))?;
    let key = ApiKey {
        id: Id::random(),
        role,
        name: extract::title(&new.name)?,
        created: app.clock.unix_millis(),
        quota: quota(new.quota)?,
    };
    let secret = catalog::new_secret("lyk");
    let mut tx = app.db.begin().await?;
    if let Some(answer) = repeat.answered(&mut tx, &caller).await? {
        return Ok(answer);
    }
    catalog::add_api_key(&mut tx, &key, catalog::hash_secret(&secret)).await?;
    catalog::add_audit_entry(
        &mut tx,
        key.created,
        caller.key.id.as_str(),
        "key.create",
        key.id.as_str(),
        role.as_str(),
    )
    .await?;
    let mut body = serde_json::json!(shown(&key));
    let mut show = |secret: serde_json::Value| body.as_object_mut().map(|body| body.insert("key".to_owned(), secret));
    // The secret is kept nowhere, so that a second answer can't show it.
    show(serde_json::Value::Null);
    repeat.keep(&mut tx, &caller, StatusCode::CREATED, &body, key.created).await?;
    tx.commit().await?;
    tracing::info!(key = %key.id, role = role.as_str(), "API key made");
    if let Some(shown) = body.get_mut("key") {
        *shown = secret.into();
    }
    Ok((StatusCode::CREATED, axum::Json(body)).into_response())
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(paging): Query<Paging>,
    headers: HeaderMap,
) -> ApiResult {
    caller.is(&[])?;
    let most = app.config().api.page;
    let keys = catalog::api_keys(&mut app.db.read().await?, &paging.page(most)?).await?;
    paging.show(&headers, most, keys, |key| (key.created, key.id.as_str()), |key| shown(&key))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    caller.is(&[])?;
    let key = catalog::api_key(&mut app.db.read().await?, &extract::id(&id)?).await?.ok_or(Refusal::NotFound)?;
    answer::tagged(StatusCode::OK, &headers, &shown(&key))
}

pub(super) async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(new): Json<KeyChange>,
) -> ApiResult {
    caller.is(&[])?;
    let name = new.name.as_deref().map(extract::title).transpose()?;
    let mut tx = app.db.begin().await?;
    tx.lock("key", &id).await?;
    let key = catalog::api_key(&mut tx, &extract::id(&id)?).await?.ok_or(Refusal::NotFound)?;
    answer::unchanged(&headers, &shown(&key))?;
    let key = ApiKey { name: name.unwrap_or(key.name), quota: new.quota.map_or(Ok(key.quota), quota)?, ..key };
    catalog::change_api_key(&mut tx, &key).await?;
    let detail = key.quota.map_or_else(|| "no quota".to_owned(), |bytes| format!("quota {bytes}"));
    catalog::add_audit_entry(&mut tx, app.clock.unix_millis(), caller.key.id.as_str(), "key.change", &id, &detail)
        .await?;
    tx.commit().await?;
    answer::tagged(StatusCode::OK, &HeaderMap::new(), &shown(&key))
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    caller.is(&[])?;
    let mut tx = app.db.begin().await?;
    tx.lock("key", &id).await?;
    let key = catalog::api_key(&mut tx, &extract::id(&id)?).await?.ok_or(Refusal::NotFound)?;
    answer::unchanged(&headers, &shown(&key))?;
    catalog::delete_api_key(&mut tx, &key.id).await?;
    catalog::add_audit_entry(&mut tx, app.clock.unix_millis(), caller.key.id.as_str(), "key.delete", &id, "").await?;
    tx.commit().await?;
    tracing::info!(key = id, by = %caller.key.id, "API key removed");
    Ok(StatusCode::NO_CONTENT.into_response())
}

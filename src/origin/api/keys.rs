//! API keys: identities with their first secrets, created, listed, changed and removed by an admin. The secret is in the
//! answer to its creation alone; further ones are [`super::secrets`]'.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::answer::{self, ApiResult};
use super::description::{self, IdempotencyKey, IfMatch, IfNoneMatch};
use super::extract::{self, Json, Path};
use super::idempotency::Once;
use super::paging::{List, PageBody, PageQuery};
use super::refusal::Refusal;
use crate::access::Caller;
use crate::change::{Change, Wake};
use crate::identities;
use crate::state::App;
use lyceum_catalog::{self as catalog, Identity, Role};
use lyceum_core::ids::Id;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewKey {
    #[schema(value_type = description::Role)]
    role: String,
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// How many bytes of recordings it may keep.
    #[serde(default)]
    quota: Option<u64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyChange {
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// `null` removes the quota of the key.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    quota: Option<Option<u64>>,
}

/// Tells `null` (`Some(None)`) from a member that is left out (`None`).
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A key as the API describes it: without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
pub(super) struct KeyBody {
    #[schema(value_type = description::Id)]
    id: Id,
    #[schema(value_type = description::Role)]
    role: &'static str,
    name: String,
    /// How many bytes of recordings it may keep; null: no quota of its own.
    #[schema(required)]
    quota: Option<u64>,
}

fn describe(key: &Identity) -> KeyBody {
    KeyBody { id: key.id.clone(), role: key.role.as_str(), name: key.name.clone(), quota: key.quota }
}

/// A key that was created.
#[derive(Serialize, ToSchema)]
pub(super) struct CreatedKey {
    #[serde(flatten)]
    shown: KeyBody,
    /// The secret; null in the answer to a repetition.
    #[schema(required)]
    key: Option<String>,
}

/// A quota that fits into the database.
fn quota(bytes: Option<u64>) -> Result<Option<u64>, Refusal> {
    match bytes {
        Some(bytes) if i64::try_from(bytes).is_err() => Err(Refusal::Invalid("`quota` is too large.".to_owned())),
        bytes => Ok(bytes),
    }
}

/// Create an API key; its secret is shown only here.
#[utoipa::path(
    post,
    path = "/v1/keys",
    operation_id = "createKey",
    tag = "keys",
    params(IdempotencyKey),
    request_body = NewKey,
    responses((status = 201, description = "The key.", body = CreatedKey))
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Once { value: new, repeat }: Once<NewKey>,
) -> ApiResult {
    caller.require_admin()?;
    let role: Role = new.role.parse().map_err(|what: &str| Refusal::Invalid(format!("{what}.")))?;
    let key = Identity {
        id: Id::random(),
        role,
        name: extract::title(&new.name)?,
        created: app.clock.unix_millis(),
        quota: quota(new.quota)?,
    };
    let mut change = Change::begin(&app, &caller).await?;
    if let Some(answer) = repeat.answered(&mut change.tx, &caller).await? {
        return Ok(answer);
    }
    let secret = identities::create(&mut change.tx, &key).await?;
    change.note("key.create", key.id.as_str(), role.as_str()).await?;
    // The secret is stored nowhere, so a repetition of the request can't show it.
    let body = CreatedKey { shown: describe(&key), key: None };
    repeat.keep(&mut change.tx, &caller, StatusCode::CREATED, &body, key.created).await?;
    change.commit(&[]).await?;
    tracing::info!(key = %key.id, role = role.as_str(), "API key created");
    answer::json(StatusCode::CREATED, &CreatedKey { key: Some(secret.text), ..body })
}

/// API keys, without their secrets.
#[utoipa::path(
    get,
    path = "/v1/keys",
    operation_id = "listKeys",
    tag = "keys",
    params(PageQuery, IfNoneMatch),
    responses((status = 200, description = "A page of keys.", body = PageBody<KeyBody>))
)]
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller, list: List) -> ApiResult {
    caller.require_admin()?;
    let keys = catalog::identities(&mut app.db.read().await?, &list.page).await?;
    list.show(keys, |key| (key.created, key.id.as_str()), |key| describe(&key))
}

/// One API key.
#[utoipa::path(
    get,
    path = "/v1/keys/{id}",
    operation_id = "getKey",
    tag = "keys",
    params(("id" = description::Id, Path, description = "A key."), IfNoneMatch),
    responses((status = 200, description = "The key.", body = KeyBody))
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    caller.require_admin()?;
    let key = catalog::identity(&mut app.db.read().await?, &extract::id(&id)?).await?.ok_or(Refusal::NotFound)?;
    answer::shown(&headers, &describe(&key))
}

/// Rename a key, or give it another quota.
#[utoipa::path(
    patch,
    path = "/v1/keys/{id}",
    operation_id = "changeKey",
    tag = "keys",
    params(("id" = description::Id, Path, description = "A key."), IfMatch),
    request_body = KeyChange,
    responses((status = 200, description = "The key as it is now.", body = KeyBody))
)]
pub(super) async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(new): Json<KeyChange>,
) -> ApiResult {
    caller.require_admin()?;
    let name = new.name.as_deref().map(extract::title).transpose()?;
    let mut change = Change::begin(&app, &caller).await?;
    let key = identities::lock(&mut change.tx, &extract::id(&id)?).await?;
    answer::unchanged(&headers, &describe(&key))?;
    let key = Identity { name: name.unwrap_or(key.name), quota: new.quota.map_or(Ok(key.quota), quota)?, ..key };
    catalog::change_identity(&mut change.tx, &key).await?;
    let detail = key.quota.map_or_else(|| "no quota".to_owned(), |bytes| format!("quota {bytes}"));
    change.note("key.change", &id, &detail).await?;
    change.commit(&[]).await?;
    answer::changed(&describe(&key))
}

/// Delete an API key: its secrets, logins and playback end with it.
///
/// Its courses stay for an admin to transfer.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    operation_id = "deleteKey",
    tag = "keys",
    params(("id" = description::Id, Path, description = "A key."), IfMatch),
    responses((status = 204, description = "It is deleted."))
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    caller.require_admin()?;
    let mut change = Change::begin(&app, &caller).await?;
    let key = identities::lock(&mut change.tx, &extract::id(&id)?).await?;
    answer::unchanged(&headers, &describe(&key))?;
    let now = change.now();
    let ended = identities::remove(&mut change.tx, &key, now).await?;
    change.note("key.delete", &id, "").await?;
    change.commit(if ended > 0 { &[Wake::Revocations] } else { &[] }).await?;
    tracing::info!(key = id, by = caller.id(), "API key removed");
    Ok(StatusCode::NO_CONTENT.into_response())
}

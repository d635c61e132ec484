//! The secrets of API keys: listed, added, rotated and removed by an admin. A key keeps its id, and so its courses,
//! whatever becomes of its secrets.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{self, ApiResult};
use super::description::{self, IdempotencyKey, IfNoneMatch};
use super::extract::{self, Path};
use super::idempotency::{Once, Repeat};
use super::instant::Instant;
use super::paging::{List, PageBody, PageQuery};
use super::refusal::Refusal;
use super::rfc3339;
use crate::access::Caller;
use crate::change::Change;
use crate::identities::{self, NewSecret};
use crate::state::App;
use lyceum_catalog::{self as catalog, Secret};
use lyceum_core::ids::Id;
use lyceum_core::units::Span;

/// The body of `POST /v1/keys/{id}/secrets`.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewSecret)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSecretBody {
    /// When it ends; without one, it does not end by itself.
    #[serde(default)]
    #[schema(value_type = Option<description::Instant>)]
    expires: Option<Instant>,
}

/// The body of `POST /v1/keys/{id}/rotate`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    /// How long the secrets before stay good: from 0s, the default, to 90d.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    overlap: Option<Span>,
}

/// The longest overlap.
const MAX_OVERLAP: std::time::Duration = std::time::Duration::from_secs(90 * 24 * 3600);

/// A secret as the API describes it: without what is secret of it.
#[derive(Serialize, ToSchema)]
#[schema(as = Secret)]
pub(super) struct SecretBody {
    #[schema(value_type = description::Id)]
    id: Id,
    #[schema(format = DateTime)]
    created_at: String,
    /// Null: it does not end by itself.
    #[schema(required, format = DateTime)]
    expires_at: Option<String>,
}

/// A secret that was just made.
#[derive(Serialize, ToSchema)]
pub(super) struct MadeSecret<'a> {
    #[serde(flatten)]
    secret: SecretBody,
    /// Itself, shown this once: it is stored nowhere, so a repetition of the request can't show it.
    #[schema(required)]
    key: Option<&'a str>,
}

fn describe(secret: &Secret) -> SecretBody {
    SecretBody {
        id: secret.id.clone(),
        created_at: rfc3339::format(secret.created),
        expires_at: secret.expires.map(rfc3339::format),
    }
}

/// The secrets of an API key that have not ended.
#[utoipa::path(
    get,
    path = "/v1/keys/{id}/secrets",
    operation_id = "listSecrets",
    tag = "keys",
    params(("id" = description::Id, Path, description = "A key."), PageQuery, IfNoneMatch),
    responses((status = 200, description = "A page of secrets.", body = PageBody<SecretBody>))
)]
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller, Path(id): Path<String>, list: List) -> ApiResult {
    caller.require_admin()?;
    let now = app.clock.unix_millis();
    let mut tx = app.db.read().await?;
    let key = catalog::identity(&mut tx, &extract::id(&id)?).await?.ok_or(Refusal::NotFound)?;
    let secrets = catalog::secrets_of(&mut tx, &key.id, now, &list.page).await?;
    list.show(secrets, |secret| (secret.created, secret.id.as_str()), |secret| describe(&secret))
}

/// Add a secret to an API key, beside those that it has; it is shown only here.
#[utoipa::path(
    post,
    path = "/v1/keys/{id}/secrets",
    operation_id = "addSecret",
    tag = "keys",
    params(("id" = description::Id, Path, description = "A key."), IdempotencyKey),
    request_body = NewSecretBody,
    responses((status = 201, description = "The secret.", body = MadeSecret<'_>))
)]
pub(super) async fn add(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Once { value: new, repeat }: Once<NewSecretBody>,
) -> ApiResult {
    caller.require_admin()?;
    let expires = new.expires.map(Instant::millis);
    let mut change = Change::begin(&app, &caller).await?;
    if let Some(answer) = repeat.answered(&mut change.tx, &caller).await? {
        return Ok(answer);
    }
    let (now, limit) = (change.now(), app.config().api.secrets);
    let key = identities::lock(&mut change.tx, &extract::id(&id)?).await?;
    let secret = identities::give_secret(&mut change.tx, &key, expires, limit, now).await?;
    change.note("key.secret.add", &id, secret.kept.id.as_str()).await?;
    made(change, &caller, &repeat, &secret).await
}

/// Give an API key a new secret; those before end, at once or after `overlap`.
#[utoipa::path(
    post,
    path = "/v1/keys/{id}/rotate",
    operation_id = "rotateKey",
    tag = "keys",
    params(("id" = description::Id, Path, description = "A key."), IdempotencyKey),
    request_body = Rotation,
    responses((status = 201, description = "The secret.", body = MadeSecret<'_>))
)]
pub(super) async fn rotate(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Once { value: wanted, repeat }: Once<Rotation>,
) -> ApiResult {
    caller.require_admin()?;
    let overlap = wanted.overlap.map_or(std::time::Duration::ZERO, Span::get);
    if overlap > MAX_OVERLAP {
        return Err(Refusal::Invalid("`overlap` is a time from 0s to 90d.".to_owned()));
    }
    let mut change = Change::begin(&app, &caller).await?;
    if let Some(answer) = repeat.answered(&mut change.tx, &caller).await? {
        return Ok(answer);
    }
    let (now, limit) = (change.now(), app.config().api.secrets);
    let key = identities::lock(&mut change.tx, &extract::id(&id)?).await?;
    let overlap = i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX);
    let secret = identities::rotate(&mut change.tx, &key, overlap, limit, now).await?;
    change.note("key.rotate", &id, secret.kept.id.as_str()).await?;
    made(change, &caller, &repeat, &secret).await
}

/// Commits, and answers with the secret.
async fn made(
    mut change: Change<'_>,
    caller: &Caller,
    repeat: &Repeat,
    secret: &NewSecret,
) -> Result<Response, Refusal> {
    let made = |key| MadeSecret { secret: describe(&secret.kept), key };
    let now = change.now();
    repeat.keep(&mut change.tx, caller, StatusCode::CREATED, &made(None), now).await?;
    change.commit(&[]).await?;
    answer::json(StatusCode::CREATED, &made(Some(&secret.text)))
}

/// Delete a secret: it is refused from then on, with the logins that it opened.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}/secrets/{secret}",
    operation_id = "deleteSecret",
    tag = "keys",
    params(
        ("id" = description::Id, Path, description = "A key."),
        ("secret" = description::Id, Path, description = "A secret of it.")
    ),
    responses((status = 204, description = "It is deleted."))
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((id, secret)): Path<(String, String)>,
) -> ApiResult {
    caller.require_admin()?;
    let secret = extract::id(&secret)?;
    let mut change = Change::begin(&app, &caller).await?;
    let key = identities::lock(&mut change.tx, &extract::id(&id)?).await?;
    identities::remove_secret(&mut change.tx, &key, &secret).await?;
    change.note("key.secret.remove", &id, secret.as_str()).await?;
    change.commit(&[]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

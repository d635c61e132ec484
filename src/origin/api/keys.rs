//! API keys: made, listed and removed by an admin; a secret is shown once.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Answer;
use crate::catalog::{self, ApiKey, Role};
use crate::ids::Id;
use crate::origin::App;
use crate::origin::auth::Caller;
use crate::origin::error::Refusal;
use crate::origin::request::{self, Once};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewKey {
    role: String,
    name: String,
}

#[derive(Serialize)]
struct Shown {
    id: Id,
    role: &'static str,
    name: String,
}

fn shown(key: ApiKey) -> Shown {
    Shown { id: key.id, role: key.role.as_str(), name: key.name }
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Once { value: new, repeat }: Once<NewKey>,
) -> Answer {
    caller.is(&[])?;
    let role: Role = new.role.parse().map_err(|what: &str| Refusal::Invalid(format!("{what}.")))?;
    let key = ApiKey { id: Id::random(), role, name: request::title(&new.name)?, created: app.clock.unix_millis() };
    let secret = catalog::new_secret("lyk");
    let mut tx = app.db.begin().await?;
    if let Some(answer) = repeat.answered(&mut tx, &caller).await? {
        return Ok(answer);
    }
    catalog::add_key(&mut tx, &key, catalog::hash_secret(&secret)).await?;
    catalog::note(&mut tx, key.created, caller.key.id.as_str(), "key.create", key.id.as_str(), role.as_str()).await?;
    let mut body = serde_json::json!({ "id": key.id, "role": role.as_str(), "name": key.name, "key": null });
    // The secret is kept nowhere, so that a second answer can't show it.
    repeat.keep(&mut tx, &caller, StatusCode::CREATED, &body, key.created).await?;
    tx.commit().await?;
    tracing::info!(key = %key.id, role = role.as_str(), "API key made");
    if let Some(shown) = body.get_mut("key") {
        *shown = secret.into();
    }
    Ok((StatusCode::CREATED, axum::Json(body)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    after: Option<String>,
}

pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller, Query(query): Query<After>) -> Answer {
    caller.is(&[])?;
    let limit = i64::try_from(app.config().api.page).unwrap_or(i64::MAX);
    let mut tx = app.db.read().await?;
    let keys = catalog::keys(&mut tx, query.after.as_deref().unwrap_or(""), limit).await?;
    let full = keys.len() as u64 == app.config().api.page;
    let next = keys.last().filter(|_| full).map(|key| key.id.to_string());
    let items: Vec<_> = keys.into_iter().map(shown).collect();
    Ok(axum::Json(serde_json::json!({ "items": items, "next": next })).into_response())
}

pub(super) async fn remove(State(app): State<Arc<App>>, caller: Caller, Path(id): Path<String>) -> Answer {
    caller.is(&[])?;
    let mut tx = app.db.begin().await?;
    if !catalog::delete_key(&mut tx, &request::id(&id)?).await? {
        return Err(Refusal::NotFound);
    }
    catalog::note(&mut tx, app.clock.unix_millis(), caller.key.id.as_str(), "key.delete", &id, "").await?;
    tx.commit().await?;
    tracing::info!(key = id, by = %caller.key.id, "API key removed");
    Ok(StatusCode::NO_CONTENT.into_response())
}

//! Lessons: shown, changed, deleted, and tried again when they failed.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, ApiResult};
use super::extract::{self, Json, Path};
use super::idempotency::Repeat;
use super::refusal::Refusal;
use crate::access::{Caller, visible_lesson};
use crate::change::{Change, Wake};
use crate::ingest::{cleanup, failure};
use crate::state::App;
use lyceum_catalog::{self as catalog, Lesson, VersionState};
use lyceum_core::ids::Id;
use lyceum_packaging::info::MediaInfo;
use lyceum_storage::db::Tx;
use lyceum_storage::upload;

/// A change of a lesson; what is left out stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    encrypt: Option<bool>,
}

/// A lesson as the API describes it: its own fields, and the state of its newest and its serving version.
pub(super) async fn describe(tx: &mut Tx, lesson: &Lesson) -> Result<Value, Refusal> {
    let newest = match &lesson.newest {
        Some(id) => catalog::version(tx, id).await?,
        None => None,
    };
    let serving = match (&lesson.serving, &newest) {
        (Some(id), Some(newest)) if *id == newest.id => Some(newest.clone()),
        (Some(id), _) => catalog::version(tx, id).await?,
        (None, _) => None,
    };
    let state = match (&lesson.uploading, &newest) {
        (Some(_), _) => "uploading",
        (None, None) => "awaiting_upload",
        (None, Some(version)) => version.state.as_str(),
    };
    let progress = match (&lesson.uploading, &newest) {
        (Some(upload), _) => upload_progress(tx, upload).await?,
        (None, Some(version)) => version.progress,
        (None, None) => 0.0,
    };
    let visible = serving.as_ref().or(newest.as_ref());
    let renditions: Value = visible
        .map(|version| serde_json::from_str(&version.renditions))
        .transpose()
        .map_err(|error| Refusal::Internal(format!("a version's renditions: {error}")))?
        .unwrap_or_else(|| json!([]));
    let warnings = match &visible {
        Some(version) => warnings(tx, &version.id).await?,
        None => Vec::new(),
    };
    let failed = newest.as_ref().filter(|version| lesson.uploading.is_none() && version.state == VersionState::Failed);
    let error = failed.and_then(|version| version.error.as_ref());
    Ok(json!({
        "id": lesson.id,
        "course": lesson.course,
        "title": lesson.title,
        "state": state,
        "playable": serving.as_ref().is_some_and(|version| version.playable),
        "progress": progress,
        "duration": visible.and_then(|version| version.duration).map(|ms| ms as f64 / 1000.0),
        "renditions": renditions,
        "error": error.map(|(code, detail)| json!({ "code": code, "detail": detail })),
        "warnings": warnings,
        "version": visible.map(|version| version.id.clone()),
        "encrypt": lesson.encrypt,
    }))
}

/// What the creator should know about a recording that was transcoded nevertheless: codes and sentences.
async fn warnings(tx: &mut Tx, version: &Id) -> Result<Vec<Value>, Refusal> {
    let Some(media) = catalog::media_of(tx, version).await? else { return Ok(Vec::new()) };
    let media: MediaInfo =
        serde_json::from_str(&media).map_err(|error| Refusal::Internal(format!("a version's media: {error}")))?;
    Ok(media.warning_sentences().map(|(code, detail)| json!({ "code": code, "detail": detail })).collect())
}

async fn upload_progress(tx: &mut Tx, upload: &Id) -> Result<f64, Refusal> {
    let Some((received, length)) = upload::lengths(tx, upload).await? else { return Ok(0.0) };
    Ok(length.filter(|length| *length > 0).map_or(0.0, |length| received as f64 / length as f64))
}

/// `GET /v1/lessons/{id}`.
pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    let mut tx = app.db.read().await?;
    let lesson = visible_lesson(&mut tx, &caller, &extract::id(&id)?).await?;
    answer::tagged(StatusCode::OK, &headers, &describe(&mut tx, &lesson).await?)
}

/// `PATCH /v1/lessons/{id}`.
pub(super) async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(new): Json<Patch>,
) -> ApiResult {
    let title = new.title.as_deref().map(extract::title).transpose()?;
    let mut change = Change::begin(&app, &caller).await?;
    let lesson = change.lock_lesson(&extract::id(&id)?).await?;
    answer::unchanged(&headers, &describe(&mut change.tx, &lesson).await?)?;
    let changed = Lesson {
        title: title.unwrap_or_else(|| lesson.title.clone()),
        encrypt: new.encrypt.unwrap_or(lesson.encrypt),
        ..lesson
    };
    catalog::change_lesson(&mut change.tx, &changed).await?;
    change.note("lesson.change", changed.id.as_str(), &changed.title).await?;
    let json = describe(&mut change.tx, &changed).await?;
    change.commit(&[Wake::Lessons]).await?;
    answer::tagged(StatusCode::OK, &HeaderMap::new(), &json)
}

/// `DELETE /v1/lessons/{id}`: its playback ends at once.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    let mut change = Change::begin(&app, &caller).await?;
    let lesson = change.lock_lesson(&extract::id(&id)?).await?;
    answer::unchanged(&headers, &describe(&mut change.tx, &lesson).await?)?;
    cleanup::delete_lesson(&app.ingest, &mut change.tx, caller.id(), &lesson.id).await?;
    change.commit(&[Wake::Revocations, Wake::Lessons]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/lessons/{id}/retry`: another try at a lesson that failed.
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    let repeat = Repeat::of(&headers, &format!("POST /v1/lessons/{id}/retry"))?;
    let mut change = Change::begin(&app, &caller).await?;
    let lesson = change.lock_lesson(&extract::id(&id)?).await?;
    if let Some(answer) = repeat.answered(&mut change.tx, &caller).await? {
        return Ok(answer);
    }
    failure::retry(&app.ingest, &mut change.tx, &lesson, caller.id()).await?;
    let json = describe(&mut change.tx, &lesson).await?;
    let now = change.now();
    repeat.keep(&mut change.tx, &caller, StatusCode::ACCEPTED, &json, now).await?;
    change.commit(&[Wake::Lessons]).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json)).into_response())
}

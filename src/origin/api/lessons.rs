//! Lessons: shown, changed, deleted, and tried again when they failed.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{self, ApiResult};
use super::description::{self, IdempotencyKey, IfMatch, IfNoneMatch};
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
#[derive(Deserialize, ToSchema)]
#[schema(as = LessonChange)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    title: Option<String>,
    #[serde(default)]
    encrypt: Option<bool>,
}

/// How far a lesson has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum LessonState {
    AwaitingUpload,
    Uploading,
    Queued,
    Transcoding,
    Ready,
    Failed,
}

impl From<VersionState> for LessonState {
    fn from(state: VersionState) -> Self {
        match state {
            VersionState::Queued => Self::Queued,
            VersionState::Transcoding => Self::Transcoding,
            VersionState::Ready => Self::Ready,
            VersionState::Failed => Self::Failed,
        }
    }
}

/// A rendition that the lesson plays in.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(as = Rendition)]
struct RenditionBody {
    /// Pixels of the shorter side.
    height: u32,
    codec: String,
    /// Bits per second: the encoder's cap, then the measured peak.
    bandwidth: u64,
}

/// What happened to a recording, as a stable code and a sentence.
#[derive(Serialize, ToSchema)]
struct Finding {
    code: String,
    detail: String,
}

/// A lesson as the API describes it.
#[derive(Serialize, ToSchema)]
#[schema(as = Lesson)]
pub(super) struct LessonBody {
    #[schema(value_type = description::Id)]
    id: Id,
    #[schema(value_type = description::Id)]
    course: Id,
    title: String,
    pub(super) state: LessonState,
    /// Whether a player can begin.
    playable: bool,
    /// From 0 to 1: of the upload, then of the transcoding.
    #[schema(minimum = 0, maximum = 1)]
    progress: f64,
    /// Seconds.
    #[schema(required)]
    duration: Option<f64>,
    renditions: Vec<RenditionBody>,
    /// Why it failed.
    #[schema(required)]
    error: Option<Finding>,
    /// What its creator should know although it was transcoded.
    warnings: Vec<Finding>,
    /// The version that plays, else the newest.
    #[schema(required, value_type = Option<description::Id>)]
    version: Option<Id>,
    encrypt: bool,
}

/// A lesson's own fields, and the state of its newest and its serving version.
pub(super) async fn describe(tx: &mut Tx, lesson: &Lesson) -> Result<LessonBody, Refusal> {
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
        (Some(_), _) => LessonState::Uploading,
        (None, None) => LessonState::AwaitingUpload,
        (None, Some(version)) => version.state.into(),
    };
    let progress = match (&lesson.uploading, &newest) {
        (Some(upload), _) => upload_progress(tx, upload).await?,
        (None, Some(version)) => version.progress,
        (None, None) => 0.0,
    };
    let visible = serving.as_ref().or(newest.as_ref());
    let renditions = visible.map(|version| serde_json::from_str(&version.renditions));
    let renditions: Option<Vec<RenditionBody>> =
        renditions.transpose().map_err(|error| Refusal::Internal(format!("a version's renditions: {error}")))?;
    let warnings = match &visible {
        Some(version) => warnings(tx, &version.id).await?,
        None => Vec::new(),
    };
    let failed = newest.as_ref().filter(|version| lesson.uploading.is_none() && version.state == VersionState::Failed);
    let error = failed.and_then(|version| version.error.clone());
    Ok(LessonBody {
        id: lesson.id.clone(),
        course: lesson.course.clone(),
        title: lesson.title.clone(),
        state,
        playable: serving.as_ref().is_some_and(|version| version.playable),
        progress,
        duration: visible.and_then(|version| version.duration).map(|ms| ms as f64 / 1000.0),
        renditions: renditions.unwrap_or_default(),
        error: error.map(|(code, detail)| Finding { code, detail }),
        warnings,
        version: visible.map(|version| version.id.clone()),
        encrypt: lesson.encrypt,
    })
}

/// What the creator should know about a recording that was transcoded nevertheless: codes and sentences.
async fn warnings(tx: &mut Tx, version: &Id) -> Result<Vec<Finding>, Refusal> {
    let Some(media) = catalog::media_of(tx, version).await? else { return Ok(Vec::new()) };
    let media: MediaInfo =
        serde_json::from_str(&media).map_err(|error| Refusal::Internal(format!("a version's media: {error}")))?;
    let finding = |(code, detail): (&str, &str)| Finding { code: code.to_owned(), detail: detail.to_owned() };
    Ok(media.warning_sentences().map(finding).collect())
}

async fn upload_progress(tx: &mut Tx, upload: &Id) -> Result<f64, Refusal> {
    let Some((received, length)) = upload::lengths(tx, upload).await? else { return Ok(0.0) };
    Ok(length.filter(|length| *length > 0).map_or(0.0, |length| received as f64 / length as f64))
}

/// One lesson.
#[utoipa::path(
    get,
    path = "/v1/lessons/{id}",
    operation_id = "getLesson",
    tag = "lessons",
    params(("id" = description::Id, Path, description = "A lesson."), IfNoneMatch),
    responses((status = 200, description = "The lesson.", body = LessonBody))
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    let mut tx = app.db.read().await?;
    let lesson = visible_lesson(&mut tx, &caller, &extract::id(&id)?).await?;
    answer::shown(&headers, &describe(&mut tx, &lesson).await?)
}

/// Rename a lesson, or say whether later uploads are encrypted.
#[utoipa::path(
    patch,
    path = "/v1/lessons/{id}",
    operation_id = "changeLesson",
    tag = "lessons",
    params(("id" = description::Id, Path, description = "A lesson."), IfMatch),
    request_body = Patch,
    responses((status = 200, description = "The lesson as it is now.", body = LessonBody))
)]
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
    let body = describe(&mut change.tx, &changed).await?;
    change.commit(&[Wake::Lessons]).await?;
    answer::changed(&body)
}

/// Delete a lesson: its playback ends at once.
#[utoipa::path(
    delete,
    path = "/v1/lessons/{id}",
    operation_id = "deleteLesson",
    tag = "lessons",
    params(("id" = description::Id, Path, description = "A lesson."), IfMatch),
    responses((status = 204, description = "It is deleted."))
)]
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

/// Try a lesson that failed again, from where its work stopped.
#[utoipa::path(
    post,
    path = "/v1/lessons/{id}/retry",
    operation_id = "retryLesson",
    tag = "lessons",
    params(("id" = description::Id, Path, description = "A lesson."), IdempotencyKey),
    responses((status = 202, description = "The lesson, which is worked on again.", body = LessonBody))
)]
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
    let body = describe(&mut change.tx, &lesson).await?;
    let now = change.now();
    repeat.keep(&mut change.tx, &caller, StatusCode::ACCEPTED, &body, now).await?;
    change.commit(&[Wake::Lessons]).await?;
    answer::json(StatusCode::ACCEPTED, &body)
}

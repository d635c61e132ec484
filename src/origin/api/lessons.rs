//! A lesson as the API tells it, and the stream of its changes (server-sent events, the HTML standard, section 9.2).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::answer::{self, ApiResult};
use super::auth::Caller;
use super::extract::{self, Json, Path};
use super::idempotency::Repeat;
use super::refusal::Refusal;
use crate::ingest::{cleanup, failure};
use crate::state::App;
use lyceum_catalog::{self as catalog, Lesson, VersionState};
use lyceum_core::ids::Id;
use lyceum_core::time::monotonic;
use lyceum_packaging::MediaInfo;
use lyceum_storage::db::Tx;
use lyceum_storage::upload;

/// A silent stream says so after this long, so that proxies and the front don't take it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A change of a course or lesson: what is left out stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    #[serde(default)]
    pub(super) title: Option<String>,
    #[serde(default)]
    pub(super) encrypt: Option<bool>,
}

/// The lesson as the API tells it.
pub(super) async fn tell(tx: &mut Tx, lesson: &Lesson) -> Result<Value, Refusal> {
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
    let shown = serving.as_ref().or(newest.as_ref());
    let renditions: Value = shown
        .map(|version| serde_json::from_str(&version.renditions))
        .transpose()
        .map_err(|error| Refusal::Internal(format!("a version's renditions: {error}")))?
        .unwrap_or_else(|| json!([]));
    let warnings = match &shown {
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
        "duration": shown.and_then(|version| version.duration).map(|ms| ms as f64 / 1000.0),
        "renditions": renditions,
        "error": error.map(|(code, detail)| json!({ "code": code, "detail": detail })),
        "warnings": warnings,
        "version": shown.map(|version| version.id.clone()),
        "encrypt": lesson.encrypt,
    }))
}

/// What the creator should know of a recording that was made into a lesson all the same: codes and sentences.
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

/// A lesson that the caller may see.
pub(super) async fn visible(tx: &mut Tx, caller: &Caller, id: &str) -> Result<Lesson, Refusal> {
    let lesson = catalog::lesson(tx, &extract::id(id)?).await?.ok_or(Refusal::NotFound)?;
    caller.sees(&lesson.owner)?;
    Ok(lesson)
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    let mut tx = app.db.read().await?;
    let lesson = visible(&mut tx, &caller, &id).await?;
    answer::tagged(StatusCode::OK, &headers, &tell(&mut tx, &lesson).await?)
}

pub(super) async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(new): Json<Change>,
) -> ApiResult {
    let title = new.title.as_deref().map(extract::title).transpose()?;
    let mut tx = app.db.begin().await?;
    tx.lock("lesson", &id).await?;
    let lesson = visible(&mut tx, &caller, &id).await?;
    caller.owns(&lesson.owner)?;
    answer::unchanged(&headers, &tell(&mut tx, &lesson).await?)?;
    let changed = Lesson {
        title: title.unwrap_or_else(|| lesson.title.clone()),
        encrypt: new.encrypt.unwrap_or(lesson.encrypt),
        ..lesson
    };
    catalog::change_lesson(&mut tx, &changed).await?;
    let (now, actor) = (app.clock.unix_millis(), caller.key.id.as_str());
    catalog::add_audit_entry(&mut tx, now, actor, "lesson.change", changed.id.as_str(), &changed.title).await?;
    let json = tell(&mut tx, &changed).await?;
    tx.commit().await?;
    app.ingest.changed.notify_waiters();
    answer::tagged(StatusCode::OK, &HeaderMap::new(), &json)
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    let mut tx = app.db.begin().await?;
    tx.lock("lesson", &id).await?;
    let lesson = visible(&mut tx, &caller, &id).await?;
    caller.owns(&lesson.owner)?;
    answer::unchanged(&headers, &tell(&mut tx, &lesson).await?)?;
    cleanup::delete_lesson(&app.ingest, &mut tx, caller.key.id.as_str(), &lesson.id).await?;
    tx.commit().await?;
    app.revoked.notify_waiters();
    app.ingest.changed.notify_waiters();
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
    let mut tx = app.db.begin().await?;
    tx.lock("lesson", &id).await?;
    let lesson = visible(&mut tx, &caller, &id).await?;
    caller.owns(&lesson.owner)?;
    if let Some(answer) = repeat.answered(&mut tx, &caller).await? {
        return Ok(answer);
    }
    failure::retry(&app.ingest, &mut tx, &lesson, caller.key.id.as_str()).await?;
    let json = tell(&mut tx, &lesson).await?;
    repeat.keep(&mut tx, &caller, StatusCode::ACCEPTED, &json, app.clock.unix_millis()).await?;
    tx.commit().await?;
    app.ingest.changed.notify_waiters();
    Ok((StatusCode::ACCEPTED, axum::Json(json)).into_response())
}

/// Everything about the lesson, whenever it changes, until it is ready or has failed.
pub(super) async fn events(State(app): State<Arc<App>>, caller: Caller, Path(id): Path<String>) -> ApiResult {
    let permit = app.waiting.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
    let mut tx = app.db.read().await?;
    let lesson = visible(&mut tx, &caller, &id).await?;
    drop(tx);
    let follow = Follow { app, lesson: lesson.id, told: None, revision: None, done: false, _permit: permit };
    let stream = futures_util::stream::unfold(follow, |mut follow| async move {
        let event = follow.next().await?;
        Some((Ok::<_, Infallible>(event), follow))
    });
    let mut response = Response::new(Body::from_stream(stream.fuse()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that gather answers would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Follow {
    app: Arc<App>,
    lesson: Id,
    told: Option<String>,
    revision: Option<i64>,
    done: bool,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Follow {
    /// The next event; `None` when there will be no more.
    async fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let app = self.app.clone();
        let quiet_until = monotonic() + KEEP_ALIVE;
        loop {
            if app.shutdown.is_draining() {
                return None;
            }
            let changed = app.ingest.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.look().await {
                Ok(Some(event)) => return Some(event),
                Ok(None) if self.done => return None,
                Ok(None) => {}
                // The page asks again; a stream that ends in silence tells it to.
                Err(error) => {
                    tracing::debug!(lesson = %self.lesson, %error, "an event stream ends");
                    return None;
                }
            }
            if monotonic() >= quiet_until {
                return Some(Bytes::from_static(b": still here\n\n"));
            }
            // Another origin's changes are not heard, only seen.
            tokio::select! {
                _ = timeout(app.config().api.look.get(), changed) => {}
                () = app.shutdown.draining() => {}
            }
            // Changes come in bursts; one event tells of several.
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn look(&mut self) -> Result<Option<Bytes>, Refusal> {
        let mut tx = self.app.db.read().await?;
        // An upload's progress does not raise the revision, so while one runs the lesson is told anew each time.
        let Some(revision) = catalog::lesson_revision(&mut tx, &self.lesson).await? else {
            self.done = true;
            return Ok(None);
        };
        let Some(lesson) = catalog::lesson(&mut tx, &self.lesson).await? else { return Ok(None) };
        if self.revision == Some(revision) && lesson.uploading.is_none() {
            return Ok(None);
        }
        self.revision = Some(revision);
        let value = tell(&mut tx, &lesson).await?;
        let text = value.to_string();
        if self.told.as_deref() == Some(&text) {
            return Ok(None);
        }
        self.done = matches!(value.get("state").and_then(Value::as_str), Some("ready" | "failed"));
        let event = format!("event: lesson\nid: {revision}\ndata: {text}\n\n");
        self.told = Some(text);
        Ok(Some(event.into()))
    }
}

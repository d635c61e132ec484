//! Sidecar subtitles: a creator's `.srt` or `.vtt` becomes a track of the lesson, also of one that is finished.
//!
//! A version's objects never change, so a file that replaces another becomes a track of another name. Subtitles that are
//! embedded in a recording are made by a task and can't be replaced here. Subtitles belong to the version that they were
//! uploaded to; a new recording begins without any.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, ApiResult};
use super::extract;
use super::extract::{Path, Query};
use super::refusal::Refusal;
use crate::access::{Caller, own_lesson, visible_lesson};
use crate::ingest::object_keys::object_key;
use crate::state::App;
use lyceum_catalog::{self as catalog, Lesson, StoredObject, Version, VersionState};
use lyceum_packaging::subtitles::{self, MAX_FILE_BYTES};
use lyceum_packaging::track::{TrackPlan, whole_path};
use lyceum_packaging::webvtt::Cue;
use lyceum_packaging::{ObjectIndex, Plan, TaskSpec, TrackKind, handover, render};
use lyceum_storage::db::Tx;

/// How often a change of the plan is tried while others change it at the same time.
const MAX_TRIES: usize = 5;
/// How many names the track of one language may go through.
const MAX_TRACK_NAMES: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrackQuery {
    /// What players call the track; by default the name of its language.
    #[serde(default)]
    title: String,
}

/// Checks that a language tag has the form of BCP 47.
fn language_tag(text: &str) -> Result<&str, Refusal> {
    let parts =
        text.split('-').all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()));
    if parts && (2..=35).contains(&text.len()) {
        return Ok(text);
    }
    Err(Refusal::Invalid("A language is a tag such as `en` or `pt-BR`.".to_owned()))
}

/// The version that subtitles are added to, with its plan and the revision of that.
struct Planned {
    lesson: Lesson,
    version: Version,
    plan: Plan,
    replanned: i64,
}

async fn planned(tx: &mut Tx, caller: &Caller, lesson: &str) -> Result<Planned, Refusal> {
    let lesson = visible_lesson(tx, caller, &extract::id(lesson)?).await?;
    for id in [lesson.newest.clone(), lesson.serving.clone()].into_iter().flatten() {
        let Some(version) = catalog::version(tx, &id).await?.filter(|version| version.state != VersionState::Failed)
        else {
            continue;
        };
        if let (Some((_, plan)), Some((_, replanned))) =
            (catalog::plan_of(tx, &id).await?, catalog::revisions(tx, &id).await?)
        {
            let plan = serde_json::from_str(&plan).map_err(|error| Refusal::Internal(format!("a plan: {error}")))?;
            return Ok(Planned { lesson, version, plan, replanned });
        }
    }
    Err(Refusal::NotPlanned)
}

fn tag(track: &TrackPlan) -> Option<&str> {
    match &track.kind {
        TrackKind::Subtitles { language, .. } => Some(language),
        _ => None,
    }
}

/// Whether a track was uploaded as a file: those embedded in the recording are some task's.
fn is_sidecar(plan: &Plan, track: &TrackPlan) -> bool {
    let embedded = plan.tasks.iter().any(|task| match &task.spec {
        TaskSpec::Subtitles(task) => task.tracks.iter().any(|stream| stream.track.name == track.name),
        _ => false,
    });
    track.is_text() && !embedded
}

/// The normal form of a language tag, as the plan writes it.
fn normalized(plan: &Plan, language: &str) -> Option<String> {
    let mut alone = Plan { tracks: Vec::new(), tasks: Vec::new(), ..plan.clone() };
    alone.add_subtitles(language, "").as_ref().and_then(tag).map(str::to_owned)
}

/// Removes the sidecar track of a language from the plan; false if there was none.
fn remove_sidecar(plan: &mut Plan, language: &str) -> bool {
    let Some(wanted) = normalized(plan, language) else { return false };
    let removed: Vec<String> = plan
        .tracks
        .iter()
        .filter(|track| tag(track) == Some(&wanted) && is_sidecar(plan, track))
        .map(|track| track.name.clone())
        .collect();
    plan.tracks.retain(|track| !removed.contains(&track.name));
    !removed.is_empty()
}

fn describe(plan: &Plan) -> Value {
    let describe_track = |track: &TrackPlan| match &track.kind {
        TrackKind::Subtitles { language, label, .. } => {
            Some(json!({ "language": language, "title": label, "embedded": !is_sidecar(plan, track) }))
        }
        _ => None,
    };
    json!({ "items": plan.tracks.iter().filter_map(describe_track).collect::<Vec<_>>(), "next": null })
}

/// `GET /v1/lessons/{id}/subtitles`.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    let planned = planned(&mut app.db.read().await?, &caller, &id).await?;
    answer::tagged(StatusCode::OK, &headers, &describe(&planned.plan))
}

/// `PUT /v1/lessons/{id}/subtitles/{language}`: adds the file, or replaces the one that was there.
pub(super) async fn put(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((id, language)): Path<(String, String)>,
    Query(query): Query<TrackQuery>,
    body: Body,
) -> ApiResult {
    let language = language_tag(&language)?;
    let title = if query.title.is_empty() { String::new() } else { extract::title(&query.title)? };
    own_lesson(&mut app.db.read().await?, &caller, &extract::id(&id)?).await?;
    let bytes = extract::read_body(body, MAX_FILE_BYTES).await?;
    let cues = tokio::task::spawn_blocking(move || subtitles::parse(&bytes)).await;
    let cues = cues.map_err(|error| Refusal::Internal(error.to_string()))?.map_err(Refusal::Subtitles)?;
    for _ in 0..MAX_TRIES {
        if let Some(plan) = add(&app, &caller, &id, (language, &title), &cues).await? {
            app.ingest.changed.notify_waiters();
            return Ok(axum::Json(describe(&plan)).into_response());
        }
    }
    Err(Refusal::Busy)
}

/// One try; `None` if the plan was changed meanwhile.
async fn add(
    app: &App,
    caller: &Caller,
    lesson: &str,
    (language, title): (&str, &str),
    cues: &[Cue],
) -> Result<Option<Plan>, Refusal> {
    let mut tx = app.db.read().await?;
    let Planned { lesson, version, mut plan, replanned } = planned(&mut tx, caller, lesson).await?;
    remove_sidecar(&mut plan, language);
    let mut track = plan.add_subtitles(language, title);
    let track = track
        .as_mut()
        .ok_or_else(|| Refusal::Unprocessable("A lesson has at most 32 tracks of subtitles.".to_owned()))?;
    let first = track.name.clone();
    for number in 2..MAX_TRACK_NAMES {
        if !catalog::has_object(&mut tx, &version.id, &whole_path(&track.name)).await? {
            break;
        }
        track.name = format!("{first}-{number}");
    }
    drop(tx);
    if let Some(last) = plan.tracks.last_mut() {
        last.name.clone_from(&track.name);
    }
    let objects = subtitles::objects(&plan.grid, track, cues);
    let mut kept = Vec::with_capacity(objects.len());
    let mut handovers = Vec::with_capacity(objects.len());
    for (handover, bytes) in objects {
        let key = object_key(&lesson.id, &version.id, &handover.path)?;
        app.store.put_bytes(&key, handover::content_type(&handover.path), bytes.into()).await?;
        let json = serde_json::to_string(&handover).map_err(|error| Refusal::Internal(error.to_string()))?;
        kept.push(StoredObject { path: handover.path.clone(), bytes: handover.bytes, handover: json });
        handovers.push(handover);
    }
    // If the lesson is still being transcoded, this is stored again at its end, with the other playlists.
    if let Some(text) = render::media_playlist(&ObjectIndex::new(&plan, &handovers), &track.name) {
        let path = format!("{}/index.m3u8", track.name);
        let key = object_key(&lesson.id, &version.id, &path)?;
        app.store.put_bytes(&key, handover::content_type(&path), text.into()).await?;
    }
    let text = serde_json::to_string(&plan).map_err(|error| Refusal::Internal(error.to_string()))?;
    let mut tx = app.db.begin().await?;
    tx.lock("version", version.id.as_str()).await?;
    if !catalog::replan(&mut tx, &version.id, &text, replanned).await? {
        return Ok(None);
    }
    catalog::add_objects(&mut tx, &version.id, &kept).await?;
    catalog::bump_lesson_revision(&mut tx, &lesson.id).await?;
    let (now, actor) = (app.clock.unix_millis(), caller.id());
    catalog::add_audit_entry(&mut tx, now, actor, "subtitles.put", lesson.id.as_str(), language).await?;
    tx.commit().await?;
    Ok(Some(plan))
}

/// `DELETE /v1/lessons/{id}/subtitles/{language}`.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((id, language)): Path<(String, String)>,
) -> ApiResult {
    let language = language_tag(&language)?;
    let mut tx = app.db.begin().await?;
    let Planned { lesson, version, mut plan, replanned } = planned(&mut tx, &caller, &id).await?;
    caller.may_change(&lesson.owner)?;
    tx.lock("version", version.id.as_str()).await?;
    if !remove_sidecar(&mut plan, language) {
        return Err(Refusal::NotFound);
    }
    let text = serde_json::to_string(&plan).map_err(|error| Refusal::Internal(error.to_string()))?;
    if !catalog::replan(&mut tx, &version.id, &text, replanned).await? {
        return Err(Refusal::Busy);
    }
    catalog::bump_lesson_revision(&mut tx, &lesson.id).await?;
    let (now, actor) = (app.clock.unix_millis(), caller.id());
    catalog::add_audit_entry(&mut tx, now, actor, "subtitles.delete", lesson.id.as_str(), language).await?;
    tx.commit().await?;
    app.ingest.changed.notify_waiters();
    Ok(StatusCode::NO_CONTENT.into_response())
}

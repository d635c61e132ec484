//! Sidecar subtitles over HTTP; the rules are [`crate::ingest::subtitles`]'s.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{self, ApiResult};
use super::description::{self, IfNoneMatch};
use super::extract::{self, Path, Query};
use super::paging::PageBody;
use crate::access::Caller;
use crate::ingest::subtitles::{self, LanguageTag};
use crate::state::App;
use lyceum_packaging::subtitles::MAX_FILE_BYTES;
use lyceum_packaging::track::TrackPlan;
use lyceum_packaging::{Plan, TrackKind};

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct TrackQuery {
    /// What players call the track; by default the name of its language.
    #[serde(default)]
    #[param(required = false, max_length = 200)]
    title: String,
}

/// Subtitles of one language.
#[derive(Serialize, ToSchema)]
#[schema(as = Subtitles)]
pub(super) struct SubtitleBody {
    /// A tag of BCP 47.
    language: String,
    /// What players call them.
    title: String,
    /// Whether they are part of the recording; those can't be replaced.
    embedded: bool,
}

/// All subtitles of a plan: it has so few that one page holds them.
fn describe(plan: &Plan) -> PageBody<SubtitleBody> {
    let describe_track = |track: &TrackPlan| match &track.kind {
        TrackKind::Subtitles { language, label, .. } => Some(SubtitleBody {
            language: language.clone(),
            title: label.clone(),
            embedded: !subtitles::is_sidecar(plan, track),
        }),
        _ => None,
    };
    PageBody { items: plan.tracks.iter().filter_map(describe_track).collect(), next: None }
}

/// A lesson's subtitles.
#[utoipa::path(
    get,
    path = "/v1/lessons/{id}/subtitles",
    operation_id = "listSubtitles",
    tag = "subtitles",
    params(("id" = description::Id, Path, description = "A lesson."), IfNoneMatch),
    responses((status = 200, description = "All of them.", body = PageBody<SubtitleBody>))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    let plan = subtitles::plan(&app.ingest, &caller, &extract::id(&id)?).await?;
    answer::shown(&headers, &describe(&plan))
}

/// Add subtitles of a language or replace them: SubRip or WebVTT.
#[utoipa::path(
    put,
    path = "/v1/lessons/{id}/subtitles/{language}",
    operation_id = "putSubtitles",
    tag = "subtitles",
    params(
        ("id" = description::Id, Path, description = "A lesson."),
        ("language" = String, Path, description = "A tag of BCP 47."),
        TrackQuery
    ),
    request_body(
        content(
            (inline(description::Bytes) = "text/vtt"),
            (inline(description::Bytes) = "application/x-subrip"),
            (inline(description::Bytes) = "application/octet-stream")
        ),
        description = "The file; it is read by what is in it."
    ),
    responses((status = 200, description = "All subtitles of the lesson.", body = PageBody<SubtitleBody>))
)]
pub(super) async fn put(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((id, language)): Path<(String, String)>,
    Query(query): Query<TrackQuery>,
    body: Body,
) -> ApiResult {
    let (lesson, language) = (extract::id(&id)?, LanguageTag::parse(&language)?);
    let title = if query.title.is_empty() { String::new() } else { extract::title(&query.title)? };
    subtitles::may_add(&app.ingest, &caller, &lesson).await?;
    let file = extract::read_body(body, MAX_FILE_BYTES).await?;
    let plan = subtitles::add(&app.ingest, &caller, &lesson, (language, &title), file).await?;
    answer::json(StatusCode::OK, &describe(&plan))
}

/// Remove subtitles.
#[utoipa::path(
    delete,
    path = "/v1/lessons/{id}/subtitles/{language}",
    operation_id = "deleteSubtitles",
    tag = "subtitles",
    params(
        ("id" = description::Id, Path, description = "A lesson."),
        ("language" = String, Path, description = "A tag of BCP 47.")
    ),
    responses((status = 204, description = "They are removed."))
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((id, language)): Path<(String, String)>,
) -> ApiResult {
    let language = LanguageTag::parse(&language)?;
    subtitles::remove(&app.ingest, &caller, &extract::id(&id)?, language).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

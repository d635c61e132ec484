//! Courses and the lists of their lessons.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::answer::{self, ApiResult};
use super::auth::Caller;
use super::extract::{self, Json, Path, Query};
use super::idempotency::Once;
use super::lessons::{self, Change};
use super::paging::Paging;
use super::refusal::Refusal;
use crate::ingest::cleanup;
use crate::state::App;
use lyceum_catalog::{self as catalog, Course, NewLesson, Role};
use lyceum_core::ids::Id;
use lyceum_storage::db::Tx;

/// A new course or lesson.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Titled {
    title: String,
    /// Whether it is encrypted; without a word, as what it belongs to.
    #[serde(default)]
    encrypt: Option<bool>,
}

#[derive(Serialize)]
struct Shown {
    id: Id,
    title: String,
    encrypt: bool,
}

fn shown(app: &App, course: &Course) -> Shown {
    let encrypt = course.encrypt.unwrap_or(app.config().encryption.default);
    Shown { id: course.id.clone(), title: course.title.clone(), encrypt }
}

/// A course that the caller may see.
async fn visible(tx: &mut Tx, caller: &Caller, id: &str) -> Result<Course, Refusal> {
    let course = catalog::course(tx, &extract::id(id)?).await?.ok_or(Refusal::NotFound)?;
    caller.sees(&course.owner)?;
    Ok(course)
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Once { value: new, repeat }: Once<Titled>,
) -> ApiResult {
    caller.is(&[Role::Creator])?;
    let course = Course {
        id: Id::random(),
        title: extract::title(&new.title)?,
        owner: caller.key.id.to_string(),
        created: app.clock.unix_millis(),
        encrypt: new.encrypt,
    };
    let mut tx = app.db.begin().await?;
    if let Some(answer) = repeat.answered(&mut tx, &caller).await? {
        return Ok(answer);
    }
    catalog::add_course(&mut tx, &course).await?;
    catalog::add_audit_entry(
        &mut tx,
        course.created,
        &course.owner,
        "course.create",
        course.id.as_str(),
        &course.title,
    )
    .await?;
    let body = serde_json::json!(shown(&app, &course));
    repeat.keep(&mut tx, &caller, StatusCode::CREATED, &body, course.created).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, axum::Json(body)).into_response())
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(paging): Query<Paging>,
    headers: HeaderMap,
) -> ApiResult {
    caller.is(&[Role::Creator, Role::Shop])?;
    let most = app.config().api.page;
    let mut tx = app.db.read().await?;
    let courses = catalog::courses(&mut tx, caller.narrowed(), &paging.page(most)?).await?;
    paging.show(&headers, most, courses, |course| (course.created, course.id.as_str()), |course| shown(&app, &course))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    let mut tx = app.db.read().await?;
    let course = visible(&mut tx, &caller, &id).await?;
    answer::tagged(StatusCode::OK, &headers, &shown(&app, &course))
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
    tx.lock("course", &id).await?;
    let course = visible(&mut tx, &caller, &id).await?;
    caller.owns(&course.owner)?;
    answer::unchanged(&headers, &shown(&app, &course))?;
    let changed = Course {
        title: title.unwrap_or_else(|| course.title.clone()),
        encrypt: new.encrypt.or(course.encrypt),
        ..course
    };
    catalog::change_course(&mut tx, &changed).await?;
    let (now, actor) = (app.clock.unix_millis(), caller.key.id.as_str());
    catalog::add_audit_entry(&mut tx, now, actor, "course.change", changed.id.as_str(), &changed.title).await?;
    tx.commit().await?;
    answer::tagged(StatusCode::OK, &HeaderMap::new(), &shown(&app, &changed))
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    let mut tx = app.db.begin().await?;
    tx.lock("course", &id).await?;
    let course = visible(&mut tx, &caller, &id).await?;
    caller.owns(&course.owner)?;
    answer::unchanged(&headers, &shown(&app, &course))?;
    let (now, actor) = (app.clock.unix_millis(), caller.key.id.as_str());
    catalog::mark_course_deleted(&mut tx, &course.id, now).await?;
    catalog::add_audit_entry(&mut tx, now, actor, "course.delete", course.id.as_str(), &course.title).await?;
    // A course of any usual size is gone with this commit; of a larger one, the rest follows in the background.
    cleanup::delete_lessons_of(&app.ingest, &mut tx, actor, &course.id).await?;
    tx.commit().await?;
    app.revoked.notify_waiters();
    app.ingest.changed.notify_waiters();
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn lessons(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(paging): Query<Paging>,
    headers: HeaderMap,
) -> ApiResult {
    let most = app.config().api.page;
    let mut tx = app.db.read().await?;
    let course = visible(&mut tx, &caller, &id).await?;
    let mut shown = Vec::new();
    for lesson in catalog::lessons(&mut tx, &course.id, &paging.page(most)?).await? {
        let json = lessons::tell(&mut tx, &lesson).await?;
        shown.push((lesson, json));
    }
    paging.show(&headers, most, shown, |(lesson, _)| (lesson.created, lesson.id.as_str()), |(_, json)| json)
}

pub(super) async fn add_lesson(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Once { value: new, repeat }: Once<Titled>,
) -> ApiResult {
    let title = extract::title(&new.title)?;
    let mut tx = app.db.begin().await?;
    tx.lock("course", &id).await?;
    let course = visible(&mut tx, &caller, &id).await?;
    caller.owns(&course.owner)?;
    if let Some(answer) = repeat.answered(&mut tx, &caller).await? {
        return Ok(answer);
    }
    let now = app.clock.unix_millis();
    let encrypt = new.encrypt.or(course.encrypt).unwrap_or(app.config().encryption.default);
    let new = NewLesson { id: Id::random(), course: course.id, title, owner: course.owner, encrypt };
    catalog::add_lesson(&mut tx, &new, now).await?;
    catalog::add_audit_entry(&mut tx, now, caller.key.id.as_str(), "lesson.create", new.id.as_str(), &new.title)
        .await?;
    let lesson = catalog::lesson(&mut tx, &new.id).await?.ok_or(Refusal::NotFound)?;
    let json = lessons::tell(&mut tx, &lesson).await?;
    repeat.keep(&mut tx, &caller, StatusCode::CREATED, &json, now).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, axum::Json(json)).into_response())
}

//! Courses and the lists of their lessons.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Answer;
use crate::catalog::{self, Course, NewLesson, Role};
use crate::db::Tx;
use crate::ids::Id;
use crate::origin::App;
use crate::origin::auth::Caller;
use crate::origin::error::Refusal;
use crate::origin::lessons;
use crate::origin::request::{self, Json, Once, Paging};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::origin) struct Titled {
    pub(in crate::origin) title: String,
}

#[derive(Serialize)]
struct Shown {
    id: Id,
    title: String,
}

fn shown(course: Course) -> Shown {
    Shown { id: course.id, title: course.title }
}

/// A course that the caller may see.
async fn visible(tx: &mut Tx, caller: &Caller, id: &str) -> Result<Course, Refusal> {
    let course = catalog::course(tx, &request::id(id)?).await?.ok_or(Refusal::NotFound)?;
    caller.sees(&course.owner)?;
    Ok(course)
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Once { value: new, repeat }: Once<Titled>,
) -> Answer {
    caller.is(&[Role::Creator])?;
    let course = Course {
        id: Id::random(),
        title: request::title(&new.title)?,
        owner: caller.key.id.to_string(),
        created: app.clock.unix_millis(),
    };
    let mut tx = app.db.begin().await?;
    if let Some(answer) = repeat.answered(&mut tx, &caller).await? {
        return Ok(answer);
    }
    catalog::add_course(&mut tx, &course).await?;
    catalog::note(&mut tx, course.created, &course.owner, "course.create", course.id.as_str(), &course.title).await?;
    let body = serde_json::json!({ "id": course.id, "title": course.title });
    repeat.keep(&mut tx, &caller, StatusCode::CREATED, &body, course.created).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, axum::Json(body)).into_response())
}

pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller, Query(paging): Query<Paging>) -> Answer {
    caller.is(&[Role::Creator, Role::Shop])?;
    let most = app.config().api.page;
    let mut tx = app.db.read().await?;
    let courses = catalog::courses(&mut tx, caller.narrowed(), &paging.page(most)?).await?;
    Ok(paging.show(most, courses, |course| (course.created, &course.id), shown))
}

pub(super) async fn show(State(app): State<Arc<App>>, caller: Caller, Path(id): Path<String>) -> Answer {
    let mut tx = app.db.read().await?;
    Ok(axum::Json(shown(visible(&mut tx, &caller, &id).await?)).into_response())
}

pub(super) async fn rename(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Json(new): Json<Titled>,
) -> Answer {
    let title = request::title(&new.title)?;
    let mut tx = app.db.begin().await?;
    let course = visible(&mut tx, &caller, &id).await?;
    caller.owns(&course.owner)?;
    catalog::rename_course(&mut tx, &course.id, &title).await?;
    let (now, actor) = (app.clock.unix_millis(), caller.key.id.as_str());
    catalog::note(&mut tx, now, actor, "course.rename", course.id.as_str(), &title).await?;
    tx.commit().await?;
    Ok(axum::Json(shown(Course { title, ..course })).into_response())
}

/// Lessons that are taken along in one transaction when a course is removed.
const LESSONS_AT_ONCE: i64 = 10_000;

pub(super) async fn remove(State(app): State<Arc<App>>, caller: Caller, Path(id): Path<String>) -> Answer {
    let mut tx = app.db.begin().await?;
    let course = visible(&mut tx, &caller, &id).await?;
    caller.owns(&course.owner)?;
    let page = catalog::Page { after: (0, String::new()), limit: LESSONS_AT_ONCE };
    for lesson in catalog::lessons(&mut tx, &course.id, &page).await? {
        lessons::delete(&app, &mut tx, &caller, &lesson.id).await?;
    }
    catalog::delete_course(&mut tx, &course.id).await?;
    let (now, actor) = (app.clock.unix_millis(), caller.key.id.as_str());
    catalog::note(&mut tx, now, actor, "course.delete", course.id.as_str(), &course.title).await?;
    tx.commit().await?;
    app.revoked.notify_waiters();
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn lessons(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(paging): Query<Paging>,
) -> Answer {
    let most = app.config().api.page;
    let mut tx = app.db.read().await?;
    let course = visible(&mut tx, &caller, &id).await?;
    let mut shown = Vec::new();
    for lesson in catalog::lessons(&mut tx, &course.id, &paging.page(most)?).await? {
        let json = lessons::tell(&mut tx, &lesson).await?;
        shown.push((lesson, json));
    }
    Ok(paging.show(most, shown, |(lesson, _)| (lesson.created, &lesson.id), |(_, json)| json))
}

pub(super) async fn add_lesson(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Once { value: new, repeat }: Once<Titled>,
) -> Answer {
    let title = request::title(&new.title)?;
    let mut tx = app.db.begin().await?;
    let course = visible(&mut tx, &caller, &id).await?;
    caller.owns(&course.owner)?;
    if let Some(answer) = repeat.answered(&mut tx, &caller).await? {
        return Ok(answer);
    }
    let now = app.clock.unix_millis();
    let new = NewLesson { id: Id::random(), course: course.id, title, owner: course.owner };
    catalog::add_lesson(&mut tx, &new, now).await?;
    catalog::note(&mut tx, now, caller.key.id.as_str(), "lesson.create", new.id.as_str(), &new.title).await?;
    let lesson = catalog::lesson(&mut tx, &new.id).await?.ok_or(Refusal::NotFound)?;
    let json = lessons::tell(&mut tx, &lesson).await?;
    repeat.keep(&mut tx, &caller, StatusCode::CREATED, &json, now).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, axum::Json(json)).into_response())
}

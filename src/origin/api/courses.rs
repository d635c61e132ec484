//! Courses and the lists of their lessons.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{self, ApiResult};
use super::description::{self, IdempotencyKey, IfMatch, IfNoneMatch};
use super::extract::{self, Json, Path};
use super::idempotency::Once;
use super::lessons::{self, LessonBody};
use super::paging::{List, PageBody, PageQuery};
use super::refusal::Refusal;
use crate::access::{Caller, visible_course};
use crate::change::{Change, Wake};
use crate::identities::{self, IdentityError};
use crate::ingest::cleanup;
use crate::state::App;
use lyceum_catalog::{self as catalog, Course, NewLesson, Role};
use lyceum_core::ids::Id;

/// A new course or lesson.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Titled {
    #[schema(min_length = 1, max_length = 200)]
    title: String,
    /// Whether lessons are encrypted; the default is that of the course, then that of the configuration.
    #[serde(default)]
    encrypt: Option<bool>,
}

/// A change of a course; what is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[schema(as = CourseChange)]
#[serde(deny_unknown_fields)]
pub(super) struct CoursePatch {
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    title: Option<String>,
    #[serde(default)]
    encrypt: Option<bool>,
    /// The id of the key that it belongs to from now on; for admins.
    #[serde(default)]
    #[schema(value_type = Option<description::Id>)]
    owner: Option<String>,
}

/// A course as the API describes it.
#[derive(Serialize, ToSchema)]
#[schema(as = Course)]
pub(super) struct CourseBody {
    #[schema(value_type = description::Id)]
    id: Id,
    title: String,
    /// Whether its new lessons are encrypted.
    encrypt: bool,
    /// The id of the key that it belongs to.
    #[schema(value_type = description::Id)]
    owner: String,
}

fn describe(app: &App, course: &Course) -> CourseBody {
    let encrypt = course.encrypt.unwrap_or(app.config().encryption.default);
    CourseBody { id: course.id.clone(), title: course.title.clone(), encrypt, owner: course.owner.clone() }
}

/// Create a course.
#[utoipa::path(
    post,
    path = "/v1/courses",
    operation_id = "createCourse",
    tag = "courses",
    params(IdempotencyKey),
    request_body = Titled,
    responses((status = 201, description = "The course.", body = CourseBody))
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Once { value: new, repeat }: Once<Titled>,
) -> ApiResult {
    caller.require_role(&[Role::Creator])?;
    let course = Course {
        id: Id::random(),
        title: extract::title(&new.title)?,
        owner: caller.identity.id.to_string(),
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
    let body = describe(&app, &course);
    repeat.keep(&mut tx, &caller, StatusCode::CREATED, &body, course.created).await?;
    tx.commit().await?;
    answer::json(StatusCode::CREATED, &body)
}

/// Courses; a creator gets their own.
#[utoipa::path(
    get,
    path = "/v1/courses",
    operation_id = "listCourses",
    tag = "courses",
    params(PageQuery, IfNoneMatch),
    responses((status = 200, description = "A page of courses.", body = PageBody<CourseBody>))
)]
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller, list: List) -> ApiResult {
    caller.require_role(&[Role::Creator, Role::Shop])?;
    let mut tx = app.db.read().await?;
    let courses = catalog::courses(&mut tx, caller.list_filter(), &list.page).await?;
    list.show(courses, |course| (course.created, course.id.as_str()), |course| describe(&app, &course))
}

/// One course.
#[utoipa::path(
    get,
    path = "/v1/courses/{id}",
    operation_id = "getCourse",
    tag = "courses",
    params(("id" = description::Id, Path, description = "A course."), IfNoneMatch),
    responses((status = 200, description = "The course.", body = CourseBody))
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    let mut tx = app.db.read().await?;
    let course = visible_course(&mut tx, &caller, &extract::id(&id)?).await?;
    answer::shown(&headers, &describe(&app, &course))
}

/// Rename a course, say whether its new lessons are encrypted, or give it to another owner.
#[utoipa::path(
    patch,
    path = "/v1/courses/{id}",
    operation_id = "changeCourse",
    tag = "courses",
    params(("id" = description::Id, Path, description = "A course."), IfMatch),
    request_body = CoursePatch,
    responses((status = 200, description = "The course as it is now.", body = CourseBody))
)]
pub(super) async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(new): Json<CoursePatch>,
) -> ApiResult {
    let title = new.title.as_deref().map(extract::title).transpose()?;
    let mut change = Change::begin(&app, &caller).await?;
    let mut course = change.lock_course(&extract::id(&id)?).await?;
    answer::unchanged(&headers, &describe(&app, &course))?;
    let mut ended = 0;
    if let Some(owner) = new.owner.filter(|owner| *owner != course.owner) {
        caller.require_admin()?;
        let owner = Id::parse(&owner).map_err(|_| IdentityError::NotAnOwner)?;
        let now = change.now();
        ended = identities::transfer(&mut change.tx, &course, &owner, now).await.map_err(unknown_owner)?;
        change.note("course.transfer", course.id.as_str(), &format!("{} to {owner}", course.owner)).await?;
        course.owner = owner.into();
    }
    let changed = Course {
        title: title.unwrap_or_else(|| course.title.clone()),
        encrypt: new.encrypt.or(course.encrypt),
        ..course
    };
    catalog::change_course(&mut change.tx, &changed).await?;
    change.note("course.change", changed.id.as_str(), &changed.title).await?;
    change.commit(if ended > 0 { &[Wake::Revocations] } else { &[] }).await?;
    answer::changed(&describe(&app, &changed))
}

/// A new owner that is not there is a wrong value of the request, not a course that is not there.
fn unknown_owner(error: IdentityError) -> IdentityError {
    if matches!(error, IdentityError::Unknown) { IdentityError::NotAnOwner } else { error }
}

/// Delete a course with its lessons.
#[utoipa::path(
    delete,
    path = "/v1/courses/{id}",
    operation_id = "deleteCourse",
    tag = "courses",
    params(("id" = description::Id, Path, description = "A course."), IfMatch),
    responses((status = 204, description = "It is deleted."))
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    let mut change = Change::begin(&app, &caller).await?;
    let course = change.lock_course(&extract::id(&id)?).await?;
    answer::unchanged(&headers, &describe(&app, &course))?;
    let now = change.now();
    catalog::mark_course_deleted(&mut change.tx, &course.id, now).await?;
    change.note("course.delete", course.id.as_str(), &course.title).await?;
    // A course of any usual size is gone with this commit; of a larger one, the rest follows in the background.
    cleanup::delete_lessons_of(&app.ingest, &mut change.tx, caller.id(), &course.id).await?;
    change.commit(&[Wake::Revocations, Wake::Lessons]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A course's lessons.
#[utoipa::path(
    get,
    path = "/v1/courses/{id}/lessons",
    operation_id = "listLessons",
    tag = "lessons",
    params(("id" = description::Id, Path, description = "A course."), PageQuery, IfNoneMatch),
    responses((status = 200, description = "A page of lessons.", body = PageBody<LessonBody>))
)]
pub(super) async fn lessons(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    list: List,
) -> ApiResult {
    let mut tx = app.db.read().await?;
    let course = visible_course(&mut tx, &caller, &extract::id(&id)?).await?;
    let mut described = Vec::new();
    for lesson in catalog::lessons(&mut tx, &course.id, &list.page).await? {
        let body = lessons::describe(&mut tx, &lesson).await?;
        described.push((lesson, body));
    }
    list.show(described, |(lesson, _)| (lesson.created, lesson.id.as_str()), |(_, body)| body)
}

/// Create a lesson.
#[utoipa::path(
    post,
    path = "/v1/courses/{id}/lessons",
    operation_id = "createLesson",
    tag = "lessons",
    params(("id" = description::Id, Path, description = "A course."), IdempotencyKey),
    request_body = Titled,
    responses((status = 201, description = "The lesson.", body = LessonBody))
)]
pub(super) async fn add_lesson(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Once { value: new, repeat }: Once<Titled>,
) -> ApiResult {
    let title = extract::title(&new.title)?;
    let mut change = Change::begin(&app, &caller).await?;
    let course = change.lock_course(&extract::id(&id)?).await?;
    if let Some(answer) = repeat.answered(&mut change.tx, &caller).await? {
        return Ok(answer);
    }
    let now = change.now();
    let encrypt = new.encrypt.or(course.encrypt).unwrap_or(app.config().encryption.default);
    let new = NewLesson { id: Id::random(), course: course.id, title, owner: course.owner, encrypt };
    catalog::add_lesson(&mut change.tx, &new, now).await?;
    change.note("lesson.create", new.id.as_str(), &new.title).await?;
    let lesson = catalog::lesson(&mut change.tx, &new.id).await?.ok_or(Refusal::NotFound)?;
    let body = lessons::describe(&mut change.tx, &lesson).await?;
    repeat.keep(&mut change.tx, &caller, StatusCode::CREATED, &body, now).await?;
    change.commit(&[]).await?;
    answer::json(StatusCode::CREATED, &body)
}

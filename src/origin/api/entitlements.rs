//! Entitlements: which user may watch which course, and until when.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::answer::ApiResult;
use super::description::{self, IfNoneMatch};
use super::extract::{self, Json, Path};
use super::instant::Instant;
use super::paging::{List, PageBody, PageQuery};
use crate::access::{Caller, visible_course};
use crate::change::{Change, Wake};
use crate::state::App;
use lyceum_catalog::{self as catalog, Role};

/// The body of `PUT /v1/entitlements`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Entitlement {
    /// As the shop names them.
    #[schema(min_length = 1, max_length = 200)]
    user: String,
    #[schema(value_type = description::Id)]
    course: String,
    /// Without one, it does not end by itself.
    #[serde(default)]
    #[schema(value_type = Option<description::Instant>)]
    expires: Option<Instant>,
}

/// Let a user watch a course.
#[utoipa::path(
    put,
    path = "/v1/entitlements",
    operation_id = "grantEntitlement",
    tag = "entitlements",
    request_body = Entitlement,
    responses((status = 204, description = "The user may watch it."))
)]
pub(super) async fn grant(State(app): State<Arc<App>>, caller: Caller, Json(new): Json<Entitlement>) -> ApiResult {
    caller.require_role(&[Role::Shop, Role::Creator])?;
    let user = extract::viewer(&new.user)?;
    let expires = new.expires.map(Instant::millis);
    let mut change = Change::begin(&app, &caller).await?;
    let course = visible_course(&mut change.tx, &caller, &extract::id(&new.course)?).await?;
    let now = change.now();
    let revoked = catalog::entitle(&mut change.tx, &user, &course.id, expires, now).await?;
    change.note("entitlement.grant", course.id.as_str(), &user).await?;
    change.commit(if revoked > 0 { &[Wake::Revocations] } else { &[] }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The ids of the courses that a user may watch now.
#[utoipa::path(
    get,
    path = "/v1/entitlements/{user}",
    operation_id = "listEntitlements",
    tag = "entitlements",
    params(("user" = String, Path, description = "As the shop names them."), PageQuery, IfNoneMatch),
    responses((status = 200, description = "A page of ids.", body = PageBody<description::Id>))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    list: List,
) -> ApiResult {
    caller.require_role(&[Role::Shop])?;
    let user = extract::viewer(&user)?;
    let now = app.clock.unix_millis();
    let courses = catalog::courses_of_viewer(&mut app.db.read().await?, &user, now, &list.page).await?;
    list.show(courses, |course| (0, course.as_str()), |course| course)
}

/// Withdraw an entitlement; its sessions end.
#[utoipa::path(
    delete,
    path = "/v1/entitlements/{user}/{course}",
    operation_id = "withdrawEntitlement",
    tag = "entitlements",
    params(
        ("user" = String, Path, description = "As the shop names them."),
        ("course" = description::Id, Path, description = "A course.")
    ),
    responses((status = 204, description = "The user may not watch it."))
)]
pub(super) async fn withdraw(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((user, course)): Path<(String, String)>,
) -> ApiResult {
    caller.require_role(&[Role::Shop, Role::Creator])?;
    let (user, course) = (extract::viewer(&user)?, extract::id(&course)?);
    let mut change = Change::begin(&app, &caller).await?;
    if let Some(course) = catalog::course(&mut change.tx, &course).await? {
        caller.may_see(&course.owner)?;
    }
    catalog::withdraw_entitlement(&mut change.tx, &user, &course).await?;
    let now = change.now();
    let revoked = catalog::revoke_viewer_sessions(&mut change.tx, &user, &course, now).await?;
    change.note("entitlement.withdraw", course.as_str(), &user).await?;
    change.commit(if revoked > 0 { &[Wake::Revocations] } else { &[] }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

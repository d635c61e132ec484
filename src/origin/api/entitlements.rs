//! Entitlements: which user may watch which course, and until when.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::answer::ApiResult;
use super::extract::{self, Json, Path, Query};
use super::instant::Instant;
use super::paging::Paging;
use crate::access::{Caller, visible_course};
use crate::change::{Change, Wake};
use crate::state::App;
use lyceum_catalog::{self as catalog, Role};

/// The body of `PUT /v1/entitlements`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entitlement {
    user: String,
    course: String,
    /// Without one, it does not end by itself.
    #[serde(default)]
    expires: Option<Instant>,
}

/// `PUT /v1/entitlements`.
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

/// `GET /v1/entitlements/{user}`: the courses that the user may watch now.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    Query(paging): Query<Paging>,
    headers: HeaderMap,
) -> ApiResult {
    caller.require_role(&[Role::Shop])?;
    let user = extract::viewer(&user)?;
    let (limit, now) = (app.config().api.page, app.clock.unix_millis());
    let page = paging.page(limit)?;
    let courses = catalog::courses_of_viewer(&mut app.db.read().await?, &user, now, &page).await?;
    paging.show(&headers, limit, courses, |course| (0, course.as_str()), |course| course)
}

/// `DELETE /v1/entitlements/{user}/{course}`: the user's sessions of the course end with it.
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

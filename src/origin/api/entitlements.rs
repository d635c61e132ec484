//! Entitlements, the end of sessions, and what edges follow: the feed of revocations and the leases of streams.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::answer::ApiResult;
use super::auth::{Caller, Edge};
use super::extract::{self, Json, Path, Query};
use super::paging::Paging;
use super::refusal::Refusal;
use super::rfc3339;
use crate::config::WhenFull;
use crate::state::App;
use lyceum_catalog::{self as catalog, Role, StreamLease};
use lyceum_core::time::monotonic;
use lyceum_core::units::Span;

/// Seconds since the epoch, or RFC 3339.
#[derive(Deserialize)]
#[serde(untagged)]
enum Instant {
    Seconds(i64),
    Text(String),
}

impl Instant {
    fn millis(&self) -> Result<i64, Refusal> {
        let millis = match self {
            Self::Seconds(seconds) => seconds.checked_mul(1000),
            Self::Text(text) => rfc3339::parse(text),
        };
        millis.ok_or_else(|| Refusal::Invalid("`expires` is RFC 3339, or seconds since 1970.".to_owned()))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entitlement {
    user: String,
    course: String,
    #[serde(default)]
    expires: Option<Instant>,
}

pub(super) async fn entitle(State(app): State<Arc<App>>, caller: Caller, Json(new): Json<Entitlement>) -> ApiResult {
    caller.is(&[Role::Shop, Role::Creator])?;
    let user = extract::viewer(&new.user)?;
    let expires = new.expires.as_ref().map(Instant::millis).transpose()?;
    let mut tx = app.db.begin().await?;
    let course = catalog::course(&mut tx, &extract::id(&new.course)?).await?.ok_or(Refusal::NotFound)?;
    caller.sees(&course.owner)?;
    catalog::entitle(&mut tx, &user, &course.id, expires).await?;
    let (now, actor) = (app.clock.unix_millis(), caller.key.id.as_str());
    catalog::add_audit_entry(&mut tx, now, actor, "entitlement.grant", course.id.as_str(), &user).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    Query(paging): Query<Paging>,
    headers: HeaderMap,
) -> ApiResult {
    caller.is(&[Role::Shop])?;
    let (most, now) = (app.config().api.page, app.clock.unix_millis());
    let page = paging.page(most)?;
    let courses = catalog::courses_of_viewer(&mut app.db.read().await?, &user, now, &page).await?;
    paging.show(&headers, most, courses, |course| (0, course.as_str()), |course| course)
}

pub(super) async fn withdraw(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((user, course)): Path<(String, String)>,
) -> ApiResult {
    caller.is(&[Role::Shop, Role::Creator])?;
    let course = extract::id(&course)?;
    let mut tx = app.db.begin().await?;
    if let Some(course) = catalog::course(&mut tx, &course).await? {
        caller.sees(&course.owner)?;
    }
    catalog::withdraw_entitlement(&mut tx, &user, &course).await?;
    let (now, actor) = (app.clock.unix_millis(), caller.key.id.as_str());
    let revoked = catalog::revoke_viewer_sessions(&mut tx, &user, &course, now).await?;
    catalog::add_audit_entry(&mut tx, now, actor, "entitlement.withdraw", course.as_str(), &user).await?;
    tx.commit().await?;
    if revoked > 0 {
        app.revoked.notify_waiters();
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn end_session(State(app): State<Arc<App>>, caller: Caller, Path(id): Path<String>) -> ApiResult {
    caller.is(&[Role::Shop])?;
    let mut tx = app.db.begin().await?;
    if !catalog::revoke_session(&mut tx, &extract::id(&id)?, app.clock.unix_millis()).await? {
        return Err(Refusal::NotFound);
    }
    catalog::add_audit_entry(&mut tx, app.clock.unix_millis(), caller.key.id.as_str(), "session.end", &id, "").await?;
    tx.commit().await?;
    app.revoked.notify_waiters();
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /v1/audit`: who did what, the newest first.
pub(super) async fn audit(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(paging): Query<Paging>,
    headers: HeaderMap,
) -> ApiResult {
    caller.is(&[])?;
    let most = app.config().api.page;
    let page = paging.page(most)?;
    let deeds = catalog::audit_entries(&mut app.db.read().await?, &page).await?;
    let show = |deed: catalog::AuditEntry| {
        serde_json::json!({ "at": rfc3339::format(deed.at), "actor": deed.actor, "action": deed.action,
            "subject": deed.subject, "detail": deed.detail })
    };
    paging.show(&headers, most, deeds, |deed| (deed.position, ""), show)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Feed {
    #[serde(default)]
    after: i64,
    #[serde(default)]
    wait: Option<Span>,
}

/// The longest wait for news.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Events of one answer at most; more come with the next question.
const EVENTS: i64 = 1000;

pub(super) async fn revocations(State(app): State<Arc<App>>, _: Edge, Query(feed): Query<Feed>) -> ApiResult {
    let wait = feed.wait.map_or(Duration::ZERO, Span::get).min(LONGEST_WAIT);
    let _permit = app.waiting.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
    let deadline = monotonic() + wait;
    loop {
        let rung = app.revoked.notified();
        tokio::pin!(rung);
        rung.as_mut().enable();
        let mut tx = app.db.read().await?;
        let newest = catalog::newest_event(&mut tx).await?;
        // A position beyond the newest is from before a database was made anew: begin at its start.
        let after = if feed.after > newest { 0 } else { feed.after };
        let events = catalog::events_after(&mut tx, after, app.clock.unix_millis(), EVENTS).await?;
        drop(tx);
        let left = deadline.saturating_duration_since(monotonic());
        if !events.is_empty() || left.is_zero() || after != feed.after || app.shutdown.is_draining() {
            let full = events.len() as i64 == EVENTS;
            let next = events.last().filter(|_| full).map_or(newest, |event| event.position);
            let events: Result<Vec<Box<RawValue>>, _> =
                events.into_iter().map(|e| RawValue::from_string(e.json)).collect();
            let events = events.map_err(|error| Refusal::Internal(format!("an event of the feed: {error}")))?;
            let body = serde_json::to_string(&Told { next, events }).map_err(|e| Refusal::Internal(e.to_string()))?;
            return Ok((
                [(http::header::CONTENT_TYPE, "application/json"), (http::header::CACHE_CONTROL, "no-store")],
                body,
            )
                .into_response());
        }
        // What another origin revoked is not heard, only seen.
        tokio::select! {
            _ = timeout(left.min(app.config().api.look.get()), rung) => {}
            () = app.shutdown.draining() => {}
        }
    }
}

#[derive(serde::Serialize)]
struct Told {
    next: i64,
    events: Vec<Box<RawValue>>,
}

pub(super) async fn lease_stream(State(app): State<Arc<App>>, _: Edge, Path(id): Path<String>) -> ApiResult {
    let streams = app.config().streams;
    let duration_ms = i64::try_from(streams.lease.get().as_millis()).unwrap_or(i64::MAX);
    let mut tx = app.db.begin().await?;
    let end_oldest = streams.when_full == WhenFull::EndOldest;
    let lease = StreamLease { duration_ms, limit: streams.limit, end_oldest };
    let outcome = catalog::lease_stream(&mut tx, &extract::id(&id)?, &lease, app.clock.unix_millis()).await?;
    match outcome {
        catalog::StreamOutcome::Held { ended_oldest } => {
            tx.commit().await?;
            if ended_oldest {
                app.revoked.notify_waiters();
            }
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        catalog::StreamOutcome::LimitReached => Err(Refusal::TooManyStreams),
        catalog::StreamOutcome::SessionOver => Err(Refusal::SessionRevoked),
        catalog::StreamOutcome::UnknownSession => Err(Refusal::NotFound),
    }
}

//! The feed that edges follow: which sessions were revoked and what is to be purged.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::answer::ApiResult;
use super::auth::Edge;
use super::extract::Query;
use super::refusal::Refusal;
use crate::metrics::WaitedForNews;
use crate::state::App;
use crate::waiting::Purpose;
use lyceum_catalog as catalog;
use lyceum_core::time::monotonic;
use lyceum_core::units::Span;

/// The query of `GET /v1/revocations`.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct FeedQuery {
    /// The position up to which the edge knows the feed.
    #[serde(default)]
    #[param(required = false)]
    after: i64,
    /// How long to wait for news, such as `25s`, 30 s at most; without one, the answer comes at once.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    wait: Option<Span>,
}

/// The longest wait for news.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Events in one answer; more come with the next request.
const MAX_EVENTS: i64 = 1000;

/// Revocations and purges after a position; waits for the first.
#[utoipa::path(
    get,
    path = "/v1/revocations",
    operation_id = "followRevocations",
    tag = "edges",
    security(("edge" = [])),
    params(FeedQuery),
    responses((status = 200, description = "What happened since.", body = Revocations))
)]
pub(super) async fn feed(State(app): State<Arc<App>>, _: Edge, Query(query): Query<FeedQuery>) -> ApiResult {
    let wait = query.wait.map_or(Duration::ZERO, Span::get).min(MAX_WAIT);
    let _place = app.waiting.enter(Purpose::Revocations, "", &app.config().api)?;
    let deadline = monotonic() + wait;
    let mut waited = WaitedForNews::default();
    loop {
        // Registered before the look, so that what is revoked in between is not missed.
        let revoked = app.revoked.notified();
        tokio::pin!(revoked);
        revoked.as_mut().enable();
        let mut tx = app.db.read().await?;
        let newest = catalog::newest_event(&mut tx).await?;
        // A position beyond the newest is from before the database was made anew: begin at its start.
        let after = if query.after > newest { 0 } else { query.after };
        let events = catalog::events_after(&mut tx, after, app.clock.unix_millis(), MAX_EVENTS).await?;
        drop(tx);
        let left = deadline.saturating_duration_since(monotonic());
        if !events.is_empty() || left.is_zero() || after != query.after || app.shutdown.is_draining() {
            return answer(newest, events, waited);
        }
        // Another origin's revocations do not notify this one: look again after a while.
        let since = monotonic();
        tokio::select! {
            _ = timeout(left.min(app.config().api.look.get()), revoked) => {}
            () = app.shutdown.draining() => {}
        }
        waited.0 += since.elapsed();
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct Revocations {
    /// The position to ask from next.
    next: i64,
    /// `{"session", "until"}`, or `{"purge": {"url" | "prefix" | "tag", "soft"}}`.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Box<RawValue>>,
}

fn answer(newest: i64, events: Vec<catalog::Event>, waited: WaitedForNews) -> ApiResult {
    let full = events.len() as i64 == MAX_EVENTS;
    let next = events.last().filter(|_| full).map_or(newest, |event| event.position);
    let events: Result<Vec<Box<RawValue>>, _> =
        events.into_iter().map(|event| RawValue::from_string(event.json)).collect();
    let events = events.map_err(|error| Refusal::Internal(format!("an event of the feed: {error}")))?;
    let no_store = [(http::header::CACHE_CONTROL, "no-store")];
    Ok((Extension(waited), no_store, axum::Json(Revocations { next, events })).into_response())
}

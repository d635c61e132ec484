//! The audit log: who did what, the newest first.

use std::sync::Arc;

use axum::extract::State;
use http::HeaderMap;
use serde::Serialize;

use super::answer::ApiResult;
use super::extract::Query;
use super::paging::Paging;
use super::rfc3339;
use crate::access::Caller;
use crate::state::App;
use lyceum_catalog as catalog;

/// One line of the log.
#[derive(Serialize)]
struct AuditEntry {
    at: String,
    actor: String,
    action: String,
    subject: String,
    detail: String,
}

/// `GET /v1/audit`.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(paging): Query<Paging>,
    headers: HeaderMap,
) -> ApiResult {
    caller.require_admin()?;
    let limit = app.config().api.page;
    let entries = catalog::audit_entries(&mut app.db.read().await?, &paging.page(limit)?).await?;
    let show = |entry: catalog::AuditEntry| AuditEntry {
        at: rfc3339::format(entry.at),
        actor: entry.actor,
        action: entry.action,
        subject: entry.subject,
        detail: entry.detail,
    };
    paging.show(&headers, limit, entries, |entry| (entry.position, ""), show)
}

//! The audit log: who did what, the newest first.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::ApiResult;
use super::description::IfNoneMatch;
use super::paging::{List, PageBody, PageQuery};
use super::rfc3339;
use crate::access::Caller;
use crate::state::App;
use lyceum_catalog as catalog;

/// One line of the log.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditEntry {
    /// RFC 3339.
    at: String,
    /// The id of the key that did it.
    actor: String,
    action: String,
    subject: String,
    detail: String,
}

/// The audit log, the newest entry first.
#[utoipa::path(
    get,
    path = "/v1/audit",
    operation_id = "listAudit",
    tag = "audit",
    params(PageQuery, IfNoneMatch),
    responses((status = 200, description = "A page of the log.", body = PageBody<AuditEntry>))
)]
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller, list: List) -> ApiResult {
    caller.require_admin()?;
    let entries = catalog::audit_entries(&mut app.db.read().await?, &list.page).await?;
    let show = |entry: catalog::AuditEntry| AuditEntry {
        at: rfc3339::format(entry.at),
        actor: entry.actor,
        action: entry.action,
        subject: entry.subject,
        detail: entry.detail,
    };
    list.show(entries, |entry| (entry.position, ""), show)
}

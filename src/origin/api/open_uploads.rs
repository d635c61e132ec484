//! Unfinished uploads as a list, so that their owners can end what nobody will finish.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::ApiResult;
use super::description::{self, IfNoneMatch};
use super::paging::{List, PageBody, PageQuery};
use super::rfc3339;
use super::uploads::ROLES;
use crate::access::Caller;
use crate::state::App;
use lyceum_core::ids::Id;
use lyceum_storage::upload::Upload;

/// An unfinished upload, as lists show it.
#[derive(Serialize, ToSchema)]
#[schema(as = Upload)]
pub(super) struct UploadShown {
    #[schema(value_type = description::Id)]
    id: Id,
    /// The API key that made it.
    owner: String,
    /// Null for a partial upload.
    #[schema(required, value_type = Option<description::Id>)]
    lesson: Option<Id>,
    #[schema(value_type = description::UploadKind)]
    kind: &'static str,
    filename: String,
    /// Bytes of the whole upload; null where they are not known yet.
    #[schema(required)]
    length: Option<u64>,
    /// Bytes that are stored.
    received: u64,
    /// Whether a request writes it now.
    writing: bool,
    #[schema(format = DateTime)]
    created: String,
    #[schema(format = DateTime)]
    expires: String,
}

/// Unfinished uploads, the oldest first: the caller's, everybody's for an admin.
///
/// `DELETE` ends one.
#[utoipa::path(
    get,
    path = "/v1/uploads",
    operation_id = "listUploads",
    tag = "uploads",
    params(PageQuery, IfNoneMatch),
    responses((status = 200, description = "A page of uploads.", body = PageBody<UploadShown>))
)]
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller, list: List) -> ApiResult {
    caller.require_role(ROLES)?;
    let mut tx = app.db.read().await?;
    let after = (list.page.after.0, list.page.after.1.as_str());
    let uploads = app.uploads.open_after(&mut tx, caller.list_filter(), after, list.page.limit).await?;
    let show = |(created, upload): (i64, Upload)| UploadShown {
        owner: upload.owner,
        lesson: upload.lesson,
        kind: upload.kind.as_str(),
        filename: upload.filename,
        length: upload.length,
        received: upload.received,
        writing: upload.writer.is_some(),
        created: rfc3339::format(created),
        expires: rfc3339::format(upload.expires),
        id: upload.id,
    };
    list.show(uploads, |(created, upload)| (*created, upload.id.as_str()), show)
}

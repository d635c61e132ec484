//! The plain upload of a whole file in one body, for clients that don't speak tus.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode, header};

use super::answer::{self, ApiResult};
use super::description::{self, IdempotencyKey};
use super::extract::{self, Path};
use super::idempotency::Repeat;
use super::lessons::{self, LessonBody};
use super::refusal::Refusal;
use super::tus_fields::content_length;
use super::uploads::{Creation, ROLES, begin, write};
use crate::access::{Caller, visible_lesson};
use crate::ingest::{beginning, cleanup, quota};
use crate::state::App;
use lyceum_core::ids::Id;
use lyceum_storage::upload::{AppendRequest, NewUpload, UploadError, UploadKind, UploadState};

/// Upload a whole file in one body.
///
/// An interrupted upload leaves nothing behind.
#[utoipa::path(
    post,
    path = "/v1/lessons/{id}/media",
    operation_id = "uploadMedia",
    tag = "uploads",
    params(("id" = description::Id, Path, description = "A lesson."), IdempotencyKey),
    request_body(
        content(
            (inline(description::Bytes) = "video/*"),
            (inline(description::Bytes) = "audio/*"),
            (inline(description::Bytes) = "application/octet-stream")
        ),
        description = "The recording."
    ),
    responses((status = 202, description = "The lesson that it was uploaded to.", body = LessonBody))
)]
pub(super) async fn upload(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(lesson): Path<String>,
    head: HeaderMap,
    body: Body,
) -> ApiResult {
    caller.require_role(ROLES)?;
    let length = content_length(&head)?;
    let new = NewUpload {
        id: Id::random(),
        owner: caller.identity.id.to_string(),
        lesson: Some(extract::id(&lesson)?),
        kind: UploadKind::Whole,
        length,
        metadata: String::new(),
        filename: String::new(),
        partials: Vec::new(),
    };
    let said = head.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    quota::check_type(&app.config().uploads.types, said, "")?;
    let repeat = Repeat::of(&head, &format!("POST /v1/lessons/{lesson}/media {length:?}"))?;
    let upload = match begin(&app, &caller, new, &repeat).await? {
        Creation::New(upload) => upload,
        Creation::Repeated(upload) if upload.state == UploadState::Complete => {
            return accepted(&app, &caller, &lesson).await;
        }
        Creation::Repeated(_) => return Err(Refusal::UnderWay),
    };
    let request = AppendRequest {
        offset: 0,
        content_length: length,
        length: None,
        max_length: beginning::max_length(&app.ingest, &caller, &upload).await?,
        checksum: None,
        body: body.into_data_stream().map(|chunk| chunk.map_err(|error| error.to_string())).boxed(),
    };
    let work = {
        let (app, id) = (app.clone(), upload.id.clone());
        async move {
            let upload = write(&app, &id, request).await?;
            if upload.length.is_none() {
                // A chunked body has no length before its end.
                let end = AppendRequest {
                    offset: upload.received,
                    content_length: Some(0),
                    length: Some(upload.received),
                    max_length: None,
                    checksum: None,
                    body: futures_util::stream::empty().boxed(),
                };
                return write(&app, &id, end).await;
            }
            if upload.is_whole() {
                Ok(upload)
            } else {
                Err(UploadError::BrokenBody("it is too short".to_owned()).into())
            }
        }
    };
    let (app_after, id, actor) = (app.clone(), upload.id.clone(), caller.identity.id.to_string());
    // Also when the client hangs up: an upload that nobody can continue must not stay.
    let outcome = tokio::spawn(async move {
        let outcome = work.await;
        if outcome.is_err()
            && let Err(error) = cleanup::end_upload(&app_after.ingest, &id, &actor).await
        {
            tracing::debug!(upload = %id, %error, "a broken upload waits for its expiry");
        }
        outcome
    });
    outcome.await.unwrap_or(Err(Refusal::Draining))?;
    accepted(&app, &caller, &lesson).await
}

/// 202 with the lesson that was uploaded to.
async fn accepted(app: &App, caller: &Caller, lesson: &str) -> ApiResult {
    let mut tx = app.db.read().await?;
    let lesson = visible_lesson(&mut tx, caller, &extract::id(lesson)?).await?;
    answer::json(StatusCode::ACCEPTED, &lessons::describe(&mut tx, &lesson).await?)
}

//! tus 1.0 over HTTP. The plain upload of a whole file begins and is written in the same way: `whole_file`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::answer::ApiResult;
use super::description::{self, IdempotencyKey, MethodOverride, NoUpload, TusAppend, TusCreation, TusResumable};
use super::extract::{self, Path};
use super::idempotency::Repeat;
use super::refusal::Refusal;
use super::tus_fields::{
    CONCAT, DEFER, LENGTH, METADATA, OFFSET, check_version, content_length, describe, incoming, is_offset_stream,
    location_base, number, protocol, set_protocol_headers, text,
};
use crate::access::Caller;
use crate::ingest::beginning::{self, Prepared};
use crate::ingest::{cleanup, intake, quota};
use crate::state::App;
use lyceum_catalog::Role;
use lyceum_core::ids::Id;
use lyceum_storage::upload::headers::{self, Concat, HeaderError};
use lyceum_storage::upload::{AppendRequest, NewUpload, Upload, UploadError, UploadKind, UploadState};

const OVERRIDE: &str = "x-http-method-override";

/// The roles that may upload.
pub(super) const ROLES: &[Role] = &[Role::Creator];

/// Version, extensions and limits of tus.
#[utoipa::path(
    options,
    path = "/v1/uploads",
    operation_id = "getUploadOptions",
    tag = "uploads",
    security(()),
    responses(
        (
            status = 204,
            description = "What is spoken here.",
            headers(
                ("Tus-Resumable" = String, description = "`1.0.0`."),
                ("Tus-Version" = String, description = "Versions of tus."),
                ("Tus-Extension" = String, description = "Extensions of tus."),
                ("Tus-Checksum-Algorithm" = String, description = "For `Upload-Checksum`."),
                ("Tus-Max-Size" = u64, description = "Bytes of the largest upload.")
            )
        )
    )
)]
pub(super) async fn options(State(app): State<Arc<App>>) -> Response {
    spoken(&app)
}

/// Version, extensions and limits of tus; the same for each upload.
#[utoipa::path(
    options,
    path = "/v1/uploads/{id}",
    operation_id = "getOptionsOfUpload",
    tag = "uploads",
    security(()),
    params(("id" = description::Id, Path, description = "An upload.")),
    responses(
        (
            status = 204,
            description = "What is spoken here.",
            headers(
                ("Tus-Resumable" = String, description = "`1.0.0`."),
                ("Tus-Version" = String, description = "Versions of tus."),
                ("Tus-Extension" = String, description = "Extensions of tus."),
                ("Tus-Checksum-Algorithm" = String, description = "For `Upload-Checksum`."),
                ("Tus-Max-Size" = u64, description = "Bytes of the largest upload.")
            )
        )
    )
)]
pub(super) async fn options_of_one(State(app): State<Arc<App>>) -> Response {
    spoken(&app)
}

fn spoken(app: &App) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let to = response.headers_mut();
    set_protocol_headers(to);
    to.insert("tus-version", HeaderValue::from_static(headers::VERSION));
    to.insert("tus-extension", HeaderValue::from_static(headers::EXTENSIONS));
    to.insert("tus-checksum-algorithm", HeaderValue::from_static(headers::ALGORITHMS));
    to.insert("tus-max-size", HeaderValue::from(app.config().uploads.size.0));
    response
}

/// Create an upload by tus 1.0, with its first bytes where the client sends some along.
#[utoipa::path(
    post,
    path = "/v1/uploads",
    operation_id = "createUpload",
    tag = "uploads",
    params(TusResumable, TusCreation, IdempotencyKey),
    request_body(
        content = inline(description::Bytes),
        content_type = "application/offset+octet-stream",
        description = "The first bytes, if any."
    ),
    responses(
        (
            status = 201,
            description = "The upload.",
            headers(
                (
                    "Location" = String,
                    description = "The upload's URL, relative or absolute (RFC 9110, section 10.2.2)."
                ),
                ("Tus-Resumable" = String, description = "`1.0.0`."),
                ("Upload-Offset" = u64, description = "How many bytes are stored."),
                ("Upload-Expires" = String, description = "When an unfinished upload is removed.")
            )
        )
    )
)]
pub(super) async fn create(State(app): State<Arc<App>>, caller: Caller, head: HeaderMap, body: Body) -> ApiResult {
    protocol(create_upload(&app, &caller, &head, body).await)
}

async fn create_upload(app: &Arc<App>, caller: &Caller, head: &HeaderMap, body: Body) -> ApiResult {
    check_version(head)?;
    caller.require_role(ROLES)?;
    let concat = text(head, &CONCAT, "Upload-Concat")?.map(headers::concat).transpose()?;
    let (length, defers) = (number(head, &LENGTH, "Upload-Length")?, text(head, &DEFER, "Upload-Defer-Length")?);
    match (length, defers, &concat) {
        (None, None, Some(Concat::Final(_))) => {}
        (Some(_), None, None | Some(Concat::Partial)) | (None, Some("1"), None | Some(Concat::Partial)) => {}
        (None, None, _) => return Err(HeaderError::Missing("Upload-Length").into()),
        (_, _, Some(Concat::Final(_))) => return Err(HeaderError::Malformed("Upload-Length").into()),
        _ => return Err(HeaderError::Malformed("Upload-Defer-Length").into()),
    }
    let metadata = text(head, &METADATA, "Upload-Metadata")?.unwrap_or_default();
    if metadata.len() as u64 > app.config().uploads.metadata.0 {
        return Err(HeaderError::Malformed("Upload-Metadata").into());
    }
    let pairs = headers::metadata(metadata)?;
    let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice());
    let (kind, partials) = match concat {
        None => (UploadKind::Whole, Vec::new()),
        Some(Concat::Partial) => (UploadKind::Partial, Vec::new()),
        Some(Concat::Final(partials)) => (UploadKind::Final, partials),
    };
    let lesson = match value("lesson").and_then(|value| std::str::from_utf8(value).ok()) {
        _ if kind == UploadKind::Partial => None,
        Some(lesson) => Some(extract::id(lesson)?),
        None => return Err(Refusal::Invalid("Upload-Metadata names no `lesson`.".to_owned())),
    };
    let length = match kind {
        UploadKind::Final => {
            let owner = caller.id();
            Some(app.uploads.concatenated_length(&mut app.db.read().await?, owner, &partials).await?)
        }
        _ => length,
    };
    let filename = value("filename").or_else(|| value("name")).map(headers::filename).unwrap_or_default();
    if kind != UploadKind::Final {
        let said = value("filetype").or_else(|| value("type")).and_then(|said| std::str::from_utf8(said).ok());
        quota::check_type(&app.config().uploads.types, said.unwrap_or_default(), &filename)?;
    }
    let new = NewUpload {
        id: Id::random(),
        owner: caller.identity.id.to_string(),
        lesson,
        kind,
        length,
        metadata: metadata.to_owned(),
        filename,
        partials,
    };
    let said = |name: &HeaderName| head.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let base = location_base(&app.config().public_url, head).to_owned();
    let what = format!("POST /v1/uploads {} {} {metadata} {}", said(&LENGTH), said(&DEFER), said(&CONCAT));
    let repeat = Repeat::of(head, &what)?;
    let mut upload = match begin(app, caller, new, &repeat).await? {
        Creation::New(upload) => upload,
        // The client learns the offset; the bytes of this request come again with a PATCH.
        Creation::Repeated(upload) => return created(&upload, &base, true),
    };
    let with_bytes = is_offset_stream(head) && content_length(head)? != Some(0) && upload.kind != UploadKind::Final;
    if upload.kind == UploadKind::Final {
        let (app, id) = (app.clone(), upload.id.clone());
        // Copying may take longer than the client waits. After a crash the background work goes on with it.
        tokio::spawn(async move {
            if let Err(error) = intake::join(&app.ingest, &id).await {
                tracing::warn!(upload = %id, %error, "parts could not be joined; it will be tried again");
            }
        });
    } else if with_bytes {
        let request = AppendRequest {
            max_length: beginning::max_length(&app.ingest, caller, &upload).await?,
            ..incoming(head, 0, body)?
        };
        // The upload is created in any case: bytes that can't be kept now come again with a PATCH.
        match write(app, &upload.id, request).await {
            Ok(after) => upload = after,
            Err(error) => {
                tracing::debug!(upload = %upload.id, %error, "a creation's body was not taken whole");
                upload = intake::settle(&app.ingest, &upload.id).await?;
            }
        }
    } else if upload.is_whole() && upload.kind != UploadKind::Partial {
        intake::take_upload(&app.ingest, &upload).await?;
    }
    created(&upload, &base, false)
}

fn created(upload: &Upload, base: &str, again: bool) -> ApiResult {
    let mut response = StatusCode::CREATED.into_response();
    let location = format!("{base}/v1/uploads/{}", upload.id);
    describe(upload, response.headers_mut());
    let location = HeaderValue::try_from(location).map_err(|error| Refusal::Internal(error.to_string()))?;
    response.headers_mut().insert(header::LOCATION, location);
    if again {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// What is kept under the `Idempotency-Key` of a creation.
#[derive(Deserialize, Serialize)]
struct KeptCreation {
    upload: Id,
}

/// The outcome of a request to create an upload.
pub(super) enum Creation {
    New(Upload),
    /// The request is a repetition, and the upload that it created can still be continued, or is complete.
    Repeated(Upload),
}

/// Begins an upload, or finds the one that this request began before.
pub(super) async fn begin(app: &App, caller: &Caller, new: NewUpload, repeat: &Repeat) -> Result<Creation, Refusal> {
    let prepared = Prepared::new(&app.ingest, caller, new).await?;
    let mut tx = app.db.begin().await?;
    if let Some(KeptCreation { upload }) = repeat.known(&mut tx, caller).await? {
        if let Some(before) = beginning::begun_before(&app.ingest, &upload).await? {
            drop(tx);
            prepared.abandon(&app.ingest).await?;
            return Ok(Creation::Repeated(before));
        }
        repeat.forget(&mut tx, caller).await?;
    }
    let kept = KeptCreation { upload: prepared.id().clone() };
    let upload = prepared.begin(&app.ingest, &mut tx, caller).await?;
    repeat.keep(&mut tx, caller, StatusCode::CREATED, &kept, app.clock.unix_millis()).await?;
    tx.commit().await?;
    app.ingest.changed.notify_waiters();
    Ok(Creation::New(upload))
}

/// Counts a writer in the gauge until it is dropped.
struct WriterGuard(prometheus::IntGauge);

impl Drop for WriterGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

pub(super) async fn write(app: &Arc<App>, id: &Id, request: AppendRequest) -> Result<Upload, Refusal> {
    let (app, id) = (app.clone(), id.clone());
    // In a task of its own, so that a client which hangs up after its last byte still gets its lesson.
    let work = tokio::spawn(async move {
        let _counted = WriterGuard(app.metrics.uploads.clone());
        app.metrics.uploads.inc();
        let _guard = app.shutdown.guard();
        let before = request.offset;
        let upload = intake::append(&app.ingest, &id, request).await?;
        app.metrics.uploaded.inc_by(upload.received.saturating_sub(before));
        Ok(upload)
    });
    work.await.unwrap_or(Err(Refusal::Draining))
}

/// The id of an upload, if it is the caller's.
async fn own(app: &App, caller: &Caller, id: &str) -> Result<Id, Refusal> {
    caller.require_role(ROLES)?;
    let id = Id::parse(id).map_err(|_| UploadError::NotFound)?;
    let upload = app.uploads.peek(&id).await?;
    if caller.list_filter().is_some_and(|owner| owner != upload.owner) {
        return Err(UploadError::NotFound.into());
    }
    Ok(id)
}

/// As HEAD, for proxies that don't pass HEAD on.
#[utoipa::path(
    get,
    path = "/v1/uploads/{id}",
    operation_id = "getUpload",
    tag = "uploads",
    params(("id" = description::Id, Path, description = "An upload."), TusResumable),
    responses(
        (
            status = 200,
            description = "Where it stands.",
            headers(
                ("Tus-Resumable" = String, description = "`1.0.0`."),
                ("Upload-Offset" = u64, description = "How many bytes are stored."),
                ("Upload-Length" = u64, description = "Bytes of the whole upload, where known."),
                ("Upload-Defer-Length" = String, description = "`1` where the length is not known."),
                ("Upload-Metadata" = String, description = "As it was created."),
                ("Upload-Concat" = String, description = "`partial`, or `final;` and the URLs of its parts."),
                ("Upload-Expires" = String, description = "When an unfinished upload is removed.")
            )
        ),
        NoUpload
    )
)]
pub(super) async fn show(state: State<Arc<App>>, caller: Caller, path: Path<String>, fields: HeaderMap) -> ApiResult {
    head(state, caller, path, fields).await
}

/// The offset at which to continue.
///
/// A client that asks means to continue, so an older writer is ended first.
#[utoipa::path(
    head,
    path = "/v1/uploads/{id}",
    operation_id = "getUploadOffset",
    tag = "uploads",
    params(("id" = description::Id, Path, description = "An upload."), TusResumable),
    responses(
        (
            status = 200,
            description = "Where it stands.",
            headers(
                ("Tus-Resumable" = String, description = "`1.0.0`."),
                ("Upload-Offset" = u64, description = "How many bytes are stored."),
                ("Upload-Length" = u64, description = "Bytes of the whole upload, where known."),
                ("Upload-Defer-Length" = String, description = "`1` where the length is not known."),
                ("Upload-Metadata" = String, description = "As it was created."),
                ("Upload-Concat" = String, description = "`partial`, or `final;` and the URLs of its parts."),
                ("Upload-Expires" = String, description = "When an unfinished upload is removed.")
            )
        ),
        NoUpload
    )
)]
pub(super) async fn head(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    head: HeaderMap,
) -> ApiResult {
    protocol(
        async {
            check_version(&head)?;
            let id = own(&app, &caller, &id).await?;
            // The joining of parts is not interrupted.
            let upload = match app.uploads.peek(&id).await? {
                upload if upload.kind == UploadKind::Final && upload.state == UploadState::Open => upload,
                _ => intake::settle(&app.ingest, &id).await?,
            };
            let mut response = StatusCode::OK.into_response();
            let to = response.headers_mut();
            describe(&upload, to);
            match upload.length {
                Some(length) => to.insert(LENGTH, HeaderValue::from(length)),
                None => to.insert(DEFER, HeaderValue::from_static("1")),
            };
            let parts = upload.partials.iter().map(|part| format!("/v1/uploads/{part}")).collect::<Vec<_>>().join(" ");
            match upload.kind {
                UploadKind::Whole => {}
                UploadKind::Partial => drop(to.insert(CONCAT, HeaderValue::from_static("partial"))),
                UploadKind::Final => {
                    if let Ok(value) = HeaderValue::try_from(format!("final;{parts}")) {
                        to.insert(CONCAT, value);
                    }
                    if !upload.is_whole() {
                        to.remove(OFFSET);
                    }
                }
            }
            if let Ok(metadata) = HeaderValue::try_from(upload.metadata.as_str())
                && !upload.metadata.is_empty()
            {
                to.insert(METADATA, metadata);
            }
            Ok(response)
        }
        .await,
    )
}

/// Append bytes at an offset.
#[utoipa::path(
    patch,
    path = "/v1/uploads/{id}",
    operation_id = "appendToUpload",
    tag = "uploads",
    params(("id" = description::Id, Path, description = "An upload."), TusResumable, TusAppend),
    request_body(
        content = inline(description::Bytes),
        content_type = "application/offset+octet-stream",
        description = "The bytes."
    ),
    responses(
        (
            status = 204,
            description = "The bytes are stored.",
            headers(
                ("Tus-Resumable" = String, description = "`1.0.0`."),
                ("Upload-Offset" = u64, description = "How many bytes are stored."),
                ("Upload-Expires" = String, description = "When an unfinished upload is removed.")
            )
        ),
        (
            status = 409,
            description = "Another offset is right: `offset_mismatch`.",
            body = description::Problem,
            content_type = "application/problem+json",
            headers(
                ("Tus-Resumable" = String, description = "`1.0.0`."),
                ("Upload-Offset" = u64, description = "How many bytes are stored.")
            )
        ),
        NoUpload
    )
)]
pub(super) async fn append(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    head: HeaderMap,
    body: Body,
) -> ApiResult {
    protocol(
        async {
            check_version(&head)?;
            if !is_offset_stream(&head) {
                return Err(Refusal::UnsupportedType);
            }
            let offset = number(&head, &OFFSET, "Upload-Offset")?.ok_or(HeaderError::Missing("Upload-Offset"))?;
            let id = own(&app, &caller, &id).await?;
            let before = app.uploads.peek(&id).await?;
            if before.kind == UploadKind::Final {
                return Err(UploadError::NotWritable.into());
            }
            let request = AppendRequest {
                max_length: beginning::max_length(&app.ingest, &caller, &before).await?,
                ..incoming(&head, offset, body)?
            };
            let upload = write(&app, &id, request).await?;
            let mut response = StatusCode::NO_CONTENT.into_response();
            describe(&upload, response.headers_mut());
            Ok(response)
        }
        .await,
    )
}

/// Abandon an upload.
#[utoipa::path(
    delete,
    path = "/v1/uploads/{id}",
    operation_id = "deleteUpload",
    tag = "uploads",
    params(("id" = description::Id, Path, description = "An upload."), TusResumable),
    responses(
        (status = 204, description = "It is ended.", headers(("Tus-Resumable" = String, description = "`1.0.0`."))),
        NoUpload
    )
)]
pub(super) async fn terminate(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    head: HeaderMap,
) -> ApiResult {
    protocol(
        async {
            check_version(&head)?;
            let id = own(&app, &caller, &id).await?;
            cleanup::end_upload(&app.ingest, &id, caller.id()).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        .await,
    )
}

/// PATCH or DELETE, for clients behind proxies that know neither.
#[utoipa::path(
    post,
    path = "/v1/uploads/{id}",
    operation_id = "overrideMethod",
    tag = "uploads",
    params(("id" = description::Id, Path, description = "An upload."), TusResumable, MethodOverride),
    request_body(
        content = inline(description::Bytes),
        content_type = "application/offset+octet-stream",
        description = "With PATCH: the bytes."
    ),
    responses(
        (
            status = 204,
            description = "The bytes are stored.",
            headers(
                ("Tus-Resumable" = String, description = "`1.0.0`."),
                ("Upload-Offset" = u64, description = "How many bytes are stored."),
                ("Upload-Expires" = String, description = "When an unfinished upload is removed.")
            )
        ),
        (
            status = 409,
            description = "Another offset is right: `offset_mismatch`.",
            body = description::Problem,
            content_type = "application/problem+json",
            headers(
                ("Tus-Resumable" = String, description = "`1.0.0`."),
                ("Upload-Offset" = u64, description = "How many bytes are stored.")
            )
        ),
        NoUpload
    )
)]
pub(super) async fn overridden(
    state: State<Arc<App>>,
    caller: Caller,
    path: Path<String>,
    head: HeaderMap,
    body: Body,
) -> ApiResult {
    match head.get(OVERRIDE).and_then(|method| Method::from_bytes(method.as_bytes()).ok()) {
        Some(Method::PATCH) => append(state, caller, path, head, body).await,
        Some(Method::DELETE) => terminate(state, caller, path, head).await,
        _ => protocol(Err(Refusal::Invalid("X-HTTP-Method-Override is PATCH or DELETE here.".to_owned()))),
    }
}

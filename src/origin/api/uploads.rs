//! tus 1.0 over HTTP, and the plain upload of a whole file in one body.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::answer::ApiResult;
use super::extract::{self, Path, Query};
use super::idempotency::Repeat;
use super::lessons;
use super::paging::Paging;
use super::quota;
use super::refusal::Refusal;
use super::rfc3339;
use crate::access::{Caller, own_lesson, visible_lesson};
use crate::ingest::{cleanup, intake};
use crate::state::App;
use lyceum_catalog::{self as catalog, Role};
use lyceum_core::ids::Id;
use lyceum_storage::db::Tx;
use lyceum_storage::upload::headers::{self, Concat, HeaderError};
use lyceum_storage::upload::{AppendRequest, NewUpload, Upload, UploadError, UploadKind, UploadState};

const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const DEFER: HeaderName = HeaderName::from_static("upload-defer-length");
const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
const CONCAT: HeaderName = HeaderName::from_static("upload-concat");
const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const OVERRIDE: &str = "x-http-method-override";

/// The roles that may upload.
const ROLES: &[Role] = &[Role::Creator];

fn check_version(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(RESUMABLE) {
        Some(version) if version == headers::VERSION => Ok(()),
        _ => Err(Refusal::TusVersion),
    }
}

fn text<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    display_name: &'static str,
) -> Result<Option<&'h str>, HeaderError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(HeaderError::Malformed(display_name));
    }
    value.map(|value| value.to_str().map_err(|_| HeaderError::Malformed(display_name))).transpose()
}

fn number(headers: &HeaderMap, name: &HeaderName, display_name: &'static str) -> Result<Option<u64>, HeaderError> {
    text(headers, name, display_name)?.map(|text| headers::number(display_name, text)).transpose()
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, HeaderError> {
    number(headers, &header::CONTENT_LENGTH, "Content-Length")
}

fn is_offset_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(headers::CONTENT_TYPE)
}

fn set_protocol_headers(headers: &mut HeaderMap) {
    headers.insert(RESUMABLE, HeaderValue::from_static(headers::VERSION));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Every response of tus carries its version, refusals too.
fn protocol(answer: ApiResult) -> ApiResult {
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    set_protocol_headers(response.headers_mut());
    Ok(response)
}

/// `OPTIONS`: version, extensions and limits of tus here.
pub(super) async fn options(State(app): State<Arc<App>>) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let to = response.headers_mut();
    set_protocol_headers(to);
    to.insert("tus-version", HeaderValue::from_static(headers::VERSION));
    to.insert("tus-extension", HeaderValue::from_static(headers::EXTENSIONS));
    to.insert("tus-checksum-algorithm", HeaderValue::from_static(headers::ALGORITHMS));
    to.insert("tus-max-size", HeaderValue::from(app.config().uploads.size.0));
    response
}

/// An unfinished upload, as lists show it.
#[derive(Serialize)]
struct UploadShown {
    id: Id,
    /// The API key that made it.
    owner: String,
    lesson: Option<Id>,
    kind: &'static str,
    filename: String,
    length: Option<u64>,
    received: u64,
    /// Whether a request writes it now.
    writing: bool,
    created: String,
    expires: String,
}

/// `GET /v1/uploads`: the caller's unfinished uploads, everybody's for an admin; `DELETE` ends one.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(paging): Query<Paging>,
    headers: HeaderMap,
) -> ApiResult {
    caller.require_role(ROLES)?;
    let limit = app.config().api.page;
    let page = paging.page(limit)?;
    let mut tx = app.db.read().await?;
    let after = (page.after.0, page.after.1.as_str());
    let uploads = app.uploads.open_after(&mut tx, caller.list_filter(), after, page.limit).await?;
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
    paging.show(&headers, limit, uploads, |(created, upload)| (*created, upload.id.as_str()), show)
}

/// `POST /v1/uploads`: creation, with bytes where the client sends some along.
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
    let what = format!("POST /v1/uploads {} {} {metadata} {}", said(&LENGTH), said(&DEFER), said(&CONCAT));
    let repeat = Repeat::of(head, &what)?;
    let mut upload = match begin(app, caller, &new, &repeat).await? {
        Creation::New(upload) => upload,
        // The client learns the offset; the bytes of this request come again with a PATCH.
        Creation::Repeated(upload) => return created(app, &upload, true),
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
        let request = AppendRequest { max_length: max_length(app, caller, &upload).await?, ..incoming(head, 0, body)? };
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
    created(app, &upload, false)
}

/// 201 with the upload's URL. A path alone keeps the scheme and host by which the client came; where `public_url` has a path
/// of its own, as behind a proxy that takes that off, it would lead past it, and the URL is whole.
fn created(app: &App, upload: &Upload, again: bool) -> ApiResult {
    let mut response = StatusCode::CREATED.into_response();
    let config = app.config();
    let rooted = config.public_url.split_once("://").is_some_and(|(_, rest)| !rest.contains('/'));
    let base = if rooted { "" } else { config.public_url.as_str() };
    let location = format!("{base}/v1/uploads/{}", upload.id);
    describe(upload, response.headers_mut());
    let location = HeaderValue::try_from(location).map_err(|error| Refusal::Internal(error.to_string()))?;
    response.headers_mut().insert(header::LOCATION, location);
    if again {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// How large an upload of unknown length may become: what is left of its owner's quota.
async fn max_length(app: &App, caller: &Caller, upload: &Upload) -> Result<Option<u64>, Refusal> {
    if upload.length.is_some() {
        return Ok(None);
    }
    let quota = quota::of(app, &mut app.db.read().await?, caller).await?;
    Ok(quota.map(|quota| quota.left().saturating_add(upload.received)))
}

/// The outcome of a request to create an upload.
enum Creation {
    New(Upload),
    /// The request is a repetition, and the upload that it created can still be continued, or is complete.
    Repeated(Upload),
}

/// Whether the quota has room for the whole upload. The parts of a final upload are counted already.
async fn check_quota(app: &App, tx: &mut Tx, caller: &Caller, new: &NewUpload) -> Result<(), Refusal> {
    if new.kind == UploadKind::Final {
        return Ok(());
    }
    match quota::of(app, tx, caller).await? {
        // Of unknown length: at least one byte must fit.
        Some(quota) if quota.left() < new.length.unwrap_or(1) => Err(quota.exceeded()),
        _ => Ok(()),
    }
}

async fn begin(app: &App, caller: &Caller, new: &NewUpload, repeat: &Repeat) -> Result<Creation, Refusal> {
    // Refused before anything is created in the store.
    let mut tx = app.db.read().await?;
    if let Some(lesson) = &new.lesson {
        own_lesson(&mut tx, caller, lesson).await?;
    }
    check_quota(app, &mut tx, caller, new).await?;
    drop(tx);
    let growth = app.uploads.prepare(new).await?;
    let mut tx = app.db.begin().await?;
    if let Some(known) = repeat.known(&mut tx, caller).await? {
        let id = known.get("upload").and_then(serde_json::Value::as_str).and_then(|id| Id::parse(id).ok());
        let id = id.ok_or_else(|| Refusal::Internal("an answer without its upload".to_owned()))?;
        let before = match app.uploads.peek(&id).await {
            Ok(upload) if upload.state != UploadState::Ended => Some(upload),
            Ok(_) | Err(UploadError::NotFound) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(before) = before {
            drop(tx);
            app.store.abandon_growth(&lyceum_storage::upload::source_key(&new.id)?, &growth).await?;
            return Ok(Creation::Repeated(before));
        }
        repeat.forget(&mut tx, caller).await?;
    }
    if let Some(lesson) = &new.lesson {
        // The deletion of a lesson ends the uploads that it sees.
        tx.lock("lesson", lesson.as_str()).await?;
    }
    tx.lock("quota of", &new.owner).await?;
    check_quota(app, &mut tx, caller, new).await?;
    repeat.keep(&mut tx, caller, StatusCode::CREATED, &json!({ "upload": new.id }), app.clock.unix_millis()).await?;
    let upload = app.uploads.create(&mut tx, new, &growth).await?;
    if let Some(lesson) = &new.lesson {
        own_lesson(&mut tx, caller, lesson).await?;
        catalog::set_uploading(&mut tx, lesson, &new.id).await?;
        let now = app.clock.unix_millis();
        catalog::add_audit_entry(&mut tx, now, &new.owner, "upload.begin", lesson.as_str(), new.id.as_str()).await?;
    }
    tx.commit().await?;
    app.ingest.changed.notify_waiters();
    Ok(Creation::New(upload))
}

fn incoming(head: &HeaderMap, offset: u64, body: Body) -> Result<AppendRequest, Refusal> {
    let checksum = text(head, &CHECKSUM, "Upload-Checksum")?.map(headers::checksum).transpose()?;
    Ok(AppendRequest {
        offset,
        content_length: content_length(head)?,
        length: number(head, &LENGTH, "Upload-Length")?,
        max_length: None,
        checksum,
        body: body.into_data_stream().map(|chunk| chunk.map_err(|error| error.to_string())).boxed(),
    })
}

/// Counts a writer in the gauge until it is dropped.
struct WriterGuard(prometheus::IntGauge);

impl Drop for WriterGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn write(app: &Arc<App>, id: &Id, request: AppendRequest) -> Result<Upload, Refusal> {
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

fn describe(upload: &Upload, to: &mut HeaderMap) {
    to.insert(OFFSET, HeaderValue::from(upload.received));
    if upload.state == UploadState::Open && !upload.is_whole() {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(u64::try_from(upload.expires).unwrap_or(0));
        if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(at)) {
            to.insert(EXPIRES, date);
        }
    }
}

/// `HEAD`: the offset. A client that asks means to continue, so an older writer is ended first.
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

/// `PATCH`: appends bytes at an offset.
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
                max_length: max_length(&app, &caller, &before).await?,
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

/// `DELETE`: the client abandons the upload.
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

/// `POST` with `X-HTTP-Method-Override`, for clients behind proxies that know neither PATCH nor DELETE.
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

/// `POST /v1/lessons/{id}/media`: a whole file in one body. An interrupted upload leaves nothing behind.
pub(super) async fn whole_file(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(lesson): Path<String>,
    head: HeaderMap,
    body: Body,
) -> ApiResult {
    caller.require_role(ROLES)?;
    let new = NewUpload {
        id: Id::random(),
        owner: caller.identity.id.to_string(),
        lesson: Some(extract::id(&lesson)?),
        kind: UploadKind::Whole,
        length: content_length(&head)?,
        metadata: String::new(),
        filename: String::new(),
        partials: Vec::new(),
    };
    let said = head.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    quota::check_type(&app.config().uploads.types, said, "")?;
    let repeat = Repeat::of(&head, &format!("POST /v1/lessons/{lesson}/media {:?}", new.length))?;
    let upload = match begin(&app, &caller, &new, &repeat).await? {
        Creation::New(upload) => upload,
        Creation::Repeated(upload) if upload.state == UploadState::Complete => {
            return accepted(&app, &caller, &lesson).await;
        }
        Creation::Repeated(_) => return Err(Refusal::UnderWay),
    };
    let request = AppendRequest {
        offset: 0,
        content_length: new.length,
        length: None,
        max_length: max_length(&app, &caller, &upload).await?,
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
    let body = lessons::describe(&mut tx, &lesson).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!(body))).into_response())
}

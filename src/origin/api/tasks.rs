//! The task protocol: workers lease tasks, read the recording, upload objects, and report the outcome. They hold an API
//! key of role `worker` and no credential of the database or the store.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::answer::{self, ApiResult};
use super::description::{self, IfMatch, IfNoneMatch, LeaseOfTask, Range};
use super::extract::{self, Json, LargeJson, Path};
use super::media;
use super::refusal::Refusal;
use crate::access::{Caller, find_caller};
use crate::ingest::error::IngestError;
use crate::ingest::{loss, tasks};
use crate::metrics::WaitedForNews;
use crate::state::App;
use crate::waiting::Purpose;
use lyceum_catalog::{self as catalog, Role};
use lyceum_core::ids::Id;
use lyceum_core::time::monotonic;
use lyceum_packaging::{DeliveredObject, MediaInfo};
use lyceum_server::Peer;
use lyceum_storage::queue::{self, Retry};
use lyceum_storage::store::{Key, StoreError};

/// The header that carries the lease of a task.
const LEASE: &str = "lyceum-lease";
/// How long a worker may wait for a task, in seconds.
const MAX_WAIT_SECONDS: f64 = 25.0;

/// A worker that asks for a task.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaseRequest {
    /// How long to wait for one: seconds, 25 at most.
    #[serde(default)]
    #[schema(required = false)]
    wait: f64,
}

/// The URL under which the worker reached this origin: the URLs of its task begin with it.
fn base_url(app: &App, peer: Option<&Peer>, headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).filter(|host| !host.is_empty());
    let config = app.config();
    let public = config.public_url.as_str();
    match host {
        Some(host) if public.split_once("://").is_some_and(|(_, authority)| authority == host) => public.to_owned(),
        Some(host) => format!("{}://{host}", if peer.is_some_and(|peer| peer.tls) { "https" } else { "http" }),
        None => public.to_owned(),
    }
}

/// Lease a task, waiting for one at most as long as the worker wishes.
#[utoipa::path(
    post,
    path = "/v1/tasks/lease",
    operation_id = "leaseTask",
    tag = "workers",
    request_body = LeaseRequest,
    responses(
        (status = 200, description = "A task.", body = LeasedTask<'_>),
        (status = 204, description = "There is none.")
    )
)]
pub(super) async fn lease(State(app): State<Arc<App>>, caller: Caller, request: Request) -> ApiResult {
    caller.require_role(&[Role::Worker])?;
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let base = match authority {
        // HTTP/2 has the host in `:authority`.
        Some(authority) if !request.headers().contains_key(header::HOST) => {
            let tls = request.extensions().get::<Peer>().is_some_and(|peer| peer.tls);
            format!("{}://{authority}", if tls { "https" } else { "http" })
        }
        _ => base_url(&app, request.extensions().get::<Peer>(), request.headers()),
    };
    let Json(wanted) = <Json<LeaseRequest> as axum::extract::FromRequest<_>>::from_request(request, &app).await?;
    let wait = if wanted.wait.is_finite() { wanted.wait.clamp(0.0, MAX_WAIT_SECONDS) } else { 0.0 };
    let _place = app.waiting.enter(Purpose::Tasks, caller.id(), &app.config().api)?;
    let deadline = monotonic() + Duration::from_secs_f64(wait);
    let mut waited = WaitedForNews::default();
    loop {
        if app.shutdown.is_draining() {
            return Ok((Extension(waited), StatusCode::NO_CONTENT).into_response());
        }
        let changed = app.ingest.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if let Some((task, lease)) = take(&app, &caller).await? {
            match tasks::spec_for_worker(&app.ingest, &task, lease.as_str()).await? {
                Some(spec) => return leased(&app, &base, &task.id, spec, &lease, waited),
                None => continue,
            }
        }
        let left = deadline.saturating_duration_since(monotonic());
        if left.is_zero() {
            return Ok((Extension(waited), StatusCode::NO_CONTENT).into_response());
        }
        let since = monotonic();
        tokio::select! {
            _ = timeout(left.min(app.config().api.look.get()), changed) => {}
            () = app.shutdown.draining() => {}
        }
        waited.0 += since.elapsed();
    }
}

async fn take(app: &App, caller: &Caller) -> Result<Option<(queue::Task, Id)>, Refusal> {
    // Most polls find nothing, and a transaction that only reads waits for no writer.
    if !queue::any_waiting(&mut app.db.read().await?, app.clock.unix_millis()).await? {
        return Ok(None);
    }
    let lease = Id::random();
    let mut tx = app.db.begin().await?;
    // The key may have gone while its worker waited.
    if find_caller(&mut tx, caller.credential, app.clock.unix_millis()).await?.is_none() {
        return Err(Refusal::Unauthenticated);
    }
    let task = queue::lease(&mut tx, lease.as_str(), &app.config().queue, app.clock.unix_millis()).await?;
    tx.commit().await?;
    Ok(task.map(|task| (task, lease)))
}

/// A task with the lease that its worker holds it by.
#[derive(Serialize, ToSchema)]
#[schema(as = Task)]
pub(super) struct LeasedTask<'a> {
    #[schema(value_type = description::Id)]
    id: &'a Id,
    /// What is to be done.
    #[schema(value_type = Object)]
    spec: Box<RawValue>,
    /// Where the recording is.
    source: Link,
    #[schema(value_type = description::Id)]
    lease: &'a Id,
    /// How long the lease holds without a heartbeat.
    lease_seconds: u64,
    /// What the URLs of its objects begin with.
    objects: Link,
}

/// Where something is.
#[derive(Serialize, ToSchema)]
struct Link {
    url: String,
}

fn leased(app: &App, base: &str, id: &Id, spec: String, lease: &Id, waited: WaitedForNews) -> ApiResult {
    let spec = RawValue::from_string(spec).map_err(|error| Refusal::Internal(error.to_string()))?;
    let body = LeasedTask {
        id,
        spec,
        source: Link { url: format!("{base}/v1/tasks/{id}/source") },
        lease,
        lease_seconds: app.config().queue.lease.get().as_secs(),
        objects: Link { url: format!("{base}/v1/tasks/{id}/objects/") },
    };
    Ok((Extension(waited), answer::json(StatusCode::OK, &body)?).into_response())
}

/// The task of the path, if the request's lease holds it.
async fn held(app: &App, headers: &HeaderMap, id: &str) -> Result<queue::Task, Refusal> {
    let lease = lease_of(headers)?;
    let mut tx = app.db.read().await?;
    queue::leased(&mut tx, &extract::id(id)?, lease).await?.ok_or(Refusal::LeaseLost)
}

/// The lease that a request shows.
fn lease_of(headers: &HeaderMap) -> Result<&str, Refusal> {
    let lease = headers.get(LEASE).and_then(|lease| lease.to_str().ok());
    lease.ok_or_else(|| Refusal::Invalid("Lyceum-Lease is missing.".to_owned()))
}

async fn version(app: &App, task: &queue::Task) -> Result<catalog::Version, Refusal> {
    catalog::version(&mut app.db.read().await?, &task.version).await?.ok_or(Refusal::LeaseLost)
}

/// The recording of a task, by ranges.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/source",
    operation_id = "getSource",
    tag = "workers",
    params(("id" = description::Id, Path, description = "A task."), LeaseOfTask, Range, IfNoneMatch, IfMatch),
    responses(
        (status = 200, description = "All of it.", body = inline(description::Bytes), content_type = "*/*"),
        (
            status = 206,
            description = "The range.",
            body = inline(description::Bytes),
            content_type = "*/*",
            headers(("Content-Range" = String, description = "RFC 9110, section 14.4."))
        )
    )
)]
pub(super) async fn source(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    caller.require_role(&[Role::Worker])?;
    let task = held(&app, &headers, &id).await?;
    let version = version(&app, &task).await?;
    let key = Key::parse(&version.source).map_err(|error| Refusal::Internal(error.to_string()))?;
    match media::object(&app.store, &key, &headers, None).await {
        Err(Refusal::Store(StoreError::NotFound)) => {
            loss::source_is_gone(&app.ingest, &task).await?;
            Err(Refusal::NotFound)
        }
        other => other,
    }
}

/// Upload an object of a task.
#[utoipa::path(
    put,
    path = "/v1/tasks/{id}/objects/{*path}",
    operation_id = "putObject",
    tag = "workers",
    params(
        ("id" = description::Id, Path, description = "A task."),
        ("path" = String, Path, description = "Of the object within its version, with its slashes."),
        LeaseOfTask
    ),
    request_body(
        content = inline(description::Bytes),
        content_type = "application/octet-stream",
        description = "The object."
    ),
    responses((status = 201, description = "It is stored."))
)]
pub(super) async fn put_object(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((id, path)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    caller.require_role(&[Role::Worker])?;
    let (id, lease) = (extract::id(&id)?, lease_of(&headers)?.to_owned());
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut room = app.config().api.object.0;
    let body = body.into_data_stream().map(move |chunk| {
        let chunk = chunk.map_err(|error| StoreError::Source(error.to_string()))?;
        room = room.checked_sub(chunk.len() as u64).ok_or_else(|| StoreError::Source("too large".to_owned()))?;
        Ok(chunk)
    });
    let ingest = Arc::clone(&app.ingest);
    run_to_end(async move { tasks::put_object(&ingest, (&id, &lease), &path, length, body.boxed()).await }).await?;
    Ok(StatusCode::CREATED.into_response())
}

/// A sign of life of the worker that holds a task.
#[derive(Deserialize, ToSchema)]
pub(super) struct Heartbeat {
    lease: String,
    /// From 0 to 1.
    #[serde(default)]
    #[schema(required = false)]
    progress: f64,
    /// Objects made since the last heartbeat; they are committed.
    #[serde(default)]
    #[schema(required = false, value_type = Vec<Object>)]
    handed: Vec<DeliveredObject>,
}

/// Runs `work` to its end even when the worker hangs up, so that what is committed is also counted and announced.
async fn run_to_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, IngestError>> + Send + 'static,
) -> Result<T, Refusal> {
    Ok(tokio::spawn(work).await.map_err(|ended| Refusal::Internal(ended.to_string()))??)
}

/// The answer to a heartbeat.
#[derive(Serialize, ToSchema)]
pub(super) struct HeartbeatAnswer {
    /// Whether the worker shall stop working on the task.
    cancel: bool,
}

/// Renew the lease; objects made since the last heartbeat are committed.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/heartbeat",
    operation_id = "renewTask",
    tag = "workers",
    params(("id" = description::Id, Path, description = "A task.")),
    request_body = Heartbeat,
    responses((status = 200, description = "Whether to go on.", body = HeartbeatAnswer))
)]
pub(super) async fn heartbeat(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    LargeJson(beat): LargeJson<Heartbeat>,
) -> ApiResult {
    caller.require_role(&[Role::Worker])?;
    let progress = if beat.progress.is_finite() { beat.progress } else { 0.0 };
    let (ingest, id) = (Arc::clone(&app.ingest), extract::id(&id)?);
    let cancel =
        run_to_end(async move { tasks::heartbeat(&ingest, &id, &beat.lease, progress, &beat.handed).await }).await?;
    answer::json(StatusCode::OK, &HeartbeatAnswer { cancel })
}

/// The end of a task that is done.
#[derive(Deserialize, ToSchema)]
pub(super) struct Completion {
    lease: String,
    /// Objects made since the last heartbeat.
    #[serde(default)]
    #[schema(required = false, value_type = Vec<Object>)]
    segments: Vec<DeliveredObject>,
    /// What a probe found.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    report: Option<MediaInfo>,
}

/// The task is done.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/complete",
    operation_id = "completeTask",
    tag = "workers",
    params(("id" = description::Id, Path, description = "A task.")),
    request_body = Completion,
    responses((status = 204, description = "It is taken."))
)]
pub(super) async fn complete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    LargeJson(done): LargeJson<Completion>,
) -> ApiResult {
    caller.require_role(&[Role::Worker])?;
    let (ingest, id) = (Arc::clone(&app.ingest), extract::id(&id)?);
    run_to_end(async move { tasks::complete(&ingest, &id, &done.lease, &done.segments, done.report).await }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The end of a task that failed.
#[derive(Deserialize, ToSchema)]
pub(super) struct Failure {
    lease: String,
    /// Why: `[a-z0-9_]{1,64}`.
    code: String,
    /// A sentence for the creator.
    #[serde(default)]
    #[schema(required = false)]
    detail: String,
    /// Whether another try may succeed.
    #[serde(default)]
    #[schema(required = false)]
    retry: bool,
}

/// The task failed.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/fail",
    operation_id = "failTask",
    tag = "workers",
    params(("id" = description::Id, Path, description = "A task.")),
    request_body = Failure,
    responses((status = 204, description = "It is taken."))
)]
pub(super) async fn fail(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    LargeJson(failure): LargeJson<Failure>,
) -> ApiResult {
    caller.require_role(&[Role::Worker])?;
    let is_code = (1..=64).contains(&failure.code.len())
        && failure.code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let code = if is_code { failure.code.as_str() } else { "media_crashed" };
    let detail: String = failure.detail.chars().filter(|c| !c.is_control()).take(500).collect();
    let retry = match code {
        _ if !failure.retry => Retry::Never,
        "worker_transfer_failed" | "worker_draining" => Retry::Uncounted,
        _ => Retry::Counted,
    };
    tasks::fail(&app.ingest, &extract::id(&id)?, &failure.lease, code, &detail, retry).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

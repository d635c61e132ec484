//! Playback sessions over HTTP: begun by a shop's backend or a creator's page, ended by the shop, and their streams
//! leased by edges. The rules are [`crate::playback`]'s.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{self, ApiResult};
use super::auth::Edge;
use super::description::{self, IdempotencyKey};
use super::extract::{self, Path};
use super::idempotency::{Once, Repeat};
use super::refusal::Refusal;
use super::rfc3339;
use crate::access::{Caller, visible_lesson};
use crate::playback::client_network::ClientNetwork;
use crate::playback::session::{self, PlaybackSession, Preview, SessionRequest};
use crate::playback::stream;
use crate::state::App;
use lyceum_catalog::Role;
use lyceum_core::ids::Id;

/// The body of `POST /v1/playback`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPlayback {
    /// Whose playback it is. Without one, a creator or an admin watches what is theirs.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    user: Option<String>,
    #[schema(value_type = description::Id)]
    lesson: String,
    /// The largest rendition, by its shorter side.
    #[serde(default)]
    max_height: Option<u32>,
    /// The session that goes on, where the page renews its token: a new one would count as a second stream.
    #[serde(default)]
    #[schema(value_type = Option<description::Id>)]
    session: Option<String>,
    /// What the token is bound to.
    #[serde(default, deserialize_with = "extract::object")]
    client: Option<Client>,
    /// Only so many seconds from the start, for a user who has not bought the course.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 3600)]
    preview: Option<f64>,
}

/// Who may use the token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Client {
    /// An address or a network (`203.0.113.7`, `2001:db8::/48`) that requests must come from, as edges see it.
    ip: String,
}

impl NewPlayback {
    fn check(self) -> Result<SessionRequest, Refusal> {
        Ok(SessionRequest {
            preview: self.preview.map(Preview::from_seconds).transpose()?,
            client: self.client.map(|client| ClientNetwork::parse(&client.ip)).transpose()?,
            viewer: self.user.as_deref().map(extract::viewer).transpose()?,
            renews: self.session.as_deref().map(extract::id).transpose()?,
            max_height: self.max_height,
        })
    }
}

/// The answer to `POST /v1/playback`.
#[derive(Serialize, ToSchema)]
pub(super) struct Playback {
    /// The playlist at the edge that this session falls to.
    #[schema(required)]
    url: Option<String>,
    /// The playlist at every edge, in the order in which a player should try them.
    urls: Vec<String>,
    token: String,
    #[schema(value_type = description::Id)]
    session: Id,
    /// When the token ends (RFC 3339).
    #[schema(format = DateTime)]
    expires_at: String,
}

impl From<PlaybackSession> for Playback {
    fn from(session: PlaybackSession) -> Self {
        Self {
            url: session.urls.first().cloned(),
            urls: session.urls,
            token: session.token,
            session: session.id,
            expires_at: rfc3339::format(session.expires),
        }
    }
}

/// Start a playback session: a token for an entitled user, and the playlists.
#[utoipa::path(
    post,
    path = "/v1/playback",
    operation_id = "startPlayback",
    tag = "playback",
    params(IdempotencyKey),
    request_body = NewPlayback,
    responses(
        (status = 201, description = "The session.", body = Playback),
        (
            status = 403,
            description = "The user has no entitlement: `not_entitled`.",
            body = description::Problem,
            content_type = "application/problem+json"
        ),
        (
            status = 409,
            description = "The lesson can't be played yet: `not_playable`. The session that was named is over: `session_revoked`.",
            body = description::Problem,
            content_type = "application/problem+json"
        )
    )
)]
pub(super) async fn start(
    State(app): State<Arc<App>>,
    caller: Caller,
    Once { value: new, repeat }: Once<NewPlayback>,
) -> ApiResult {
    let answer = begin(&app, &caller, new, &repeat).await;
    let result = match &answer {
        Ok(_) => "ok",
        Err(Refusal::Playback(error)) => error.metric_label(),
        Err(_) => "error",
    };
    app.metrics.playbacks.with_label_values(&[result]).inc();
    answer
}

/// What is looked at of the answer that is kept under an `Idempotency-Key`.
#[derive(Deserialize)]
struct KeptPlayback {
    session: Id,
}

async fn begin(app: &App, caller: &Caller, new: NewPlayback, repeat: &Repeat) -> ApiResult {
    caller.require_role(&[Role::Shop, Role::Creator])?;
    let mut tx = app.db.begin().await?;
    let lesson = visible_lesson(&mut tx, caller, &extract::id(&new.lesson)?).await?;
    if let Some(KeptPlayback { session }) = repeat.known(&mut tx, caller).await? {
        if session::is_running(app, &mut tx, &session).await?
            && let Some(answer) = repeat.answered(&mut tx, caller).await?
        {
            return Ok(answer);
        }
        // Its session was revoked or is over: that token is good for nothing, so whether there is a new one is decided anew.
        repeat.forget(&mut tx, caller).await?;
    }
    let session = session::start(app, &mut tx, caller, &lesson, new.check()?).await?;
    let body = Playback::from(session);
    repeat.keep(&mut tx, caller, StatusCode::CREATED, &body, app.clock.unix_millis()).await?;
    tx.commit().await?;
    let mut response = answer::json(StatusCode::CREATED, &body)?;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Revoke a session.
#[utoipa::path(
    delete,
    path = "/v1/sessions/{id}",
    operation_id = "revokeSession",
    tag = "playback",
    params(("id" = description::Id, Path, description = "A session.")),
    responses((status = 204, description = "It is revoked."))
)]
pub(super) async fn end(State(app): State<Arc<App>>, caller: Caller, Path(id): Path<String>) -> ApiResult {
    caller.require_role(&[Role::Shop])?;
    session::end(&app, &caller, &extract::id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Take or renew the lease of a session's stream.
#[utoipa::path(
    post,
    path = "/v1/sessions/{id}/lease",
    operation_id = "leaseStream",
    tag = "edges",
    security(("edge" = [])),
    params(("id" = description::Id, Path, description = "A session.")),
    responses(
        (status = 204, description = "The edge may serve it."),
        (
            status = 409,
            description = "The viewer's streams are used up: `too_many_streams`. The session is over: `session_revoked`.",
            body = description::Problem,
            content_type = "application/problem+json"
        )
    )
)]
pub(super) async fn lease_stream(State(app): State<Arc<App>>, _: Edge, Path(id): Path<String>) -> ApiResult {
    stream::lease(&app, &extract::id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

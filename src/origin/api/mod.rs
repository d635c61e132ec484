//! The origin's API over HTTP: this file is the table of its routes. Handlers translate between HTTP and the rules of
//! [`crate::access`], [`crate::playback`] and [`crate::ingest`]; what can go wrong is told by one table, in `refusal`.

mod answer;
mod audit;
mod auth;
pub(crate) mod cors;
mod courses;
mod entitlements;
mod extract;
mod idempotency;
mod instant;
mod keys;
mod lesson_events;
mod lessons;
mod login;
mod media;
mod openapi;
mod pages;
mod paging;
mod playback;
mod quota;
pub(crate) mod refusal;
mod revocations;
mod rfc3339;
mod secrets;
mod subtitles;
mod tasks;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use http::{HeaderValue, header};

use crate::state::App;

/// All routes, with their state.
pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/openapi.json", get(openapi::document))
        .route("/.well-known/jwks.json", get(jwks))
        .route("/v1/keys", get(keys::list).post(keys::create))
        .route("/v1/keys/{id}", get(keys::show).patch(keys::change).delete(keys::remove))
        .route("/v1/keys/{id}/secrets", get(secrets::list).post(secrets::add))
        .route("/v1/keys/{id}/secrets/{secret}", delete(secrets::remove))
        .route("/v1/keys/{id}/rotate", post(secrets::rotate))
        .route("/v1/login", post(login::login))
        .route("/v1/logout", post(login::logout))
        .route("/v1/me", get(login::me))
        .route("/v1/courses", get(courses::list).post(courses::create))
        .route("/v1/courses/{id}", get(courses::show).patch(courses::change).delete(courses::remove))
        .route("/v1/courses/{id}/lessons", get(courses::lessons).post(courses::add_lesson))
        .route("/v1/lessons/{id}", get(lessons::show).patch(lessons::change).delete(lessons::remove))
        .route("/v1/lessons/{id}/events", get(lesson_events::follow))
        .route("/v1/lessons/{id}/media", post(uploads::whole_file))
        .route("/v1/lessons/{id}/retry", post(lessons::retry))
        .route("/v1/lessons/{id}/subtitles", get(subtitles::list))
        .route("/v1/lessons/{id}/subtitles/{language}", put(subtitles::put).delete(subtitles::remove))
        .route("/v1/uploads", get(uploads::list).post(uploads::create).options(uploads::options))
        .route(
            "/v1/uploads/{id}",
            get(uploads::head)
                .head(uploads::head)
                .patch(uploads::append)
                .delete(uploads::terminate)
                .post(uploads::overridden)
                .options(uploads::options),
        )
        .route("/v1/entitlements", put(entitlements::grant))
        .route("/v1/entitlements/{user}", get(entitlements::list))
        .route("/v1/entitlements/{user}/{course}", delete(entitlements::withdraw))
        .route("/v1/playback", post(playback::start))
        .route("/v1/sessions/{id}", delete(playback::end))
        .route("/v1/sessions/{id}/lease", post(playback::lease_stream))
        .route("/v1/audit", get(audit::list))
        .route("/v1/revocations", get(revocations::feed))
        .route("/v1/tasks/lease", post(tasks::lease))
        .route("/v1/tasks/{id}/source", get(tasks::source))
        .route("/v1/tasks/{id}/objects/{*path}", put(tasks::put_object))
        .route("/v1/tasks/{id}/heartbeat", post(tasks::heartbeat))
        .route("/v1/tasks/{id}/complete", post(tasks::complete))
        .route("/v1/tasks/{id}/fail", post(tasks::fail))
        .route("/v/{lesson}/{*path}", get(media::serve))
        .fallback(pages::serve)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

async fn wrong_method() -> Response {
    lyceum_http::problem::response(
        http::StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This method is not allowed here.",
    )
}

async fn jwks(State(app): State<Arc<App>>) -> Response {
    let mut response = axum::Json(&*app.signing_keys.published()).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
    response
}

//! The origin's API over HTTP: this file is the table of its routes, which are described where they are handled. Handlers
//! translate between HTTP and the rules of [`crate::access`], [`crate::playback`] and [`crate::ingest`]; what can go wrong
//! is told by one table, in `refusal`.

mod answer;
mod audit;
mod auth;
mod codes;
pub(crate) mod cors;
mod courses;
mod description;
mod entitlements;
mod extract;
mod idempotency;
mod instant;
mod keys;
mod lesson_events;
mod lessons;
mod login;
mod media;
mod open_uploads;
mod openapi;
mod pages;
mod paging;
mod playback;
pub(crate) mod refusal;
mod revocations;
mod rfc3339;
mod secrets;
mod subtitles;
mod tasks;
mod tus_fields;
mod uploads;
mod whole_file;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::{HeaderValue, header};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::App;

/// The routes, each with the description that stands at its handler.
fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(healthz))
        .routes(routes!(jwks))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::show, keys::change, keys::remove))
        .routes(routes!(secrets::list, secrets::add))
        .routes(routes!(secrets::remove))
        .routes(routes!(secrets::rotate))
        .routes(routes!(login::login))
        .routes(routes!(login::logout))
        .routes(routes!(login::me))
        .routes(routes!(courses::list, courses::create))
        .routes(routes!(courses::show, courses::change, courses::remove))
        .routes(routes!(courses::lessons, courses::add_lesson))
        .routes(routes!(lessons::show, lessons::change, lessons::remove))
        .routes(routes!(lesson_events::follow))
        .routes(routes!(whole_file::upload))
        .routes(routes!(lessons::retry))
        .routes(routes!(subtitles::list))
        .routes(routes!(subtitles::put, subtitles::remove))
        .routes(routes!(open_uploads::list, uploads::create, uploads::options))
        .routes(routes!(
            uploads::show,
            uploads::head,
            uploads::append,
            uploads::terminate,
            uploads::overridden,
            uploads::options_of_one
        ))
        .routes(routes!(entitlements::grant))
        .routes(routes!(entitlements::list))
        .routes(routes!(entitlements::withdraw))
        .routes(routes!(playback::start))
        .routes(routes!(playback::end))
        .routes(routes!(playback::lease_stream))
        .routes(routes!(audit::list))
        .routes(routes!(revocations::feed))
        .routes(routes!(tasks::lease))
        .routes(routes!(tasks::source))
        .routes(routes!(tasks::put_object))
        .routes(routes!(tasks::heartbeat))
        .routes(routes!(tasks::complete))
        .routes(routes!(tasks::fail))
        .routes(routes!(media::serve))
}

/// All routes, with their state.
pub(super) fn router(app: Arc<App>) -> Router {
    let routes = routes();
    let description = OpenApiRouter::new().routes(routes!(openapi::document));
    let mut described = routes.get_openapi().clone();
    described.merge(description.get_openapi().clone());
    let described: openapi::Described = Arc::new(openapi::complete(described));
    Router::from(routes)
        .merge(Router::from(description).layer(Extension(described)))
        .fallback(pages::serve)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

/// Whether the origin is up.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "getHealth",
    tag = "service",
    security(()),
    responses((status = 200, description = "It is.", body = String, content_type = "text/plain"))
)]
async fn healthz() -> &'static str {
    "ok\n"
}

async fn wrong_method() -> Response {
    lyceum_http::problem::response(
        http::StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This method is not allowed here.",
    )
}

/// The keys that tokens are signed with (RFC 7517).
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    operation_id = "getSigningKeys",
    tag = "service",
    security(()),
    responses((status = 200, description = "The keys.", body = description::Jwks))
)]
async fn jwks(State(app): State<Arc<App>>) -> Response {
    let mut response = axum::Json(&*app.signing_keys.published()).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
    response
}

//! Logins of the web pages: an API key is exchanged for a cookie that scripts can't read.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cookie::{Cookie, SameSite};
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{self, ApiResult};
use super::auth::{self, Brake};
use super::description::{self, IfNoneMatch};
use super::extract::Json;
use super::refusal::Refusal;
use crate::access::Caller;
use crate::ingest::quota;
use crate::state::App;
use lyceum_catalog::{self as catalog, Identity};
use lyceum_core::ids::Id;

#[derive(Deserialize, ToSchema)]
#[schema(as = Login)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    /// An API key.
    key: String,
}

/// The key that a request carries.
#[derive(Serialize, ToSchema)]
pub(super) struct Me {
    #[schema(value_type = description::Id)]
    id: Id,
    #[schema(value_type = description::Role)]
    role: &'static str,
    name: String,
    /// Left out in the answer to a login.
    #[serde(skip_serializing_if = "Option::is_none")]
    uploads: Option<UploadLimits>,
}

/// What a key may upload.
#[derive(Serialize, ToSchema)]
struct UploadLimits {
    /// The largest upload, in bytes.
    size: u64,
    /// Media types; `*` at the end stands for any rest.
    types: Vec<String>,
    /// How many bytes of recordings the key may keep; null: no quota.
    #[schema(required)]
    quota: Option<u64>,
    /// How many of them are used; null: no quota.
    #[schema(required)]
    used: Option<u64>,
}

fn describe(key: Identity, uploads: Option<UploadLimits>) -> Me {
    Me { id: key.id, role: key.role.as_str(), name: key.name, uploads }
}

/// A response that sets the login cookie; no `secret` removes it from the browser.
fn with_cookie(app: &App, secret: &str, max_age: Duration, mut response: Response) -> ApiResult {
    let cookie = Cookie::build((auth::LOGIN_COOKIE, secret))
        .path("/")
        .max_age(cookie::time::Duration::try_from(max_age).unwrap_or(cookie::time::Duration::MAX))
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(app.config().public_url.starts_with("https:"))
        .build();
    let cookie = HeaderValue::try_from(cookie.to_string()).map_err(|error| Refusal::Internal(error.to_string()))?;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Exchange an API key for a page's cookie.
#[utoipa::path(
    post,
    path = "/v1/login",
    operation_id = "login",
    tag = "login",
    security(()),
    request_body = Credentials,
    responses(
        (
            status = 200,
            description = "The key; the cookie is set.",
            body = Me,
            headers(("Set-Cookie" = String, description = "`lyceum_login`, for pages of this origin."))
        )
    )
)]
pub(super) async fn login(
    State(app): State<Arc<App>>,
    extensions: Extensions,
    headers: HeaderMap,
    Json(credentials): Json<Credentials>,
) -> ApiResult {
    // A page of another site could log a browser in under a key of its own (login CSRF).
    if headers.contains_key(header::ORIGIN) && !auth::is_same_origin(&app, &headers) {
        return Err(Refusal::CrossSite);
    }
    let brake = Brake::on_login(&app, &extensions, &credentials.key);
    brake.as_ref().map_or(Ok(()), Brake::check)?;
    let mut tx = app.db.begin().await?;
    let (now, hash) = (app.clock.unix_millis(), catalog::hash_secret(&credentials.key));
    let Some((identity, key)) = catalog::find_by_secret(&mut tx, hash, now).await? else {
        if let Some(brake) = brake {
            brake.count();
        }
        return Err(Refusal::Unauthenticated);
    };
    let secret = catalog::new_secret("lyp");
    let lifetime = app.config().api.login.get();
    let expires = now.saturating_add(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX));
    catalog::add_login(&mut tx, catalog::hash_secret(&secret), &key, expires).await?;
    let actor = identity.id.as_str();
    catalog::add_audit_entry(&mut tx, now, actor, "login", actor, key.as_str()).await?;
    tx.commit().await?;
    with_cookie(&app, &secret, lifetime, answer::json(StatusCode::OK, &describe(identity, None))?)
}

/// End a page's login.
#[utoipa::path(
    post,
    path = "/v1/logout",
    operation_id = "logout",
    tag = "login",
    security(()),
    responses(
        (
            status = 204,
            description = "The cookie is removed.",
            headers(("Set-Cookie" = String, description = "Removes `lyceum_login`."))
        )
    )
)]
pub(super) async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> ApiResult {
    if headers.contains_key(header::ORIGIN) && !auth::is_same_origin(&app, &headers) {
        return Err(Refusal::CrossSite);
    }
    if let Some(secret) = auth::login_cookie(&headers) {
        let mut tx = app.db.begin().await?;
        catalog::delete_login(&mut tx, catalog::hash_secret(&secret)).await?;
        tx.commit().await?;
    }
    with_cookie(&app, "", Duration::ZERO, StatusCode::NO_CONTENT.into_response())
}

/// The key that the request carries, and what it may upload.
///
/// A page can check a file before it sends it.
#[utoipa::path(
    get,
    path = "/v1/me",
    operation_id = "getMe",
    tag = "login",
    params(IfNoneMatch),
    responses((status = 200, description = "The key.", body = Me))
)]
pub(super) async fn me(State(app): State<Arc<App>>, caller: Caller, headers: HeaderMap) -> ApiResult {
    let quota = quota::of(&app.ingest, &mut app.db.read().await?, &caller).await?;
    let config = app.config();
    let uploads = UploadLimits {
        size: config.uploads.size.0,
        types: config.uploads.types.clone(),
        quota: quota.map(|quota| quota.bytes),
        used: quota.map(|quota| quota.used),
    };
    answer::shown(&headers, &describe(caller.identity, Some(uploads)))
}

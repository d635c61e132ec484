//! Logins of the web pages: an API key is exchanged for a cookie that scripts can't read.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cookie::{Cookie, SameSite};
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::answer::{self, ApiResult};
use super::auth::{self, Brake};
use super::extract::Json;
use super::quota;
use super::refusal::Refusal;
use crate::access::Caller;
use crate::state::App;
use lyceum_catalog as catalog;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    key: String,
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

/// `POST /v1/login`.
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
    let body =
        axum::Json(serde_json::json!({ "id": identity.id, "role": identity.role.as_str(), "name": identity.name }));
    with_cookie(&app, &secret, lifetime, body.into_response())
}

/// `POST /v1/logout`.
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

/// `GET /v1/me`: the caller's key and role, and what it may upload, so that a page can check before it sends.
pub(super) async fn me(State(app): State<Arc<App>>, caller: Caller, headers: HeaderMap) -> ApiResult {
    let quota = quota::of(&app, &mut app.db.read().await?, &caller).await?;
    let key = caller.identity;
    let uploads = serde_json::json!({
        "size": app.config().uploads.size.0,
        "types": app.config().uploads.types,
        "quota": quota.map(|quota| quota.bytes),
        "used": quota.map(|quota| quota.used),
    });
    let body = serde_json::json!({ "id": key.id, "role": key.role.as_str(), "name": key.name, "uploads": uploads });
    answer::tagged(StatusCode::OK, &headers, &body)
}

//! Reading requests: JSON bodies within a bound, ids, pages of lists.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::App;
use super::auth::Caller;
use super::error::Refusal;
use lyceum_catalog::{self as catalog, Page, Remembered};
use lyceum_core::ids::Id;
use lyceum_http::conditional::{self, ETag, Outcome, Validators};
use lyceum_storage::db::Tx;

/// The variable parts of a path; what is no text names nothing.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let path = extract::Path::from_request_parts(parts, app).await;
        path.map(|extract::Path(value)| Self(value)).map_err(|_| Refusal::NotFound)
    }
}

/// The parameters of a query, each of them known.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        match extract::Query::from_request_parts(parts, app).await {
            Ok(extract::Query(value)) => Ok(Self(value)),
            Err(error) => Err(Refusal::Invalid(format!("The query is not as it should be: {}.", error.body_text()))),
        }
    }
}

/// A JSON body of at most `api.body` bytes.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        read_json(request, app.config().api.body.as_usize()).await.map(Self)
    }
}

/// A JSON body, and whether the request may have come before (`Idempotency-Key`).
pub(super) struct Once<T> {
    pub(super) value: T,
    pub(super) repeat: Repeat,
}

/// The key under which a request may come again, and what tells it from others.
pub(super) struct Repeat {
    key: Option<String>,
    fingerprint: [u8; 32],
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Once<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        if !is_json(&parts.headers) {
            return Err(Refusal::UnsupportedType);
        }
        let key = idempotency_key(&parts.headers)?;
        let bytes = read_body(body, app.config().api.body.as_usize()).await?;
        let fingerprint = fingerprint(&format!("{} {}", parts.method, parts.uri.path()), &bytes);
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| Refusal::Invalid(format!("The body is not as it should be: {error}.")))?;
        Ok(Self { value, repeat: Repeat { key, fingerprint } })
    }
}

/// `Idempotency-Key`, if there is one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let key = headers.get("idempotency-key").map(|key| key.to_str().unwrap_or_default().to_owned());
    match key {
        Some(key) if !(1..=200).contains(&key.len()) => {
            Err(Refusal::Invalid("Idempotency-Key has 1 to 200 printable characters.".to_owned()))
        }
        key => Ok(key),
    }
}

fn fingerprint(what: &str, body: &[u8]) -> [u8; 32] {
    let mut whole = format!("{what}\n").into_bytes();
    whole.extend_from_slice(body);
    <[u8; 32]>::try_from(digest(&SHA256, &whole).as_ref()).unwrap_or_default()
}

impl Repeat {
    /// Of a request whose body is too large to be looked at: what its head says has to do.
    pub(super) fn of(headers: &HeaderMap, what: &str) -> Result<Self, Refusal> {
        Ok(Self { key: idempotency_key(headers)?, fingerprint: fingerprint(what, &[]) })
    }

    /// The body of the answer of the first time, if this is not it.
    pub(super) async fn known(&self, tx: &mut Tx, caller: &Caller) -> Result<Option<serde_json::Value>, Refusal> {
        let Some(key) = &self.key else { return Ok(None) };
        match catalog::remembered(tx, caller.key.id.as_str(), key, self.fingerprint).await? {
            Remembered::New => Ok(None),
            Remembered::Other => Err(Refusal::KeyReused),
            Remembered::Answer(_, body) => {
                serde_json::from_str(&body).map(Some).map_err(|error| Refusal::Internal(error.to_string()))
            }
        }
    }

    /// What the first time brought came to nothing: this is a first time again.
    pub(super) async fn forget(&self, tx: &mut Tx, caller: &Caller) -> Result<(), Refusal> {
        let Some(key) = &self.key else { return Ok(()) };
        Ok(catalog::forget_answer(tx, caller.key.id.as_str(), key).await?)
    }

    /// The answer of the first time, if this is not it.
    pub(super) async fn answered(&self, tx: &mut Tx, caller: &Caller) -> Result<Option<Response>, Refusal> {
        let Some(key) = &self.key else { return Ok(None) };
        match catalog::remembered(tx, caller.key.id.as_str(), key, self.fingerprint).await? {
            Remembered::New => Ok(None),
            Remembered::Other => Err(Refusal::KeyReused),
            Remembered::Answer(status, body) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
                let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
                response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
                Ok(Some(response))
            }
        }
    }

    /// Keeps the answer with the effect.
    pub(super) async fn keep(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        status: StatusCode,
        body: &serde_json::Value,
        now: i64,
    ) -> Result<(), Refusal> {
        let Some(key) = &self.key else { return Ok(()) };
        let whose = (caller.key.id.as_str(), key.as_str(), self.fingerprint);
        Ok(catalog::keep_answer(tx, whose, status.as_u16(), &body.to_string(), now).await?)
    }
}

/// A JSON body of at most sixteen times `api.body` bytes: what workers report.
pub(super) struct LargeJson<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for LargeJson<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        read_json(request, app.config().api.body.as_usize().saturating_mul(16)).await.map(Self)
    }
}

async fn read_json<T: DeserializeOwned>(request: Request, limit: usize) -> Result<T, Refusal> {
    let (parts, body) = request.into_parts();
    if !is_json(&parts.headers) {
        return Err(Refusal::UnsupportedType);
    }
    let bytes = read_body(body, limit).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::Invalid(format!("The body is not as it should be: {error}.")))
}

/// A JSON answer with the entity tag of its text (RFC 9110, section 8.8.3): 304 where the request knows it already.
pub(super) fn tagged(status: StatusCode, request: &HeaderMap, value: &impl Serialize) -> Result<Response, Refusal> {
    let text = serde_json::to_string(value).map_err(|error| Refusal::Internal(error.to_string()))?;
    let tag = entity_tag(&text);
    if status == StatusCode::OK && judge(request, &tag)? == Outcome::NotModified {
        return dressed(StatusCode::NOT_MODIFIED.into_response(), &tag);
    }
    let response = (status, [(header::CONTENT_TYPE, "application/json")], text).into_response();
    dressed(response, &tag)
}

fn dressed(mut response: Response, tag: &str) -> Result<Response, Refusal> {
    let tag = HeaderValue::try_from(tag).map_err(|error| Refusal::Internal(error.to_string()))?;
    response.headers_mut().insert(header::ETAG, tag);
    // What one caller sees, another may not; and it may change at any moment.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

fn entity_tag(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    let tag: String = hash.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{tag}\"")
}

fn judge(request: &HeaderMap, tag: &str) -> Result<Outcome, Refusal> {
    match conditional::judge(request, &Validators { etag: ETag::parse(tag), ..Validators::default() }) {
        Outcome::Failed => Err(Refusal::PreconditionFailed),
        outcome => Ok(outcome),
    }
}

/// Refuses a change whose `If-Match` names another state than `now`, inside the transaction that makes it
/// (RFC 9110, section 13.1.1), or whose `If-None-Match` names this one.
pub(super) fn unchanged(request: &HeaderMap, now: &impl Serialize) -> Result<(), Refusal> {
    if !conditional::is_conditional(request) {
        return Ok(());
    }
    let text = serde_json::to_string(now).map_err(|error| Refusal::Internal(error.to_string()))?;
    match judge(request, &entity_tag(&text))? {
        Outcome::Go => Ok(()),
        _ => Err(Refusal::PreconditionFailed),
    }
}

/// A whole body in memory, at most `limit` bytes.
pub(super) async fn read_body(body: Body, limit: usize) -> Result<bytes::Bytes, Refusal> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge),
        Err(error) => Err(Refusal::Invalid(format!("The body broke off: {error}."))),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// An id out of a path; what is none names nothing.
pub(super) fn id(text: &str) -> Result<Id, Refusal> {
    Id::parse(text).map_err(|_| Refusal::NotFound)
}

/// A title: 1 to 200 characters, no controls.
pub(super) fn title(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    if (1..=200).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Refusal::Invalid("A title has 1 to 200 characters.".to_owned()))
}

/// A viewer as the shop names them: 1 to 200 bytes, no controls.
pub(super) fn viewer(text: &str) -> Result<String, Refusal> {
    if (1..=200).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Refusal::Invalid("A user is named by 1 to 200 bytes.".to_owned()))
}

/// `?after=…&limit=…` of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    after: Option<String>,
    limit: Option<u64>,
}

impl Paging {
    /// One row more than is shown, which tells whether there is a next page.
    pub(super) fn page(&self, most: u64) -> Result<Page, Refusal> {
        let wrong = || Refusal::Invalid("`after` is what a page before gave as `next`.".to_owned());
        let after = match self.after.as_deref() {
            None => (0, String::new()),
            Some(text) => {
                let (created, id) = text.split_once('.').ok_or_else(wrong)?;
                (created.parse().map_err(|_| wrong())?, id.to_owned())
            }
        };
        Ok(Page { after, limit: i64::try_from(self.limit(most)).unwrap_or(i64::MAX).saturating_add(1) })
    }

    fn limit(&self, most: u64) -> u64 {
        self.limit.unwrap_or(most).clamp(1, most)
    }

    /// The page that is shown.
    pub(super) fn show<T, S: Serialize>(
        &self,
        request: &HeaderMap,
        most: u64,
        mut rows: Vec<T>,
        at: impl Fn(&T) -> (i64, &str),
        show: impl Fn(T) -> S,
    ) -> Result<Response, Refusal> {
        let limit = usize::try_from(self.limit(most)).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| {
            let (created, id) = at(row);
            format!("{created}.{id}")
        });
        let items: Vec<S> = rows.into_iter().map(show).collect();
        tagged(StatusCode::OK, request, &serde_json::json!({ "items": items, "next": next }))
    }
}

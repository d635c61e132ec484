//! `Idempotency-Key`: a request that comes again, because its answer was lost, is answered as the first time. The answer
//! is kept in the transaction of the effect.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::extract::{is_json, parse, read_body};
use super::refusal::Refusal;
use crate::access::Caller;
use crate::state::App;
use lyceum_catalog::{self as catalog, KnownAnswer};
use lyceum_storage::db::Tx;

/// A JSON body with its `Idempotency-Key`.
pub(super) struct Once<T> {
    pub(super) value: T,
    pub(super) repeat: Repeat,
}

/// The `Idempotency-Key` of a request, if it has one, and a fingerprint that tells a repetition from another request
/// under the same key.
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
        let value = parse(&bytes)?;
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
    /// For a request whose body is too large for a fingerprint: `what` describes it by its head.
    pub(super) fn of(headers: &HeaderMap, what: &str) -> Result<Self, Refusal> {
        Ok(Self { key: idempotency_key(headers)?, fingerprint: fingerprint(what, &[]) })
    }

    /// The body of the first answer, if this request is a repetition.
    pub(super) async fn known<T: DeserializeOwned>(&self, tx: &mut Tx, caller: &Caller) -> Result<Option<T>, Refusal> {
        let Some(key) = &self.key else { return Ok(None) };
        match catalog::known_answer(tx, caller.id(), key, self.fingerprint).await? {
            KnownAnswer::None => Ok(None),
            KnownAnswer::OtherRequest => Err(Refusal::KeyReused),
            KnownAnswer::Same(_, body) => {
                serde_json::from_str(&body).map(Some).map_err(|error| Refusal::Internal(error.to_string()))
            }
        }
    }

    /// Forgets the first answer because its effect is gone: the request counts as new.
    pub(super) async fn forget(&self, tx: &mut Tx, caller: &Caller) -> Result<(), Refusal> {
        let Some(key) = &self.key else { return Ok(()) };
        Ok(catalog::forget_answer(tx, caller.id(), key).await?)
    }

    /// The first answer, if this request is a repetition.
    pub(super) async fn answered(&self, tx: &mut Tx, caller: &Caller) -> Result<Option<Response>, Refusal> {
        let Some(key) = &self.key else { return Ok(None) };
        match catalog::known_answer(tx, caller.id(), key, self.fingerprint).await? {
            KnownAnswer::None => Ok(None),
            KnownAnswer::OtherRequest => Err(Refusal::KeyReused),
            KnownAnswer::Same(status, body) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
                let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
                response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
                Ok(Some(response))
            }
        }
    }

    /// Keeps the answer for repetitions, in the transaction of the effect.
    pub(super) async fn keep(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        status: StatusCode,
        body: &impl Serialize,
        now: i64,
    ) -> Result<(), Refusal> {
        let Some(key) = &self.key else { return Ok(()) };
        let body = serde_json::to_string(body).map_err(|error| Refusal::Internal(error.to_string()))?;
        let whose = (caller.id(), key.as_str(), self.fingerprint);
        Ok(catalog::keep_answer(tx, whose, status.as_u16(), &body, now).await?)
    }
}

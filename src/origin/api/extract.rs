//! Extractors and small readers of a request: path and query parameters, JSON bodies within a bound, ids, titles and
//! user names. Each refuses what it cannot read.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::refusal::Refusal;
use crate::state::App;
use lyceum_core::ids::Id;

/// The variable parts of a path. What is not UTF-8 is refused as not found.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let path = extract::Path::from_request_parts(parts, app).await;
        path.map(|extract::Path(value)| Self(value)).map_err(|_| Refusal::NotFound)
    }
}

/// The parameters of a query; unknown ones are refused.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        match extract::Query::from_request_parts(parts, app).await {
            Ok(extract::Query(value)) => Ok(Self(value)),
            Err(error) => Err(Refusal::Invalid(format!("The query can't be read: {}.", error.body_text()))),
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

/// A JSON body of at most sixteen times `api.body` bytes: the reports of workers.
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
    parse(&read_body(body, limit).await?)
}

/// A JSON body as a `T`: an object, where `serde` takes an array for one by the order of its members too.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'{') {
        return Err(Refusal::Invalid("The body is a JSON object.".to_owned()));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read: Result<T, _> = serde_path_to_error::deserialize(&mut reader);
    let value = read.map_err(|error| {
        let (at, what) = (error.path().to_string(), error.into_inner());
        match at.as_str() {
            "." | "?" => Refusal::Invalid(format!("The body can't be read: {what}.")),
            _ => Refusal::Invalid(format!("`{at}` can't be read: {what}.")),
        }
    })?;
    reader.end().map_err(|error| Refusal::Invalid(format!("The body can't be read: {error}.")))?;
    Ok(value)
}

/// For a member that is an object: an array is refused, see [`parse`].
pub(super) fn object<'de, D: serde::Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    let object: Option<serde_json::Map<String, serde_json::Value>> = serde::Deserialize::deserialize(from)?;
    let read = object.map(|object| serde_json::from_value(serde_json::Value::Object(object))).transpose();
    read.map_err(serde::de::Error::custom)
}

/// Reads a body into memory, at most `limit` bytes.
pub(super) async fn read_body(body: Body, limit: usize) -> Result<bytes::Bytes, Refusal> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge),
        Err(error) => Err(Refusal::Invalid(format!("The body ended early: {error}."))),
    }
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// An id from a path or body. What is not an id names nothing: not found.
pub(super) fn id(text: &str) -> Result<Id, Refusal> {
    Id::parse(text).map_err(|_| Refusal::NotFound)
}

/// A title: 1 to 200 characters, no control characters.
pub(super) fn title(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    if (1..=200).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Refusal::Invalid("A title has 1 to 200 characters.".to_owned()))
}

/// A viewer as the shop names them: 1 to 200 bytes, no control characters.
pub(super) fn viewer(text: &str) -> Result<String, Refusal> {
    if (1..=200).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Refusal::Invalid("A user is named by 1 to 200 bytes.".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        name: String,
        #[serde(default)]
        size: Option<u32>,
        #[serde(default, deserialize_with = "object")]
        inner: Option<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        ip: String,
    }

    #[test]
    fn a_body_is_an_object_and_a_wrong_member_is_named() {
        let good: Body = parse(br#" {"name": "a", "size": 3, "inner": {"ip": "x"}} "#).unwrap();
        assert_eq!((good.name.as_str(), good.size, good.inner.unwrap().ip.as_str()), ("a", Some(3), "x"));
        assert!(parse::<Body>(br#"{"name": "a", "inner": null}"#).unwrap().inner.is_none());
        for (bad, says) in [
            (r#"["a"]"#, "is a JSON object"),
            ("\"a\"", "is a JSON object"),
            ("", "can't be read"),
            (r#"{"name": "a"} {}"#, "can't be read"),
            (r#"{"name": "a", "size": 1.5}"#, "`size` can't be read"),
            (r#"{"name": "a", "inner": ["x"]}"#, "`inner` can't be read"),
            (r#"{"name": "a", "nmae": "b"}"#, "nmae"),
        ] {
            let refusal = parse::<Body>(bad.as_bytes()).unwrap_err();
            assert!(matches!(&refusal, Refusal::Invalid(text) if text.contains(says)), "{bad}: {refusal}");
        }
    }
}

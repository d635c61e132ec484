//! `/v/…`: what edges fetch. Segments and finished playlists are read from the object store; playlists of a lesson that
//! is being transcoded are rendered from the catalogue. Conditions and ranges follow RFC 9110, sections 13 and 14.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::answer::ApiResult;
use super::auth::Edge;
use super::description::{self, IfMatch, IfNoneMatch, Range};
use super::extract;
use super::extract::Path;
use super::refusal::Refusal;
use crate::ingest::object_keys::object_key;
use crate::ingest::snapshot::Rendered;
use crate::state::App;
use lyceum_catalog::{self as catalog, VersionState};
use lyceum_core::ids::Id;
use lyceum_packaging::{handover, render};
use lyceum_storage::store::{ByteRange, Key, Meta, Store, StoreError};

/// Objects of a version never change.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// Which version plays may change at any time.
const LESSON_CACHE: HeaderValue = HeaderValue::from_static("public, max-age=2");
/// Playlists that grow while the lesson is transcoded.
const EVENT_PLAYLIST_CACHE: HeaderValue = HeaderValue::from_static("public, max-age=1, stale-if-error=6");
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// Playlists, segments, images and keys, for edges.
#[utoipa::path(
    get,
    path = "/v/{lesson}/{*path}",
    operation_id = "getMedia",
    tag = "edges",
    security(("edge" = [])),
    params(
        ("lesson" = description::Id, Path, description = "A lesson."),
        ("path" = String, Path, description = "What follows in the URL, with its slashes."),
        Range,
        IfNoneMatch,
        IfMatch
    ),
    responses(
        (
            status = 200,
            description = "The object.",
            body = inline(description::Bytes),
            content_type = "*/*",
            headers(("Surrogate-Key" = String, description = "The tag to purge by."))
        ),
        (
            status = 206,
            description = "The range.",
            body = inline(description::Bytes),
            content_type = "*/*",
            headers(("Content-Range" = String, description = "RFC 9110, section 14.4."))
        )
    )
)]
pub(super) async fn serve(
    State(app): State<Arc<App>>,
    _: Edge,
    Path((lesson, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> ApiResult {
    let lesson = extract::id(&lesson)?;
    let mut response = match path.split_once('/') {
        None => lesson_file(&app, &lesson, &path, &headers).await?,
        Some((version, path)) => version_file(&app, &lesson, &extract::id(version)?, path, &headers).await?,
    };
    let tag =
        HeaderValue::try_from(format!("lesson-{lesson}")).map_err(|error| Refusal::Internal(error.to_string()))?;
    response.headers_mut().insert(SURROGATE_KEY, tag);
    Ok(response)
}

/// The playlists and the description of a lesson: they point into the version that plays now.
async fn lesson_file(app: &App, lesson: &Id, name: &str, headers: &HeaderMap) -> ApiResult {
    if !matches!(name, "master.m3u8" | "manifest.mpd" | "lesson.json") {
        return Err(Refusal::NotFound);
    }
    let mut tx = app.db.read().await?;
    let Some(version) = catalog::playing_version(&mut tx, lesson).await? else {
        let known = catalog::lesson(&mut tx, lesson).await?.is_some();
        return Err(if known { Refusal::NotReady } else { Refusal::NotFound });
    };
    let snapshot = app.ingest.snapshot(&mut tx, &version.id).await?.ok_or(Refusal::NotReady)?;
    drop(tx);
    // Until the finished playlists are stored, players get the growing ones.
    let ready = version.state == VersionState::Ready;
    let id = version.id.as_str();
    let rendered = snapshot.render(&format!("{name} {ready}"), |index| match name {
        "master.m3u8" => render::master(index, id),
        "manifest.mpd" => render::manifest(index, id).filter(|_| ready),
        _ => Some(render::lesson_json(index, &snapshot.media, id)),
    });
    playlist(rendered.ok_or(Refusal::NotReady)?, name, LESSON_CACHE, headers)
}

/// The key of an encrypted version, as HLS players want it: 16 bytes (RFC 8216, section 5). No cache may keep it.
async fn content_key(app: &App, lesson: &Id, version: &Id, id: &Id) -> ApiResult {
    let key = catalog::content_key(&mut app.db.read().await?, id).await?;
    let key = key.filter(|key| key.lesson == *lesson && key.version == *version).ok_or(Refusal::NotFound)?;
    let bytes = app.sealer.unseal(&key)?.to_vec();
    app.metrics.content_keys.inc();
    let mut response = Response::new(Body::from(bytes));
    let to = response.headers_mut();
    to.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    to.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn version_file(app: &App, lesson: &Id, version: &Id, path: &str, headers: &HeaderMap) -> ApiResult {
    if let Some(key) = path.strip_prefix("keys/") {
        return content_key(app, lesson, version, &extract::id(key)?).await;
    }
    let Some(track) = path.strip_suffix("/event.m3u8") else {
        return stored_object(app, lesson, version, path, headers).await;
    };
    let mut tx = app.db.read().await?;
    let row = catalog::version(&mut tx, version).await?.filter(|row| row.lesson == *lesson).ok_or(Refusal::NotFound)?;
    let snapshot = app.ingest.snapshot(&mut tx, &row.id).await?.ok_or(Refusal::NotReady)?;
    drop(tx);
    let rendered = snapshot.render(path, |index| render::event_playlist(index, track));
    playlist(rendered.ok_or(Refusal::NotReady)?, path, EVENT_PLAYLIST_CACHE, headers)
}

async fn stored_object(app: &App, lesson: &Id, version: &Id, path: &str, headers: &HeaderMap) -> ApiResult {
    let key = object_key(lesson, version, path)?;
    match object(&app.store, &key, headers, Some(IMMUTABLE)).await {
        Err(Refusal::Store(StoreError::NotFound)) => {
            let mut tx = app.db.read().await?;
            let row = catalog::version(&mut tx, version).await?.filter(|row| row.lesson == *lesson);
            if row.is_none_or(|row| row.state != VersionState::Transcoding) {
                return Err(Refusal::NotFound);
            }
            // All segments are there, and the finished playlists are being stored at this moment.
            let snapshot = app.ingest.snapshot(&mut tx, version).await?.ok_or(Refusal::NotReady)?;
            let rendered = snapshot.render(path, |index| match path.split_once('/') {
                Some((track, "index.m3u8")) => render::media_playlist(index, track),
                Some((track, "iframes.m3u8")) => render::iframe_playlist(index, track),
                _ => None,
            });
            playlist(rendered.ok_or(Refusal::NotReady)?, path, IMMUTABLE, headers)
        }
        answer => {
            let answer = answer?;
            let length = answer.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
            app.metrics.delivered.inc_by(length.and_then(|length| length.parse().ok()).unwrap_or(0));
            Ok(answer)
        }
    }
}

fn playlist(rendered: Rendered, name: &str, cache: HeaderValue, headers: &HeaderMap) -> ApiResult {
    let meta = Meta {
        size: rendered.text.len() as u64,
        etag: rendered.etag,
        content_type: handover::content_type(name).to_owned(),
    };
    let status = match conditions(headers, &meta.etag)? {
        Condition::NotModified => StatusCode::NOT_MODIFIED,
        Condition::Whole | Condition::Range(_) => StatusCode::OK,
    };
    let body = if status == StatusCode::OK { Body::from(rendered.text) } else { Body::empty() };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    describe(&meta, Some(cache), response.headers_mut())?;
    if status == StatusCode::OK {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(meta.size));
    }
    Ok(response)
}

/// An object of the store as a response: whole, a range of it, or not modified.
pub(super) async fn object(store: &Store, key: &Key, headers: &HeaderMap, cache: Option<HeaderValue>) -> ApiResult {
    // Conditions are evaluated on size and tag, before the body is opened.
    let conditional =
        [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_RANGE].iter().any(|h| headers.contains_key(h));
    let range = if conditional {
        let meta = store.head(key).await?;
        match conditions(headers, &meta.etag)? {
            Condition::NotModified => {
                let mut response = StatusCode::NOT_MODIFIED.into_response();
                describe(&meta, cache, response.headers_mut())?;
                return Ok(response);
            }
            Condition::Whole => None,
            Condition::Range(range) => Some(range),
        }
    } else {
        byte_range(headers)
    };
    let object = store.get(key, range).await?;
    let (range_end, size) = (object.range.end, object.meta.size);
    let mut response = Response::new(Body::from_stream(object.body));
    let to = response.headers_mut();
    describe(&object.meta, cache, to)?;
    to.insert(header::CONTENT_LENGTH, HeaderValue::from(range_end - object.range.start));
    if range.is_some() {
        let field = format!("bytes {}-{}/{size}", object.range.start, range_end.saturating_sub(1));
        to.insert(header::CONTENT_RANGE, HeaderValue::try_from(field).map_err(|e| Refusal::Internal(e.to_string()))?);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

fn describe(meta: &Meta, cache: Option<HeaderValue>, to: &mut HeaderMap) -> Result<(), Refusal> {
    let value = |text: &str| HeaderValue::try_from(text).map_err(|error| Refusal::Internal(error.to_string()));
    to.insert(header::ETAG, value(&meta.etag)?);
    to.insert(header::CONTENT_TYPE, value(&meta.content_type)?);
    to.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    to.insert(header::CACHE_CONTROL, cache.unwrap_or(HeaderValue::from_static("no-store")));
    Ok(())
}

/// The outcome of a request's conditions.
#[derive(Debug, PartialEq, Eq)]
enum Condition {
    NotModified,
    Whole,
    Range(ByteRange),
}

/// Evaluates conditions in the order of RFC 9110, section 13.2.2, for a strong tag.
fn conditions(headers: &HeaderMap, etag: &str) -> Result<Condition, Refusal> {
    if headers.contains_key(header::IF_MATCH) && !names(headers, &header::IF_MATCH, etag, false) {
        return Err(Refusal::PreconditionFailed);
    }
    if headers.contains_key(header::IF_NONE_MATCH) && names(headers, &header::IF_NONE_MATCH, etag, true) {
        return Ok(Condition::NotModified);
    }
    let holds = headers.get(header::IF_RANGE).is_none_or(|tag| tag.as_bytes() == etag.as_bytes());
    Ok(byte_range(headers).filter(|_| holds).map_or(Condition::Whole, Condition::Range))
}

/// Whether a list of entity tags names this one; `weak` compares weakly (RFC 9110, section 8.8.3.2).
fn names(headers: &HeaderMap, name: &HeaderName, etag: &str, weak: bool) -> bool {
    let fields = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    fields
        .flat_map(|field| field.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag == etag || (weak && tag.strip_prefix("W/") == Some(etag)))
}

/// A single range of bytes. Several ranges and malformed ones are ignored, as section 14.2 allows: the response is
/// whole.
fn byte_range(headers: &HeaderMap) -> Option<ByteRange> {
    let mut fields = headers.get_all(header::RANGE).iter();
    let field = fields.next()?.to_str().ok()?;
    if fields.next().is_some() {
        return None;
    }
    let (first, last) = field.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
    };
    match (first, last) {
        ("", last) => number(last).map(ByteRange::Last),
        (first, "") => number(first).map(ByteRange::From),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(ByteRange::Between(first, last))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_single_valid_range_is_used_and_all_others_are_ignored() {
        let range = |text| byte_range(&fields(&[(header::RANGE, text)]));
        assert_eq!(range("bytes=0-9"), Some(ByteRange::Between(0, 9)));
        assert_eq!(range("bytes=5-"), Some(ByteRange::From(5)));
        assert_eq!(range("bytes=-5"), Some(ByteRange::Last(5)));
        for odd in ["bytes=9-0", "bytes=a-b", "bytes=0-1,3-4", "items=0-1", "bytes=-", "bytes=", "bytes=+1-2"] {
            assert_eq!(range(odd), None, "{odd}");
        }
    }

    #[test]
    fn conditions_are_evaluated_in_order() {
        let tag = "\"a\"";
        let judge = |pairs: &[(HeaderName, &str)]| conditions(&fields(pairs), tag);
        assert_eq!(judge(&[(header::IF_NONE_MATCH, "\"b\", W/\"a\"")]).unwrap(), Condition::NotModified);
        assert!(judge(&[(header::IF_MATCH, "W/\"a\"")]).is_err());
        assert!(judge(&[(header::IF_MATCH, "\"b\""), (header::IF_NONE_MATCH, "\"a\"")]).is_err());
        let range = (header::RANGE, "bytes=0-1");
        assert_eq!(judge(&[range.clone(), (header::IF_RANGE, "\"b\"")]).unwrap(), Condition::Whole);
        assert_eq!(
            judge(&[range.clone(), (header::IF_RANGE, tag)]).unwrap(),
            Condition::Range(ByteRange::Between(0, 1))
        );
        assert_eq!(judge(&[range, (header::IF_MATCH, tag)]).unwrap(), Condition::Range(ByteRange::Between(0, 1)));
    }
}

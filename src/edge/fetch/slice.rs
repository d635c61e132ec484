//! Slices of large responses: each an entry of the cache, looked up or fetched by itself.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderMap;

use super::fetcher::Fetcher;
use super::key::FetchRequest;
use super::origin_response::{is_failure, protocol_error, strong_etag};
use super::transfer::{BodySpan, Incomplete, copy_body, fail_broken_off};
use lyceum_cache::{FillPlan, Lookup, ReadError, Reader, ResponseHead, StoredResponse, Vary, Writer};
use lyceum_upstream::{FetchError, ResponseBody};

/// Where a slice's bytes come from.
#[derive(Debug)]
pub(crate) enum SliceSource {
    Memory(Bytes),
    Live(Reader<FetchError>),
}

/// Who fetched a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// It was in memory, or another request was fetching it.
    Shared,
    /// It is fetched for this request.
    Fetched,
}

/// Looks a slice up in memory and among the fills under way; else starts to fetch it.
pub(crate) fn look_up_slice(
    fetcher: &Fetcher,
    request: &Arc<FetchRequest>,
    stored: &Arc<StoredResponse>,
    slice: u64,
) -> Option<(SliceSource, Opened)> {
    let sliced = stored.sliced()?;
    sliced.span(slice)?;
    let (writer, reader) = match fetcher.cache.lookup(&sliced.key(&request.key, slice), &HeaderMap::new(), |_| true) {
        Lookup::Hit(found) => return Some((SliceSource::Memory(found.body.clone()), Opened::Shared)),
        Lookup::Join(reader) => return Some((SliceSource::Live(reader), Opened::Shared)),
        Lookup::Pass => fetcher.cache.private_fill(),
        Lookup::Fill { writer, reader, .. } => (writer, reader),
    };
    let (filler, request, stored) = (fetcher.clone(), Arc::clone(request), Arc::clone(stored));
    fetcher.spawn(async move { fill_slice(&filler, writer, &request, &stored, slice).await });
    Some((SliceSource::Live(reader), Opened::Fetched))
}

/// Opens a slice: waits until its fill has begun, where it is not in memory.
pub(crate) async fn open_slice(
    fetcher: Fetcher,
    request: Arc<FetchRequest>,
    stored: Arc<StoredResponse>,
    slice: u64,
) -> Result<(SliceSource, Opened), ReadError<FetchError>> {
    let (source, opened) = look_up_slice(&fetcher, &request, &stored, slice).ok_or(ReadError::Outdated)?;
    match source {
        SliceSource::Live(reader) => match reader.outcome().await?.stored() {
            Some(found) => Ok((SliceSource::Memory(found.body.clone()), opened)),
            None => Ok((SliceSource::Live(reader), opened)),
        },
        memory @ SliceSource::Memory(_) => Ok((memory, opened)),
    }
}

/// Fetches one slice of a stored response (RFC 9110, sections 13.1.1 and 14).
async fn fill_slice(
    fetcher: &Fetcher,
    writer: Writer<FetchError>,
    request: &FetchRequest,
    stored: &StoredResponse,
    slice: u64,
) {
    let found = stored.sliced().and_then(|sliced| sliced.span(slice).map(|span| (sliced, span)));
    let (Some((sliced, span)), Some(etag)) = (found, strong_etag(&stored.headers)) else {
        return writer.fail_outdated();
    };
    let writer = match writer.load_from_disk().await {
        (None, _) => return,
        (Some(writer), Some(found)) => return writer.answer_from_disk(found),
        (Some(writer), None) => writer,
    };
    let expected = BodySpan { etag, span, total: sliced.length };
    let Some(outgoing) = expected.request_rest(request, 0) else { return writer.fail_outdated() };
    match request.route.pool.fetch(outgoing).await {
        Err(error) => {
            tracing::warn!(%error, path = %request.key, slice, "fetch failed");
            fetcher.metrics.filled(error.failure.name());
            writer.fail(error);
        }
        Ok(response) if expected.is_rest(&response, 0) => {
            store_slice(fetcher, writer, request, stored, slice, response.body, 0).await
        }
        // The origin ignores ranges after all; what comes before the slice is skipped.
        Ok(response) if expected.is_whole_of_same(&response) => {
            store_slice(fetcher, writer, request, stored, slice, response.body, span.first).await;
        }
        Ok(response) if is_failure(response.head.status) => {
            let error = protocol_error(&response, "an error in place of a slice");
            tracing::warn!(%error, status = %response.head.status, path = %request.key, slice, "fetch failed");
            fetcher.metrics.filled(error.failure.name());
            writer.fail(error);
        }
        Ok(response) => {
            tracing::debug!(status = %response.head.status, path = %request.key, slice, "changed since its other slices");
            fetcher.metrics.filled("changed");
            fetcher.cache.remove_outdated(&request.key, &request.headers, sliced);
            writer.fail_outdated();
        }
    }
}

/// Copies the body of one slice into the cache, without its first `skip` bytes.
pub(super) async fn store_slice(
    fetcher: &Fetcher,
    mut writer: Writer<FetchError>,
    request: &FetchRequest,
    stored: &StoredResponse,
    slice: u64,
    body: ResponseBody,
    skip: u64,
) {
    let found = stored.sliced().and_then(|sliced| Some((sliced.span(slice)?, sliced.length)));
    let (Some((span, total)), Some(etag)) = (found, strong_etag(&stored.headers)) else {
        return writer.fail_outdated();
    };
    let head = ResponseHead {
        status: StatusCode::PARTIAL_CONTENT,
        headers: HeaderMap::new(),
        length: Some(span.length()),
        vary: Vary::default(),
    };
    writer.begin(head, FillPlan::Store { freshness: stored.freshness.clone(), tags: stored.tags.clone() });
    match copy_body(&mut writer, request, body, Some(BodySpan { etag, span, total }), skip).await {
        Ok(_) => {
            let whole = writer.finish().is_some();
            fetcher.metrics.filled(if whole { "ok" } else { "short" });
        }
        Err(Incomplete::NoReaders) => fetcher.metrics.filled("ok"),
        Err(Incomplete::Failed(error)) => fail_broken_off(fetcher, writer, request, error),
    }
}

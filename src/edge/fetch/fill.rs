//! Fills: what is asked of an origin, and what of its response is stored. Whether that response can be trusted is decided
//! in `origin_response.rs`.

use std::sync::Arc;

use http::header::{self, HeaderMap};
use http::{Method, StatusCode};

use super::fetcher::Fetcher;
use super::key::FetchRequest;
use super::origin_response::{
    OriginRange, clean, content_range, ends_with_connection, has_validator, is_another_part, is_coded, is_failure,
    is_of_another, protocol_error, strong_etag, tags, takes_ranges, validate, vary,
};
use super::slice::store_slice;
use super::transfer::{BodySpan, Incomplete, copy_body, fail_broken_off, origin_request};
use crate::header_block;
use lyceum_cache::{FillPlan, ResponseHead, SliceLayout, StoredResponse, Writer};
use lyceum_http::fields;
use lyceum_http::freshness::{Exchange, Freshness, FreshnessState, NotStored};
use lyceum_http::range::{self, ByteRange};
use lyceum_upstream::{FetchError, ResponseBody, UpstreamResponse};

/// How often an origin is asked for one response, each time in another way.
const MAX_REQUESTS: usize = 3;

/// Starts a task that fetches one response into the cache.
pub(crate) fn start(
    fetcher: &Fetcher,
    writer: Writer<FetchError>,
    request: FetchRequest,
    stale: Option<Arc<StoredResponse>>,
) {
    let filler = fetcher.clone();
    fetcher.spawn(async move { fill(&filler, writer, request, stale).await });
}

/// Reads one response from disk, or fetches it from an origin. `stale` is what memory holds of it.
async fn fill(
    fetcher: &Fetcher,
    writer: Writer<FetchError>,
    request: FetchRequest,
    stale: Option<Arc<StoredResponse>>,
) {
    let (writer, stale) = match stale {
        Some(stale) => (writer, Some(stale)),
        None => match writer.load_from_disk().await {
            (None, _) => return,
            (Some(writer), Some(found))
                if found.freshness.standing(fetcher.clock.steady_millis()) == FreshnessState::Fresh =>
            {
                return writer.answer_from_disk(found);
            }
            (Some(writer), found) => (writer, found),
        },
    };
    let Exchanged { response, range, validated, requested_ms } =
        ask_origin(fetcher, &writer, &request, stale.as_ref()).await;
    let failed = match &response {
        Ok(response) => is_failure(response.head.status),
        Err(_) => true,
    };
    let usable = stale.filter(|stored| !failed || stored.freshness.usable_on_error(fetcher.clock.steady_millis()));
    match (response, usable) {
        (Ok(response), Some(stored)) if validated && response.head.status == StatusCode::NOT_MODIFIED => {
            renew(fetcher, writer, &request, &stored, &response, requested_ms);
        }
        (Ok(response), Some(stored)) if failed => {
            tracing::debug!(origin = %response.origin, status = %response.head.status, "stale in place of an error");
            fetcher.metrics.filled("stale_on_error");
            writer.answer_stale(stored);
        }
        (Err(error), Some(stored)) => {
            tracing::debug!(%error, "stale in place of an error");
            fetcher.metrics.filled("stale_on_error");
            writer.answer_stale(stored);
        }
        (Err(_), None) if matches!(range, OriginRange::AsRequested) && !writer.is_private() => {
            fetcher.metrics.not_stored("another_part");
            writer.fail_unshared();
        }
        (Err(error), None) => {
            tracing::warn!(%error, path = %request.key, "fetch failed");
            fetcher.metrics.filled(error.failure.name());
            writer.fail(error);
        }
        (Ok(response), _) => fill_from(fetcher, writer, &request, response, range, requested_ms).await,
    }
}

/// An origin's response, and what it answers.
struct Exchanged {
    response: Result<UpstreamResponse, FetchError>,
    range: OriginRange,
    /// Whether the request was conditional.
    validated: bool,
    requested_ms: i64,
}

/// Asks an origin, at most [`MAX_REQUESTS`] times: with the stored response's validators as the condition, for a slice
/// where the response may be large, and without either. An origin whose parts are not the slices that were asked for
/// leaves each client to ask for its own range.
async fn ask_origin(
    fetcher: &Fetcher,
    writer: &Writer<FetchError>,
    request: &FetchRequest,
    stale: Option<&Arc<StoredResponse>>,
) -> Exchanged {
    let mut validating = stale.filter(|stored| has_validator(&stored.headers));
    let mut range = origin_range(fetcher, writer, request, stale.map(AsRef::as_ref));
    let mut requests = 0;
    loop {
        requests += 1;
        let requested_ms = fetcher.clock.steady_millis();
        let outgoing = origin_request(request, validating.map(AsRef::as_ref), range);
        let response = match request.route.pool.fetch(outgoing).await {
            Ok(response) => response,
            Err(error) => return Exchanged { response: Err(error), range, validated: false, requested_ms },
        };
        if requests < MAX_REQUESTS {
            if validating.is_some_and(|stored| is_of_another(&response, stored)) {
                validating = None;
                continue;
            }
            if let (StatusCode::RANGE_NOT_SATISFIABLE, OriginRange::Slice(span)) = (response.head.status, range) {
                range = range_after_416(fetcher, &response, span);
                continue;
            }
        }
        if is_another_part(&response, range) {
            let error = protocol_error(&response, "another part than was asked for");
            let range = OriginRange::AsRequested;
            return Exchanged { response: Err(error), range, validated: false, requested_ms };
        }
        let validated = validating.is_some();
        let client_range = request.range.as_ref().and_then(|field| field.to_str().ok());
        let response = validate(response, range, client_range, validated);
        return Exchanged { response, range, validated, requested_ms };
    }
}

/// How much of the representation to ask for first.
fn origin_range(
    fetcher: &Fetcher,
    writer: &Writer<FetchError>,
    request: &FetchRequest,
    stale: Option<&StoredResponse>,
) -> OriginRange {
    if writer.is_private() {
        return if request.range.is_some() { OriginRange::AsRequested } else { OriginRange::Whole };
    }
    let known = stale.map(StoredResponse::sliced);
    let first = request.range.as_ref().and_then(|field| field.to_str().ok()).and_then(range::first_byte);
    match (known, first) {
        // Small, or no part is wanted.
        (Some(None), _) | (None, None) => OriginRange::Whole,
        (Some(Some(sliced)), first) => OriginRange::Slice(slice_around(first.unwrap_or(0), sliced.size)),
        (None, Some(_)) if request.if_range.is_some() => {
            OriginRange::Slice(slice_around(0, fetcher.cache.slice_size()))
        }
        (None, Some(first)) => OriginRange::Slice(slice_around(first, fetcher.cache.slice_size())),
    }
}

/// What to ask for after a 416: the client's first byte lies beyond the end, and the response tells the length.
fn range_after_416(fetcher: &Fetcher, response: &UpstreamResponse, span: ByteRange) -> OriginRange {
    let total = fields::single(&response.head.headers, &header::CONTENT_RANGE)
        .and_then(|text| text.strip_prefix("bytes */")?.parse::<u64>().ok());
    match total {
        Some(total) if total > fetcher.cache.largest_object() && span.first > 0 => {
            OriginRange::Slice(slice_around(0, fetcher.cache.slice_size()))
        }
        _ => OriginRange::Whole,
    }
}

/// Updates the stored response with the fields of a 304 (RFC 9111, sections 3.2 and 4.3.4).
fn renew(
    fetcher: &Fetcher,
    writer: Writer<FetchError>,
    request: &FetchRequest,
    stored: &StoredResponse,
    response: &UpstreamResponse,
    requested_ms: i64,
) {
    let mut headers = stored.headers.clone();
    let mut new = response.head.headers.clone();
    fields::strip_hop_by_hop(&mut new);
    // These describe the stored body, which has not changed.
    for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE] {
        new.remove(name);
    }
    for name in new.keys() {
        headers.remove(name);
        for value in new.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    if !new.contains_key(header::DATE) {
        headers.remove(header::DATE);
        fetcher.date(&mut headers);
    }
    fetcher.metrics.filled("ok");
    match judge(fetcher, request, stored.status, &headers, requested_ms) {
        Ok(freshness) => {
            let tags = tags(&headers);
            clean(&mut headers, request);
            let mut renewed = stored.with(headers, freshness);
            if !tags.is_empty() {
                renewed.tags = tags;
            }
            writer.answer_revalidated(Arc::new(renewed), true);
        }
        Err(reason) => {
            // It serves the requests that wait for it, and is not stored.
            fetcher.metrics.not_stored(reason.name());
            clean(&mut headers, request);
            let now = fetcher.clock.steady_millis();
            let fresh =
                Freshness { life: 1, initial_age: 0, received_ms: now, ended: false, ..stored.freshness.clone() };
            writer.answer_revalidated(Arc::new(stored.with(headers, fresh)), false);
        }
    }
}

/// Copies an origin's response to the fill's readers, and into the cache where it may be stored.
async fn fill_from(
    fetcher: &Fetcher,
    mut writer: Writer<FetchError>,
    request: &FetchRequest,
    response: UpstreamResponse,
    range: OriginRange,
    requested_ms: i64,
) {
    let UpstreamResponse { head, body, .. } = response;
    let (mut status, mut headers) = (head.status, head.headers);
    let part = match range {
        OriginRange::Slice(_) if status == StatusCode::PARTIAL_CONTENT => content_range(&headers),
        _ => None,
    };
    if part.is_some() {
        status = StatusCode::OK;
    }
    let judged = match ends_with_connection(head.version, status, &headers) {
        false => judge(fetcher, request, status, &headers, requested_ms),
        true => Err(NotStored::Length),
    };
    let tags = tags(&headers);
    let length = fields::single(&headers, &header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
    let etag = strong_etag(&headers);
    let vary = vary(&headers, request);
    let sliceable = etag.is_some() && !writer.is_private() && (part.is_some() || takes_ranges(&headers));
    clean(&mut headers, request);
    fetcher.date(&mut headers);

    let total = part.map(|(_, total)| total).or(length.filter(|_| status == StatusCode::OK));
    let large = part.is_some() || total.is_some_and(|total| total > fetcher.cache.largest_object());
    if let (true, true, Some(total), Ok(freshness)) = (large, sliceable, total, &judged) {
        let first = part.map_or(0, |(span, _)| span.first);
        let head = ResponseHead { status, headers, length: Some(total), vary };
        return fill_sliced(fetcher, writer, request, head, freshness.clone(), tags, first, body).await;
    }
    if part.is_some() {
        // A part of a response that can't be stored: each client asks for its own range.
        fetcher.metrics.not_stored(judged.as_ref().err().map_or("no_strong_etag", |reason| reason.name()));
        return writer.fail_unshared();
    }
    let plan = match &judged {
        Ok(freshness) => FillPlan::Store { freshness: freshness.clone(), tags },
        Err(reason) => FillPlan::Pass { why: reason.name() },
    };
    let span = match (etag, length.and_then(|length| length.checked_sub(1))) {
        (Some(etag), Some(last)) if status == StatusCode::OK => {
            Some(BodySpan { etag, span: ByteRange { first: 0, last }, total: last.saturating_add(1) })
        }
        _ => None,
    };
    writer.begin(ResponseHead { status, headers, length, vary }, plan);
    match copy_body(&mut writer, request, body, span, 0).await {
        Ok(copied) => {
            let stored = writer.finish();
            if let Some(stored) = &stored {
                header_block::prepare(&request.route, stored);
            }
            let short = length.is_some_and(|length| length != copied);
            fetcher.metrics.filled(if short { "short" } else { "ok" });
            match (stored, judged) {
                _ if short => {}
                (Some(_), _) => {}
                (None, Err(reason)) => fetcher.metrics.not_stored(reason.name()),
                (None, Ok(_)) => fetcher.metrics.not_stored("too_large"),
            }
        }
        Err(Incomplete::NoReaders) => fetcher.metrics.filled("ok"),
        Err(Incomplete::Failed(error)) => fail_broken_off(fetcher, writer, request, error),
    }
}

/// Stores the head of a large response, and the slice that came with it.
#[allow(clippy::too_many_arguments, reason = "the parts of one response")]
async fn fill_sliced(
    fetcher: &Fetcher,
    writer: Writer<FetchError>,
    request: &FetchRequest,
    mut head: ResponseHead,
    freshness: Freshness,
    tags: Vec<Box<str>>,
    first: u64,
    body: ResponseBody,
) {
    for name in [header::CONTENT_RANGE, header::CONTENT_LENGTH] {
        head.headers.remove(name);
    }
    let sliced = SliceLayout::new(head.length.unwrap_or(0), fetcher.cache.slice_size());
    let slice = sliced.holding(first);
    // Claimed before the head is visible, so that no one else fetches it.
    let claimed = fetcher.cache.claim(&sliced.key(&request.key, slice), &HeaderMap::new());
    let stored = writer.slice(head, freshness, tags, sliced);
    if let Some(writer) = claimed {
        store_slice(fetcher, writer, request, &stored, slice, body, 0).await;
    }
}

/// Whether a response may be stored, and for how long it is fresh (RFC 9111, sections 3 and 4.2).
fn judge(
    fetcher: &Fetcher,
    request: &FetchRequest,
    status: StatusCode,
    headers: &HeaderMap,
    requested_ms: i64,
) -> Result<Freshness, NotStored> {
    if is_coded(headers) {
        return Err(NotStored::Coding);
    }
    Freshness::judge(&Exchange {
        method: &Method::GET,
        authorized: request.authorized,
        status,
        headers,
        requested_ms,
        received_ms: fetcher.clock.steady_millis(),
        received_unix_ms: fetcher.clock.unix_millis(),
        clock_skew: request.route.pool.clock_skew(),
        default_life: request.route.default_life(status),
    })
}

/// The slice-sized span that holds a byte.
fn slice_around(byte: u64, size: u64) -> ByteRange {
    let first = byte - byte % size.max(1);
    ByteRange { first, last: first.saturating_add(size.max(1) - 1) }
}

//! Deliver: from a found response to the one that is sent. The representation is selected (and a playlist filtered),
//! `plan.rs` decides what of it is sent, and one builder makes head and body.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};

use super::body::Body;
use super::piece::LiveBody;
use super::plan::{BodyForm, Conditions, Representation, ResponsePlan, decide, filter_for};
use super::sliced_body::{BodyPart, SlicedBody};
use crate::cache_status::{CacheOutcome, CacheStatus};
use crate::error::Refusal;
use crate::fetch::fetcher::Fetcher;
use crate::fetch::key::FetchRequest;
use crate::fetch::lookup::Found;
use crate::fetch::slice::Opened;
use crate::header_block::{CACHE_STATUS, block, is_uniform, with_block};
use crate::request::route::Route;
use lyceum_cache::{ReadError, Reader, StoredResponse};
use lyceum_http::range::ByteRange;
use lyceum_http::{conditional, fields};
use lyceum_packaging::filter::{self, Playlist};
use lyceum_server::STATUS_LINE_200;
use lyceum_upstream::FetchError;

/// What a response depends on besides the one that was found.
pub(crate) struct Delivery<'a> {
    pub(crate) method: &'a Method,
    pub(crate) request: &'a HeaderMap,
    pub(crate) route: &'a Route,
    pub(crate) path: &'a str,
    pub(crate) limits: filter::Limits,
    pub(crate) steady_ms: i64,
    /// Fetches the slices of large responses.
    pub(crate) fetcher: &'a Fetcher,
    /// What a slice is fetched with.
    pub(crate) fetch_request: &'a (dyn Fn() -> FetchRequest + Sync),
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Undelivered {
    Refused(Refusal),
    /// The representation has changed at the origin: it has to be looked up again.
    Outdated,
}

impl From<Refusal> for Undelivered {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The representation that a request without conditions and ranges would get.
struct Selected {
    status: StatusCode,
    block: HeaderMap,
    /// The length of the body in bytes, if known.
    length: Option<u64>,
    source: BodySource,
}

/// Where the bytes of a body come from.
enum BodySource {
    Memory(Bytes),
    Live(Reader<FetchError>),
    Sliced(Arc<StoredResponse>),
}

/// What of the body is sent.
enum Selection {
    Nothing,
    Whole,
    Range(ByteRange),
    /// Ranges with the delimiters between them.
    Parts(VecDeque<BodyPart>),
}

/// The response to a request, and what the cache had to do with it.
pub(crate) async fn deliver(
    delivery: &Delivery<'_>,
    found: Found,
) -> Result<(Response<Body>, CacheOutcome), Undelivered> {
    match found {
        Found::StoredResponse(stored, cache_status) => {
            let is_sliced = stored.sliced().is_some();
            let form = if is_sliced { BodyForm::Sliced } else { BodyForm::Memory };
            match filter_for(delivery.playlist(), stored.status, form)? {
                Some(kind) => {
                    let selected = delivery.select_filtered(kind, &stored.headers, &stored.body, cache_status)?;
                    Ok((delivery.respond(selected)?, cache_status.outcome))
                }
                None if is_sliced => Box::pin(deliver_sliced(delivery, &stored, cache_status)).await,
                None => Ok((deliver_stored(delivery, &stored, cache_status)?, cache_status.outcome)),
            }
        }
        Found::Live { head, freshness, reader, cache_status } => {
            refuse_coding(delivery.request, &head.headers)?;
            let selected = match filter_for(delivery.playlist(), head.status, BodyForm::Live)? {
                Some(kind) => {
                    let text = Box::pin(collect(reader)).await?;
                    delivery.select_filtered(kind, &head.headers, &text, cache_status)?
                }
                None => {
                    let ttl = freshness.as_ref().map(|freshness| freshness.left(delivery.steady_ms));
                    let mut block = block(delivery.route, &head.headers, head.length);
                    block.insert(CACHE_STATUS, cache_status.field(head.status, ttl));
                    if let Some(freshness) = &freshness {
                        block.insert(header::AGE, decimal(freshness.age(delivery.steady_ms)));
                    }
                    Selected { status: head.status, block, length: head.length, source: BodySource::Live(reader) }
                }
            };
            Ok((delivery.respond(selected)?, cache_status.outcome))
        }
    }
}

/// The response with a stored one whose body is in memory as a whole.
pub(crate) fn deliver_stored(
    delivery: &Delivery<'_>,
    stored: &Arc<StoredResponse>,
    cache_status: CacheStatus,
) -> Result<Response<Body>, Refusal> {
    delivery.respond(delivery.select_stored(stored, cache_status, BodySource::Memory(stored.body_for_answer())))
}

/// The same for a hit with HTTP/1.1, with its head as prepared lines; `None` where the head depends on the request.
pub(crate) fn deliver_prepared(
    delivery: &Delivery<'_>,
    stored: &Arc<StoredResponse>,
) -> Option<(Response<Body>, Vec<u8>)> {
    let is_plain = *delivery.method == Method::GET && !delivery.request.contains_key(header::RANGE);
    if !is_plain
        || stored.status != StatusCode::OK
        || !is_uniform(delivery.route)
        || conditional::is_conditional(delivery.request)
    {
        return None;
    }
    let age = stored.freshness.age(delivery.steady_ms);
    let lines = with_block(delivery.route, stored, |block| block.to_http1(STATUS_LINE_200, age))?;
    Some((Response::new(Body::from(stored.body_for_answer())), lines))
}

/// The response with a stored one in slices. The first slice is opened before the head is sent, as only then it is known
/// whether the origin still has this representation.
async fn deliver_sliced(
    delivery: &Delivery<'_>,
    stored: &Arc<StoredResponse>,
    cache_status: CacheStatus,
) -> Result<(Response<Body>, CacheOutcome), Undelivered> {
    let source = BodySource::Sliced(Arc::clone(stored));
    let mut response = delivery.respond(delivery.select_stored(stored, cache_status, source))?;
    match response.body_mut().prime().await {
        Ok(Some(Opened::Fetched)) if cache_status.outcome == CacheOutcome::Hit => {
            let cache_status = CacheStatus { outcome: CacheOutcome::Partial, ..cache_status };
            response.headers_mut().insert(CACHE_STATUS, delivery.cache_status_field(stored, cache_status));
            Ok((response, cache_status.outcome))
        }
        Ok(_) => Ok((response, cache_status.outcome)),
        Err(ReadError::Outdated) => Err(Undelivered::Outdated),
        Err(ReadError::Failed(cause)) => Err(Refusal::Upstream(cause).into()),
        Err(_) => Err(Refusal::BrokenOff.into()),
    }
}

/// A content coding that was not asked for is passed on only to clients that accept it (RFC 9110, section 12.5.3).
fn refuse_coding(request: &HeaderMap, response: &HeaderMap) -> Result<(), Refusal> {
    let accepted = |coding: &str| fields::takes_coding(request, coding);
    if fields::values(response, &header::CONTENT_ENCODING).flat_map(fields::list).all(accepted) {
        Ok(())
    } else {
        Err(Refusal::BrokenOff)
    }
}

impl Delivery<'_> {
    /// The kind of playlist that is asked for, where the token limits playlists.
    fn playlist(&self) -> Option<Playlist> {
        if self.limits.any() { Playlist::of(self.path) } else { None }
    }

    #[inline]
    fn select_stored(&self, stored: &StoredResponse, cache_status: CacheStatus, source: BodySource) -> Selected {
        let age = decimal(stored.freshness.age(self.steady_ms));
        let mut block = with_block(self.route, stored, |block| block.to_headers(age));
        if cache_status.outcome != CacheOutcome::Hit {
            block.insert(CACHE_STATUS, self.cache_status_field(stored, cache_status));
        }
        Selected { status: stored.status, block, length: Some(stored.length()), source }
    }

    /// A playlist filtered by the token's limits, with its own entity tag and length.
    fn select_filtered(
        &self,
        kind: Playlist,
        headers: &HeaderMap,
        text: &[u8],
        cache_status: CacheStatus,
    ) -> Result<Selected, Refusal> {
        let text = std::str::from_utf8(text).map_err(|_| Refusal::BrokenOff)?;
        let bytes = Bytes::from(filter::filter(kind, text, self.limits));
        let length = bytes.len() as u64;
        let mut block = block(self.route, headers, Some(length));
        block.insert(CACHE_STATUS, cache_status.field(StatusCode::OK, None));
        let tag = format!("\"cut-{:016x}\"", lyceum_upstream::stable_hash(&bytes));
        block.remove(header::LAST_MODIFIED);
        if let Ok(tag) = HeaderValue::try_from(tag) {
            block.insert(header::ETAG, tag);
        }
        Ok(Selected { status: StatusCode::OK, block, length: Some(length), source: BodySource::Memory(bytes) })
    }

    fn cache_status_field(&self, stored: &StoredResponse, cache_status: CacheStatus) -> HeaderValue {
        cache_status.field(stored.status, Some(stored.freshness.left(self.steady_ms)))
    }

    /// Decides what of the selected representation is sent, and builds the response.
    #[inline]
    fn respond(&self, mut selected: Selected) -> Result<Response<Body>, Refusal> {
        if !is_uniform(self.route) {
            self.route.cors.mark(self.request, &mut selected.block);
        }
        let form = match &selected.source {
            BodySource::Memory(_) => BodyForm::Memory,
            BodySource::Live(_) => BodyForm::Live,
            BodySource::Sliced(_) => BodyForm::Sliced,
        };
        let (status, headers, length) = (selected.status, &selected.block, selected.length);
        let representation = Representation { status, headers, length, form };
        let plan = decide(Conditions { method: self.method, headers: self.request }, representation);
        self.build(selected, plan)
    }

    fn build(&self, selected: Selected, plan: ResponsePlan) -> Result<Response<Body>, Refusal> {
        let Selected { mut status, mut block, length, source } = selected;
        let selection = match plan {
            ResponsePlan::PreconditionFailed => return Err(Refusal::Precondition),
            ResponsePlan::NotSatisfiable(length) => return Err(Refusal::Range(length)),
            ResponsePlan::Whole => Selection::Whole,
            ResponsePlan::NotModified => {
                status = StatusCode::NOT_MODIFIED;
                for name in
                    [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING, header::ACCEPT_RANGES]
                {
                    block.remove(name);
                }
                Selection::Nothing
            }
            ResponsePlan::Range(span) => {
                status = StatusCode::PARTIAL_CONTENT;
                if let Ok(content_range) = HeaderValue::try_from(span.content_range(length.unwrap_or(0))) {
                    block.insert(header::CONTENT_RANGE, content_range);
                }
                block.insert(header::CONTENT_LENGTH, HeaderValue::from(span.length()));
                Selection::Range(span)
            }
            ResponsePlan::Ranges(spans) => {
                status = StatusCode::PARTIAL_CONTENT;
                Selection::Parts(multipart(&mut block, length.unwrap_or(0), &spans))
            }
        };
        let selection = if *self.method == Method::HEAD { Selection::Nothing } else { selection };
        let mut response = Response::new(self.body(source, selection, length));
        *response.status_mut() = status;
        *response.headers_mut() = block;
        Ok(response)
    }

    /// The body; `length` is that of the whole representation.
    fn body(&self, source: BodySource, selection: Selection, length: Option<u64>) -> Body {
        match (source, selection) {
            (_, Selection::Nothing) => Body::empty(),
            (BodySource::Memory(bytes), Selection::Whole) => Body::from(bytes),
            (BodySource::Memory(bytes), Selection::Range(span)) => Body::from(slice(&bytes, span)),
            (BodySource::Memory(bytes), Selection::Parts(parts)) => {
                let of_memory = |part| match part {
                    BodyPart::Bytes(delimiter) => delimiter,
                    BodyPart::Range(span) => slice(&bytes, span),
                };
                Body::parts(parts.into_iter().map(of_memory).collect())
            }
            (BodySource::Live(reader), Selection::Whole) => Body::live(LiveBody { reader, skip: 0, left: length }),
            (BodySource::Live(reader), Selection::Range(span)) => {
                Body::live(LiveBody { reader, skip: span.first, left: Some(span.length()) })
            }
            // Never planned.
            (BodySource::Live(_), Selection::Parts(_)) => Body::empty(),
            (BodySource::Sliced(stored), Selection::Whole) => match length.and_then(|length| length.checked_sub(1)) {
                Some(last) => self.sliced(stored, VecDeque::from([BodyPart::Range(ByteRange { first: 0, last })])),
                None => Body::empty(),
            },
            (BodySource::Sliced(stored), Selection::Range(span)) => {
                self.sliced(stored, VecDeque::from([BodyPart::Range(span)]))
            }
            (BodySource::Sliced(stored), Selection::Parts(parts)) => self.sliced(stored, parts),
        }
    }

    fn sliced(&self, stored: Arc<StoredResponse>, parts: VecDeque<BodyPart>) -> Body {
        Body::sliced(SlicedBody::new(self.fetcher.clone(), (self.fetch_request)(), stored, parts))
    }
}

/// The parts of `multipart/byteranges` (RFC 9110, section 14.6), and its fields in `block`. `whole` is the length of the
/// representation.
fn multipart(block: &mut HeaderMap, whole: u64, spans: &[ByteRange]) -> VecDeque<BodyPart> {
    let boundary = format!("lyceum-{:032x}", u128::from_be_bytes(lyceum_core::ids::random_bytes()));
    let media_type = block.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.map(|value| format!("Content-Type: {value}\r\n")).unwrap_or_default();
    let mut parts = VecDeque::with_capacity(spans.len() * 2 + 1);
    for (n, span) in spans.iter().enumerate() {
        let lead = if n == 0 { "" } else { "\r\n" };
        let range = span.content_range(whole);
        let head = format!("{lead}--{boundary}\r\n{media_type}Content-Range: {range}\r\n\r\n");
        parts.push_back(BodyPart::Bytes(Bytes::from(head)));
        parts.push_back(BodyPart::Range(*span));
    }
    parts.push_back(BodyPart::Bytes(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    let length = parts.iter().map(BodyPart::length).fold(0, u64::saturating_add);
    if let Ok(media_type) = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}")) {
        block.insert(header::CONTENT_TYPE, media_type);
    }
    block.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    parts
}

fn slice(bytes: &Bytes, span: ByteRange) -> Bytes {
    let end = usize::try_from(span.last).map_or(bytes.len(), |last| last.saturating_add(1)).min(bytes.len());
    let start = usize::try_from(span.first).unwrap_or(end).min(end);
    bytes.slice(start..end)
}

/// A number as a field value, with at most one small allocation.
fn decimal(number: u32) -> HeaderValue {
    const ONE_DIGIT: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    if let Some(digit) = ONE_DIGIT.get(number as usize) {
        return HeaderValue::from_static(digit);
    }
    let mut digits = itoa::Buffer::new();
    HeaderValue::from_str(digits.format(number)).unwrap_or(HeaderValue::from_static("0"))
}

/// Reads a playlist to its end.
async fn collect(mut reader: Reader<FetchError>) -> Result<Bytes, Refusal> {
    let mut whole = BytesMut::new();
    while let Some(piece) = std::future::poll_fn(|cx| reader.poll_piece(cx)).await {
        let piece = piece.map_err(|_| Refusal::BrokenOff)?;
        if whole.len() + piece.len() > filter::MAX_PLAYLIST_BYTES {
            return Err(Refusal::TooLarge);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

//! From a response that was found to the answer: header block, conditions, ranges, cut playlists, body.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};

use super::body::{Body, Live};
use super::decision::{CacheOutcome, Decision};
use super::error::Refusal;
use super::fetch::{Fetcher, Found, Wanted};
use super::head::CACHE_STATUS;
use super::route::Route;
use super::slices::{Opened, Part, Slices};
use lyceum_cache::{ReadError, Reader, Stored};
use lyceum_http::conditional::{self, Validators};
use lyceum_http::{fields, range};
use lyceum_packaging::filter::{self, Playlist};
use lyceum_server::STATUS_LINE_200;
use lyceum_upstream::FetchError;

/// Who asks, and under which terms.
pub(super) struct Terms<'a> {
    pub(super) method: &'a Method,
    pub(super) request: &'a HeaderMap,
    pub(super) route: &'a Route,
    pub(super) path: &'a str,
    pub(super) limits: filter::Limits,
    pub(super) now_ms: i64,
    /// Where the slices of large responses come from.
    pub(super) fetcher: &'a Fetcher,
    pub(super) wanted: &'a (dyn Fn() -> Wanted + Sync),
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Undelivered {
    Refused(Refusal),
    /// What was found has changed at the origin meanwhile: to be looked for again.
    Outdated,
}

impl From<Refusal> for Undelivered {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The answer.
pub(super) async fn deliver(terms: &Terms<'_>, found: Found) -> Result<(Response<Body>, CacheOutcome), Undelivered> {
    let playlist = if terms.limits.any() { Playlist::of(terms.path) } else { None };
    match found {
        Found::Stored(stored, decision) => match playlist {
            Some(kind) if stored.status == StatusCode::OK => {
                let text = if stored.sliced().is_none() { &stored.body } else { return Err(Refusal::TooLarge.into()) };
                Ok((deliver_cut(terms, kind, &stored.headers, text, decision)?, decision.outcome))
            }
            _ if stored.sliced().is_none() => Ok((deliver_whole(terms, &stored, decision)?, decision.outcome)),
            _ => Box::pin(deliver_sliced(terms, &stored, decision)).await,
        },
        Found::Live { head, freshness, reader, decision } => {
            refuse_coding(terms, &head.headers)?;
            match playlist {
                Some(kind) if head.status == StatusCode::OK => {
                    let text = Box::pin(collect(reader)).await?;
                    Ok((deliver_cut(terms, kind, &head.headers, &text, decision)?, decision.outcome))
                }
                // A part of a playlist can't be cut.
                Some(_) if head.status == StatusCode::PARTIAL_CONTENT => Err(Refusal::BrokenOff.into()),
                _ => {
                    let ttl = freshness.as_ref().map(|freshness| freshness.left(terms.now_ms));
                    let mut base = terms.route.block(&head.headers, head.length);
                    base.insert(CACHE_STATUS, decision.cache_status(head.status, ttl));
                    let age = freshness.as_ref().map(|freshness| freshness.age(terms.now_ms));
                    let response = terms.answer(base, head.status, head.length, age, Source::Live(reader))?;
                    Ok((response, decision.outcome))
                }
            }
        }
    }
}

/// The answer with a response that lies in memory as a whole.
pub(super) fn deliver_whole(
    terms: &Terms<'_>,
    stored: &Arc<Stored>,
    decision: Decision,
) -> Result<Response<Body>, Refusal> {
    let source = Source::Stored(stored.body_for_answer());
    terms.answer(terms.prepared(stored, decision), stored.status, Some(stored.length()), None, source)
}

/// The same for a plain request of HTTP/1.1 that a hit is given to, with its head in lines; `None` where that is not the
/// same for all.
pub(super) fn deliver_lined(terms: &Terms<'_>, stored: &Arc<Stored>) -> Option<(Response<Body>, Vec<u8>)> {
    let is_plain = *terms.method == Method::GET && !terms.request.contains_key(header::RANGE);
    if !is_plain
        || stored.status != StatusCode::OK
        || !terms.route.is_uniform()
        || conditional::is_conditional(terms.request)
    {
        return None;
    }
    let age = stored.freshness.age(terms.now_ms);
    let lines = terms.route.with_block(stored, |block| block.to_http1(STATUS_LINE_200, age))?;
    Some((Response::new(Body::from(stored.body_for_answer())), lines))
}

/// The answer with a response whose slices are opened one by one.
async fn deliver_sliced(
    terms: &Terms<'_>,
    stored: &Arc<Stored>,
    decision: Decision,
) -> Result<(Response<Body>, CacheOutcome), Undelivered> {
    let source = Source::Sliced(Arc::clone(stored));
    let block = terms.prepared(stored, decision);
    let mut response = terms.answer(block, stored.status, Some(stored.length()), None, source)?;
    match response.body_mut().prime().await {
        Ok(Some(Opened::Fetched)) if decision.outcome == CacheOutcome::Hit => {
            let decision = Decision { outcome: CacheOutcome::Partial, ..decision };
            response.headers_mut().insert(CACHE_STATUS, terms.explain(stored, decision));
            Ok((response, decision.outcome))
        }
        Ok(_) => Ok((response, decision.outcome)),
        Err(ReadError::Outdated) => Err(Undelivered::Outdated),
        Err(ReadError::Failed(cause)) => Err(Refusal::Upstream(cause).into()),
        Err(_) => Err(Refusal::BrokenOff.into()),
    }
}

/// An origin that codes what it was asked for plainly is passed on to those alone who take it (RFC 9110, section 12.5.3).
fn refuse_coding(terms: &Terms<'_>, headers: &HeaderMap) -> Result<(), Refusal> {
    let taken = |coding: &str| fields::takes_coding(terms.request, coding);
    if fields::values(headers, &header::CONTENT_ENCODING).flat_map(fields::list).all(taken) {
        Ok(())
    } else {
        Err(Refusal::BrokenOff)
    }
}

/// Where the bytes come from.
enum Source {
    Stored(Bytes),
    Live(Reader<FetchError>),
    Sliced(Arc<Stored>),
}

impl Source {
    fn whole(self, terms: &Terms<'_>, length: Option<u64>) -> Body {
        match (self, length.and_then(|length| length.checked_sub(1))) {
            (Self::Stored(bytes), _) => Body::from(bytes),
            (Self::Live(reader), _) => Body::live(Live { reader, skip: 0, left: length }),
            (sliced @ Self::Sliced(_), Some(last)) => sliced.span(terms, range::Span { first: 0, last }),
            (Self::Sliced(_), None) => Body::empty(),
        }
    }

    fn span(self, terms: &Terms<'_>, span: range::Span) -> Body {
        match self {
            Self::Stored(bytes) => Body::from(slice(&bytes, span)),
            Self::Live(reader) => Body::live(Live { reader, skip: span.first, left: Some(span.length()) }),
            sliced @ Self::Sliced(_) => sliced.parts(terms, VecDeque::from([Part::Span(span)])),
        }
    }

    /// Several parts, of what is stored.
    fn parts(self, terms: &Terms<'_>, parts: VecDeque<Part>) -> Body {
        match self {
            Self::Stored(bytes) => {
                let cut = |part| match part {
                    Part::Bytes(own) => own,
                    Part::Span(span) => slice(&bytes, span),
                };
                Body::parts(parts.into_iter().map(cut).collect())
            }
            Self::Sliced(stored) => Body::sliced(Slices::new(terms.fetcher.clone(), (terms.wanted)(), stored, parts)),
            Self::Live(_) => Body::empty(),
        }
    }
}

impl Terms<'_> {
    /// The header block of an answer with a stored response.
    fn prepared(&self, stored: &Stored, decision: Decision) -> HeaderMap {
        let age = decimal(stored.freshness.age(self.now_ms));
        let mut block = self.route.with_block(stored, |block| block.to_headers(age));
        if decision.outcome != CacheOutcome::Hit {
            block.insert(CACHE_STATUS, self.explain(stored, decision));
        }
        block
    }

    fn explain(&self, stored: &Stored, decision: Decision) -> HeaderValue {
        decision.cache_status(stored.status, Some(stored.freshness.left(self.now_ms)))
    }

    fn answer(
        &self,
        mut block: HeaderMap,
        status: StatusCode,
        length: Option<u64>,
        age: Option<u32>,
        source: Source,
    ) -> Result<Response<Body>, Refusal> {
        if let Some(age) = age {
            block.insert(header::AGE, decimal(age));
        }
        if !self.route.is_uniform() {
            self.route.cors.mark(self.request, &mut block);
        }
        let mut answer = Answer { status, block, body: Sent::Whole };
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            self.conditions(&mut answer)?;
            if answer.status == StatusCode::OK
                && let (Some(length), Some(field)) = (length, self.request.get(header::RANGE))
            {
                answer = self.ranges(answer, field, length, &source)?;
            }
        }
        let body = match (self.method, answer.body, answer.status) {
            (&Method::HEAD, _, _) | (_, _, StatusCode::NOT_MODIFIED) => Body::empty(),
            (_, Sent::Span(span), _) => source.span(self, span),
            (_, Sent::Parts(parts), _) => source.parts(self, parts),
            (_, Sent::Whole, _) => source.whole(self, length),
        };
        let mut response = Response::new(body);
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.block;
        Ok(response)
    }

    fn conditions(&self, answer: &mut Answer) -> Result<(), Refusal> {
        if !conditional::is_conditional(self.request) {
            return Ok(());
        }
        match conditional::judge(self.request, &Validators::of(&answer.block)) {
            conditional::Outcome::Go => Ok(()),
            conditional::Outcome::Failed => Err(Refusal::Precondition),
            conditional::Outcome::NotModified => {
                answer.status = StatusCode::NOT_MODIFIED;
                for name in
                    [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING, header::ACCEPT_RANGES]
                {
                    answer.block.remove(name);
                }
                Ok(())
            }
        }
    }

    fn ranges(&self, mut answer: Answer, field: &HeaderValue, length: u64, source: &Source) -> Result<Answer, Refusal> {
        if *self.method != Method::GET || !conditional::range_applies(self.request, &Validators::of(&answer.block)) {
            return Ok(answer);
        }
        match field.to_str().map(|field| range::wanted(field, length)) {
            Ok(range::Wanted::Unsatisfiable) => return Err(Refusal::Range(length)),
            Ok(range::Wanted::Spans(spans)) => {
                if let [span] = spans.as_slice()
                    && let Ok(content_range) = HeaderValue::try_from(span.content_range(length))
                {
                    answer.status = StatusCode::PARTIAL_CONTENT;
                    answer.block.insert(header::CONTENT_RANGE, content_range);
                    answer.block.insert(header::CONTENT_LENGTH, HeaderValue::from(span.length()));
                    answer.body = Sent::Span(*span);
                } else if !matches!(source, Source::Live(_)) {
                    // While it is on its way a request for several ranges is answered with the whole, as it may be.
                    several(&mut answer, length, &spans);
                }
            }
            Ok(range::Wanted::Whole) | Err(_) => {}
        }
        Ok(answer)
    }
}

/// An answer being made.
struct Answer {
    status: StatusCode,
    block: HeaderMap,
    body: Sent,
}

/// What of the body is sent.
enum Sent {
    Whole,
    Span(range::Span),
    Parts(VecDeque<Part>),
}

/// `multipart/byteranges` (RFC 9110, section 14.6).
fn several(answer: &mut Answer, whole: u64, spans: &[range::Span]) {
    let boundary = format!("lyceum-{:032x}", u128::from_be_bytes(lyceum_core::ids::random_bytes()));
    let kind = answer.block.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(str::to_owned);
    let kind = kind.map(|kind| format!("Content-Type: {kind}\r\n")).unwrap_or_default();
    let mut parts = VecDeque::with_capacity(spans.len() * 2 + 1);
    for (n, span) in spans.iter().enumerate() {
        let lead = if n == 0 { "" } else { "\r\n" };
        let range = span.content_range(whole);
        let head = format!("{lead}--{boundary}\r\n{kind}Content-Range: {range}\r\n\r\n");
        parts.push_back(Part::Bytes(Bytes::from(head)));
        parts.push_back(Part::Span(*span));
    }
    parts.push_back(Part::Bytes(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    let length = parts.iter().map(Part::length).fold(0, u64::saturating_add);
    if let Ok(kind) = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}")) {
        answer.status = StatusCode::PARTIAL_CONTENT;
        answer.block.insert(header::CONTENT_TYPE, kind);
        answer.block.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        answer.body = Sent::Parts(parts);
    }
}

fn slice(bytes: &Bytes, span: range::Span) -> Bytes {
    let end = usize::try_from(span.last).map_or(bytes.len(), |last| last.saturating_add(1)).min(bytes.len());
    let start = usize::try_from(span.first).unwrap_or(end).min(end);
    bytes.slice(start..end)
}

/// The value of a field that is a number, in one small allocation at most.
fn decimal(number: u32) -> HeaderValue {
    const FEW: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    if let Some(few) = FEW.get(number as usize) {
        return HeaderValue::from_static(few);
    }
    let mut digits = itoa::Buffer::new();
    HeaderValue::from_str(digits.format(number)).unwrap_or(HeaderValue::from_static("0"))
}

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

/// A playlist made from the stored one, with its own entity tag and length.
fn deliver_cut(
    terms: &Terms<'_>,
    kind: Playlist,
    headers: &HeaderMap,
    text: &[u8],
    decision: Decision,
) -> Result<Response<Body>, Refusal> {
    let text = std::str::from_utf8(text).map_err(|_| Refusal::BrokenOff)?;
    let bytes = Bytes::from(filter::filter(kind, text, terms.limits));
    let length = bytes.len() as u64;
    let mut block = terms.route.block(headers, Some(length));
    block.insert(CACHE_STATUS, decision.cache_status(StatusCode::OK, None));
    let tag = format!("\"cut-{:016x}\"", lyceum_upstream::stable_hash(&bytes));
    block.remove(header::LAST_MODIFIED);
    if let Ok(tag) = HeaderValue::try_from(tag) {
        block.insert(header::ETAG, tag);
    }
    terms.answer(block, StatusCode::OK, Some(length), None, Source::Stored(bytes))
}

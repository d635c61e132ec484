//! Requests to an origin, and the copying of a response's body into a fill, resumed where it broke off.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::fetcher::Fetcher;
use super::key::FetchRequest;
use super::origin_response::{OriginRange, content_range, is_coded, strong_etag};
use lyceum_cache::{StoredResponse, Writer};
use lyceum_http::fields;
use lyceum_http::range::ByteRange;
use lyceum_upstream::{FetchError, ResponseBody, UpstreamRequest, UpstreamResponse, stable_hash};

/// How often a body that broke off is resumed.
const MAX_RESUMES: usize = 3;

/// The span of a representation that a body carries: what to ask for when it breaks off.
#[derive(Clone, Debug)]
pub(super) struct BodySpan {
    /// The strong entity tag of the representation.
    pub(super) etag: HeaderValue,
    pub(super) span: ByteRange,
    /// The length of the whole representation.
    pub(super) total: u64,
}

/// Why a body was not copied to its end.
pub(super) enum Incomplete {
    Failed(FetchError),
    /// No reader is left of a response that is not stored either.
    NoReaders,
}

/// Copies a body without its first `skip` bytes, up to the end of its span; one that breaks off is resumed, from another
/// origin if need be. Returns the bytes copied.
pub(super) async fn copy_body(
    writer: &mut Writer<FetchError>,
    request: &FetchRequest,
    mut body: ResponseBody,
    span: Option<BodySpan>,
    mut skip: u64,
) -> Result<u64, Incomplete> {
    let wanted = span.as_ref().map_or(u64::MAX, |span| span.span.length());
    let (mut copied, mut resumes) = (0_u64, 0_usize);
    // A response for one client only may be slow: no one else waits for it.
    let min_progress_bytes = if writer.is_private() { 0 } else { request.route.pool.min_progress_bytes() };
    loop {
        body.require_progress(min_progress_bytes);
        match body.next().await {
            Ok(None) => return Ok(copied),
            Ok(Some(mut piece)) => {
                skip_bytes(&mut piece, &mut skip);
                piece.truncate(usize::try_from(wanted - copied).unwrap_or(usize::MAX));
                copied += piece.len() as u64;
                writer.push(piece).await.map_err(|_| Incomplete::NoReaders)?;
                if copied == wanted {
                    return Ok(copied);
                }
            }
            Err(error) => {
                resumes += 1;
                let rest = match &span {
                    Some(span) if resumes <= MAX_RESUMES => {
                        tracing::debug!(%error, copied, "resuming a body that broke off");
                        span.fetch_rest(request, copied).await
                    }
                    _ => None,
                };
                body = rest.ok_or(Incomplete::Failed(error))?.body;
                skip = 0;
            }
        }
    }
}

/// Drops up to `skip` bytes from the front of a piece.
pub(crate) fn skip_bytes(piece: &mut Bytes, skip: &mut u64) {
    let skipped = (*skip).min(piece.len() as u64);
    *skip -= skipped;
    let _ = piece.split_to(usize::try_from(skipped).unwrap_or(piece.len()));
}

/// Ends a fill whose body broke off for good.
pub(super) fn fail_broken_off(
    fetcher: &Fetcher,
    writer: Writer<FetchError>,
    request: &FetchRequest,
    error: FetchError,
) {
    tracing::warn!(%error, path = %request.key, "the origin's response broke off");
    fetcher.metrics.filled("broken_off");
    writer.fail(error);
}

impl BodySpan {
    /// The request for the span from its byte `copied` on, of the same representation only.
    pub(super) fn request_rest(&self, request: &FetchRequest, copied: u64) -> Option<UpstreamRequest> {
        let mut outgoing = origin_request(request, None, OriginRange::Whole);
        let range = format!("bytes={}-{}", self.span.first.checked_add(copied)?, self.span.last);
        outgoing.headers.insert(header::RANGE, HeaderValue::try_from(range).ok()?);
        outgoing.headers.insert(header::IF_MATCH, self.etag.clone());
        Some(outgoing)
    }

    /// Whether a response is the span from its byte `copied` on.
    pub(super) fn is_rest(&self, response: &UpstreamResponse, copied: u64) -> bool {
        let rest = ByteRange { first: self.span.first.saturating_add(copied), last: self.span.last };
        response.head.status == StatusCode::PARTIAL_CONTENT
            && content_range(&response.head.headers) == Some((rest, self.total))
            && self.is_same(&response.head.headers)
    }

    /// Whether a response is the whole of the same representation.
    pub(super) fn is_whole_of_same(&self, response: &UpstreamResponse) -> bool {
        let length = fields::single(&response.head.headers, &header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        response.head.status == StatusCode::OK && length == Some(self.total) && self.is_same(&response.head.headers)
    }

    fn is_same(&self, headers: &HeaderMap) -> bool {
        strong_etag(headers).as_ref() == Some(&self.etag) && !is_coded(headers)
    }

    async fn fetch_rest(&self, request: &FetchRequest, copied: u64) -> Option<UpstreamResponse> {
        if copied >= self.span.length() {
            return None;
        }
        let response = request.route.pool.fetch(self.request_rest(request, copied)?).await.ok()?;
        self.is_rest(&response, copied).then_some(response)
    }
}

/// The request to an origin: for `range` of the representation, and conditional on the validators of `stale`.
pub(super) fn origin_request(
    request: &FetchRequest,
    stale: Option<&StoredResponse>,
    range: OriginRange,
) -> UpstreamRequest {
    let mut headers = request.headers.clone();
    // Without the field any content coding would be acceptable (RFC 9110, section 12.5.3).
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(stored) = stale {
        let validators = [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)];
        for (validator, condition) in validators {
            if let Some(value) = stored.headers.get(&validator) {
                headers.insert(condition, value.clone());
            }
        }
    }
    match range {
        OriginRange::Whole => {}
        OriginRange::Slice(span) => {
            if let Ok(range) = HeaderValue::try_from(format!("bytes={}-{}", span.first, span.last)) {
                headers.insert(header::RANGE, range);
            }
        }
        OriginRange::AsRequested => {
            let fields = [(header::RANGE, &request.range), (header::IF_RANGE, &request.if_range)];
            for (name, value) in fields {
                if let Some(value) = value {
                    headers.insert(name, value.clone());
                }
            }
        }
    }
    UpstreamRequest {
        method: Method::GET,
        target: request.target.clone(),
        headers,
        body: None,
        affinity: stable_hash(request.key.as_bytes()),
    }
}

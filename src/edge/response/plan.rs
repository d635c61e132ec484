//! Decides what a response carries, by the token's limits on playlists, the request's conditions (RFC 9110, section 13)
//! and its ranges (section 14). Pure: nothing is read, sent or built here.

use http::header::{self, HeaderMap};
use http::{Method, StatusCode};

use crate::error::Refusal;
use lyceum_http::conditional::{self, Validators};
use lyceum_http::range::{self, ByteRange};
use lyceum_packaging::filter::Playlist;

/// Where the body of a found response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyForm {
    /// In memory, as a whole.
    Memory,
    /// In slices, each an entry of the cache.
    Sliced,
    /// On its way from the origin.
    Live,
}

/// The request's side: what decides besides the response itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
}

/// The response's side: what would be sent to a request without conditions and ranges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Representation<'a> {
    pub(super) status: StatusCode,
    /// Its header block, with the validators.
    pub(super) headers: &'a HeaderMap,
    /// The length of its body in bytes, if known.
    pub(super) length: Option<u64>,
    pub(super) form: BodyForm,
}

/// What a response carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ResponsePlan {
    /// The whole representation, with its own status.
    Whole,
    /// 304 without a body.
    NotModified,
    /// 206 with one range.
    Range(ByteRange),
    /// 206 with several ranges, as `multipart/byteranges`.
    Ranges(Vec<ByteRange>),
    /// 412.
    PreconditionFailed,
    /// 416; the length of the representation in bytes.
    NotSatisfiable(u64),
}

/// Whether a playlist has to be filtered by the token's limits. `playlist` is its kind, where there are limits.
pub(super) fn filter_for(
    playlist: Option<Playlist>,
    status: StatusCode,
    form: BodyForm,
) -> Result<Option<Playlist>, Refusal> {
    match (playlist, status, form) {
        (None, _, _) => Ok(None),
        (Some(_), StatusCode::OK, BodyForm::Sliced) => Err(Refusal::TooLarge),
        (Some(kind), StatusCode::OK, BodyForm::Memory | BodyForm::Live) => Ok(Some(kind)),
        // A part of a playlist can't be filtered.
        (Some(_), StatusCode::PARTIAL_CONTENT, BodyForm::Live) => Err(Refusal::BrokenOff),
        (Some(_), _, _) => Ok(None),
    }
}

/// Decides by conditions first, then by ranges (RFC 9110, section 13.2.2).
#[inline]
pub(super) fn decide(request: Conditions<'_>, found: Representation<'_>) -> ResponsePlan {
    if !matches!(found.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
        return ResponsePlan::Whole;
    }
    if conditional::is_conditional(request.headers) {
        match conditional::judge(request.headers, &Validators::of(found.headers)) {
            conditional::ConditionResult::Go => {}
            conditional::ConditionResult::Failed => return ResponsePlan::PreconditionFailed,
            conditional::ConditionResult::NotModified => return ResponsePlan::NotModified,
        }
    }
    match (found.length, request.headers.get(header::RANGE)) {
        (Some(length), Some(field)) if found.status == StatusCode::OK && *request.method == Method::GET => {
            decide_range(request, found, field, length)
        }
        _ => ResponsePlan::Whole,
    }
}

fn decide_range(
    request: Conditions<'_>,
    found: Representation<'_>,
    field: &http::HeaderValue,
    length: u64,
) -> ResponsePlan {
    if !conditional::range_applies(request.headers, &Validators::of(found.headers)) {
        return ResponsePlan::Whole;
    }
    match field.to_str().map(|field| range::wanted(field, length)) {
        Ok(range::RequestedRange::Unsatisfiable) => ResponsePlan::NotSatisfiable(length),
        Ok(range::RequestedRange::Spans(spans)) => match spans.as_slice() {
            [span] => ResponsePlan::Range(*span),
            // Several ranges of a body on its way would need it whole; a server may ignore them.
            _ if found.form == BodyForm::Live => ResponsePlan::Whole,
            _ => ResponsePlan::Ranges(spans),
        },
        Ok(range::RequestedRange::Whole) | Err(_) => ResponsePlan::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> HeaderMap {
        let pairs = text.split(" | ").filter_map(|line| line.split_once(": "));
        pairs.map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn conditions_come_before_ranges() {
        use BodyForm::{Live, Memory, Sliced};
        use ResponsePlan::{NotModified, NotSatisfiable, PreconditionFailed, Range, Ranges, Whole};
        const ETAG: &str = "etag: \"1\"";
        let span = |first, last| ByteRange { first, last };
        let get = Method::GET;
        // The method, the request's fields, the status, the representation's fields, its length, its form, the plan.
        let table = [
            (&get, "", 200, ETAG, Some(10), Memory, Whole),
            (&get, "range: bytes=2-4", 200, ETAG, Some(10), Memory, Range(span(2, 4))),
            (&get, "range: bytes=2-4", 200, ETAG, Some(10), Live, Range(span(2, 4))),
            (&get, "range: bytes=2-4", 200, ETAG, Some(10), Sliced, Range(span(2, 4))),
            (&get, "range: bytes=-4", 200, ETAG, Some(10), Memory, Range(span(6, 9))),
            (&get, "range: bytes=0-1, 8-9", 200, ETAG, Some(10), Memory, Ranges(vec![span(0, 1), span(8, 9)])),
            (&get, "range: bytes=0-1, 8-9", 200, ETAG, Some(10), Sliced, Ranges(vec![span(0, 1), span(8, 9)])),
            (&get, "range: bytes=0-1, 8-9", 200, ETAG, Some(10), Live, Whole),
            (&get, "range: bytes=10-", 200, ETAG, Some(10), Memory, NotSatisfiable(10)),
            (&get, "range: bytes=2-4", 200, ETAG, None, Live, Whole),
            (&get, "range: pages=2-4", 200, ETAG, Some(10), Memory, Whole),
            (&get, "range: bytes=2-4", 206, ETAG, Some(10), Live, Whole),
            (&get, "range: bytes=2-4", 404, ETAG, Some(10), Memory, Whole),
            (&Method::HEAD, "range: bytes=2-4", 200, ETAG, Some(10), Memory, Whole),
            (&get, "range: bytes=2-4 | if-range: \"1\"", 200, ETAG, Some(10), Memory, Range(span(2, 4))),
            (&get, "range: bytes=2-4 | if-range: \"2\"", 200, ETAG, Some(10), Memory, Whole),
            (&get, "if-none-match: \"1\"", 200, ETAG, Some(10), Memory, NotModified),
            (&get, "if-none-match: \"1\" | range: bytes=99-", 200, ETAG, Some(10), Memory, NotModified),
            (&get, "if-none-match: \"2\" | range: bytes=2-4", 200, ETAG, Some(10), Memory, Range(span(2, 4))),
            (&get, "if-none-match: \"1\"", 206, ETAG, Some(10), Live, NotModified),
            (&get, "if-none-match: \"1\"", 404, ETAG, Some(10), Memory, Whole),
            (&get, "if-match: \"2\" | range: bytes=99-", 200, ETAG, Some(10), Memory, PreconditionFailed),
            (&get, "if-match: \"1\"", 200, ETAG, Some(10), Memory, Whole),
            (&Method::HEAD, "if-none-match: \"1\"", 200, ETAG, Some(10), Memory, NotModified),
        ];
        for (method, asked, status, stored, length, form, plan) in table {
            let (headers, stored) = (fields(asked), fields(stored));
            let request = Conditions { method, headers: &headers };
            let status = StatusCode::from_u16(status).unwrap();
            let found = Representation { status, headers: &stored, length, form };
            assert_eq!(decide(request, found), plan, "{method} {asked} of {status} {form:?}");
        }
    }

    #[test]
    fn only_a_whole_playlist_is_filtered() {
        use BodyForm::{Live, Memory, Sliced};
        let hls = Some(Playlist::Hls);
        let ok = StatusCode::OK;
        for (playlist, status, form, filtered) in [
            (None, ok, Memory, Ok(None)),
            (hls, ok, Memory, Ok(hls)),
            (hls, ok, Live, Ok(hls)),
            (hls, ok, Sliced, Err("playlist_too_large")),
            (hls, StatusCode::PARTIAL_CONTENT, Live, Err("origin_failed")),
            (hls, StatusCode::NOT_FOUND, Memory, Ok(None)),
            (hls, StatusCode::NOT_FOUND, Live, Ok(None)),
        ] {
            let result = filter_for(playlist, status, form).map_err(|refusal| refusal.code());
            assert_eq!(result, filtered, "{playlist:?} {status} {form:?}");
        }
    }
}

//! Requests of one viewer over its own connections, each measured and with timeouts.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use lyceum_client::{self as client, Http};
use lyceum_core::time::monotonic;
use lyceum_core::units::Span;
use serde::Serialize;
use url::Url;

use super::boxes::{BoxWalk, Expected};
use super::cmcd;
use crate::hls::{self, ByteRange};

/// The most redirects that are followed for one request.
const MAX_REDIRECTS: usize = 5;
/// The largest segment.
const MAX_SEGMENT_BYTES: u64 = 256 << 20;
/// The largest error body that is read for its code.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

/// The kind of resource; the key of figures in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    /// The multivariant playlist.
    Multivariant,
    /// A media playlist.
    Playlist,
    /// An init segment.
    Init,
    /// A segment with pictures.
    Video,
    /// A segment with sound alone.
    Audio,
    /// A CMCD report.
    Report,
}

impl ResourceKind {
    /// As in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Multivariant => "multivariant",
            Self::Playlist => "playlist",
            Self::Init => "init",
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Report => "report",
        }
    }
}

/// A response that can be used.
#[derive(Debug)]
pub struct Fetched {
    /// Where it came from in the end, redirects followed.
    pub url: Url,
    /// The body of a playlist; empty for media, which is counted and looked at but not kept.
    pub body: Bytes,
    /// Bytes of the body.
    pub bytes: u64,
    /// From the request to the first byte of the response's header.
    pub first_byte: Duration,
    /// From the request to the last byte of the body.
    pub took: Duration,
    /// What the nearest cache said of itself (RFC 9211): `hit`, or why not.
    pub cache: String,
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was asked for.
    pub kind: ResourceKind,
    /// The status, where there was one.
    pub status: Option<u16>,
    /// The server's code (RFC 9457), or one of ours: `unreachable`, `timeout`, `body_broken`, `body_too_large`,
    /// `not_media`, `http_status`, `redirect`, `playlist_invalid`, `playlist_changed`, `playlist_unsupported`.
    pub code: String,
    /// For people; never with a token.
    pub detail: String,
    /// Whether a player would try again.
    pub retry: bool,
}

impl Failure {
    /// A failure without a status.
    pub fn new(kind: ResourceKind, code: &str, detail: impl Into<String>, retry: bool) -> Self {
        Self { kind, status: None, code: code.into(), detail: detail.into(), retry }
    }
}

/// How long requests may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the request to the response's header.
    pub response: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// For the whole.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { response: Duration::from_secs(10), idle: Duration::from_secs(10), total: Duration::from_secs(60) }
    }
}

/// One viewer's requests.
#[derive(Clone, Debug)]
pub struct Fetcher {
    http: Http,
    timeouts: Timeouts,
}

impl Fetcher {
    /// With connections that nobody else uses, kept open between requests.
    pub fn new(timeouts: Timeouts) -> Self {
        let millis = u64::try_from(timeouts.response.as_millis()).unwrap_or(u64::MAX);
        let limits =
            client::Limits { response: Span::millis(millis), idle_connections: 8, ..client::Limits::default() };
        Self { http: Http::new(limits), timeouts }
    }

    /// Fetches a playlist whole.
    pub async fn playlist(&self, kind: ResourceKind, url: Url, cmcd: String) -> Result<Fetched, Failure> {
        self.get(kind, url, None, cmcd, Expected::Anything, Some(hls::MAX_BYTES)).await
    }

    /// Fetches media or a range of it, checks it and drops it.
    pub async fn media(
        &self,
        kind: ResourceKind,
        url: Url,
        range: Option<ByteRange>,
        cmcd: String,
        expected: Expected,
    ) -> Result<Fetched, Failure> {
        self.get(kind, url, range, cmcd, expected, None).await
    }

    async fn get(
        &self,
        kind: ResourceKind,
        url: Url,
        range: Option<ByteRange>,
        cmcd: String,
        expected: Expected,
        keep: Option<usize>,
    ) -> Result<Fetched, Failure> {
        let work = self.follow(kind, url, range, cmcd, expected, keep);
        match tokio::time::timeout(self.timeouts.total, work).await {
            Ok(result) => result,
            Err(_) => Err(Failure::new(kind, "timeout", format!("not whole within {:?}", self.timeouts.total), true)),
        }
    }

    async fn follow(
        &self,
        kind: ResourceKind,
        url: Url,
        range: Option<ByteRange>,
        cmcd: String,
        expected: Expected,
        keep: Option<usize>,
    ) -> Result<Fetched, Failure> {
        let began = monotonic();
        let mut at = url;
        if !cmcd.is_empty() {
            at.query_pairs_mut().append_pair("CMCD", &cmcd);
        }
        for _ in 0..=MAX_REDIRECTS {
            let mut request = client::request(Method::GET, at.as_str(), "").map_err(|error| unsent(kind, &error))?;
            if let Some(ByteRange { length, offset }) = range {
                let last = offset.saturating_add(length).saturating_sub(1);
                if let Ok(value) = HeaderValue::try_from(format!("bytes={offset}-{last}")) {
                    request.headers_mut().insert(header::RANGE, value);
                }
            }
            let response = self.http.send(request).await.map_err(|error| unsent(kind, &error))?;
            let first_byte = monotonic().saturating_duration_since(began);
            let wanted = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
            if response.status() == wanted {
                let cache = cache_status(response.headers());
                let (body, bytes) = self.body(kind, response, expected, keep).await?;
                let took = monotonic().saturating_duration_since(began);
                return Ok(Fetched { url: at, body, bytes, first_byte, took, cache });
            }
            match location(&at, &response) {
                Some(next) => {
                    // Read to its end, so that the connection can be used again.
                    let _ = self.problem(response).await;
                    at = next.map_err(|what| Failure::new(kind, "redirect", what, false))?;
                }
                None => return Err(self.refused(kind, response).await),
            }
        }
        Err(Failure::new(kind, "redirect", format!("more than {MAX_REDIRECTS} redirects"), false))
    }

    async fn body<B>(
        &self,
        kind: ResourceKind,
        response: Response<B>,
        expected: Expected,
        keep: Option<usize>,
    ) -> Result<(Bytes, u64), Failure>
    where
        B: http_body::Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
    {
        let declared = response.body().size_hint().exact();
        let mut body = response.into_body();
        let (mut kept, mut bytes, mut walk) = (Vec::new(), 0u64, BoxWalk::new(expected));
        let not_media = |what| Failure::new(kind, "not_media", what, false);
        loop {
            let piece = match tokio::time::timeout(self.timeouts.idle, body.frame()).await {
                Err(_) => {
                    return Err(Failure::new(
                        kind,
                        "timeout",
                        format!("nothing came for {:?}", self.timeouts.idle),
                        true,
                    ));
                }
                Ok(None) => break,
                Ok(Some(Err(error))) => {
                    return Err(Failure::new(kind, "body_broken", error.to_string(), true));
                }
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            bytes += piece.len() as u64;
            if bytes > keep.map_or(MAX_SEGMENT_BYTES, |limit| limit as u64) {
                return Err(Failure::new(kind, "body_too_large", format!("more than {} bytes", bytes - 1), false));
            }
            walk.feed(&piece).map_err(not_media)?;
            if keep.is_some() {
                kept.extend_from_slice(&piece);
            }
        }
        if let Some(declared) = declared.filter(|declared| *declared != bytes) {
            return Err(Failure::new(kind, "body_broken", format!("{bytes} of {declared} bytes came"), true));
        }
        walk.finish().map_err(not_media)?;
        Ok((kept.into(), bytes))
    }

    /// Posts lines of CMCD.
    pub async fn report(&self, url: Url, lines: String) -> Result<Duration, Failure> {
        let began = monotonic();
        let request = Request::post(url.as_str()).header(header::CONTENT_TYPE, cmcd::REPORT_TYPE);
        let request = request
            .body(client::full(lines))
            .map_err(|error| Failure::new(ResourceKind::Report, "url", error.to_string(), false))?;
        let response = self.http.send(request).await.map_err(|error| unsent(ResourceKind::Report, &error))?;
        if !response.status().is_success() {
            return Err(self.refused(ResourceKind::Report, response).await);
        }
        let _ = self.problem(response).await;
        Ok(monotonic().saturating_duration_since(began))
    }

    /// What a refusal says of itself.
    async fn refused<B>(&self, kind: ResourceKind, response: Response<B>) -> Failure
    where
        B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let status = response.status();
        let retry =
            status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        let problem = self.problem(response).await;
        let code = if problem.code.is_empty() { "http_status".into() } else { problem.code };
        Failure { kind, status: Some(status.as_u16()), code, detail: problem.detail, retry }
    }

    async fn problem<B>(&self, response: Response<B>) -> client::Problem
    where
        B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let whole = http_body_util::Limited::new(response.into_body(), MAX_PROBLEM_BYTES);
        match tokio::time::timeout(self.timeouts.idle, std::pin::pin!(whole).collect()).await {
            Ok(Ok(body)) => serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
            _ => client::Problem::default(),
        }
    }
}

fn unsent(kind: ResourceKind, error: &client::Error) -> Failure {
    let code = match error {
        client::Error::Timeout { .. } => "timeout",
        client::Error::Request(_) => "url",
        _ => "unreachable",
    };
    Failure::new(kind, code, error.to_string(), error.retry())
}

/// Where a redirect leads; `None` when the response is none.
fn location<B>(at: &Url, response: &Response<B>) -> Option<Result<Url, String>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    Some(hls::resolve(at, location).map_err(|_| "a redirect to no http address".into()))
}

/// The nearest cache's word: the last member of `Cache-Status`.
fn cache_status(headers: &HeaderMap) -> String {
    let all = headers.get_all("cache-status");
    let last = all.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).next_back();
    let Some(last) = last else {
        return "unknown".into();
    };
    let mut parameters = last.split(';').skip(1).map(str::trim);
    match parameters.find_map(|p| if p == "hit" { Some(p) } else { p.strip_prefix("fwd=") }) {
        Some(word) if word.len() <= 32 => word.into(),
        _ => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_cache_is_heard() {
        let heard = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("cache-status", HeaderValue::from_static(value));
            }
            cache_status(&headers)
        };
        assert_eq!(heard(&[]), "unknown");
        assert_eq!(heard(&["lyceum; hit; ttl=300"]), "hit");
        assert_eq!(heard(&["shield; hit, lyceum; fwd=uri-miss; stored"]), "uri-miss");
        assert_eq!(heard(&["shield; fwd=miss", "lyceum; hit"]), "hit");
    }
}

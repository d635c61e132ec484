//! Client of the origins' task protocol: lease, heartbeat, complete, fail, and transfer of sources and objects. Calls
//! try the configured origins in order, as all of them share one queue and store.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use lyceum_client::{self as client, Error, Http};
use lyceum_packaging::{DeliveredObject, MediaInfo, TaskSpec};
use serde::{Deserialize, Serialize};

use super::config::Config;

/// A leased task.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Lease {
    pub(super) id: String,
    pub(super) spec: TaskSpec,
    pub(super) source: Location,
    pub(super) lease: String,
    #[serde(default = "half_a_minute")]
    pub(super) lease_seconds: u64,
    pub(super) objects: Location,
}

fn half_a_minute() -> u64 {
    30
}

/// The URL of a source, or the prefix of objects' URLs.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Location {
    pub(super) url: String,
}

#[derive(Serialize)]
struct Heartbeat<'a> {
    lease: &'a str,
    progress: f64,
    handed: &'a [DeliveredObject],
}

#[derive(Deserialize)]
struct HeartbeatReply {
    #[serde(default)]
    cancel: bool,
}

#[derive(Serialize)]
struct Completion<'a> {
    lease: &'a str,
    segments: &'a [DeliveredObject],
    report: Option<&'a MediaInfo>,
}

#[derive(Serialize)]
struct FailureReport<'a> {
    lease: &'a str,
    code: &'a str,
    detail: &'a str,
    retry: bool,
}

/// Why a call about a lease failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeaseError {
    /// The task was leased to another worker or is no longer wanted.
    #[error("the lease was lost")]
    Lost,
    /// Any other error.
    #[error(transparent)]
    Call(#[from] Error),
}

impl From<LeaseError> for std::io::Error {
    fn from(error: LeaseError) -> Self {
        Self::other(error)
    }
}

fn lease_error(error: Error) -> LeaseError {
    if error.status() == Some(StatusCode::CONFLICT) { LeaseError::Lost } else { LeaseError::Call(error) }
}

/// Calls the origins.
pub(super) struct OriginClient {
    http: Http,
    key: String,
    origins: Vec<String>,
    wait: f64,
    next: AtomicUsize,
}

impl OriginClient {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            http: Http::new(config.client.clone()),
            key: config.api_key.clone(),
            origins: config.origins.clone(),
            wait: config.lease_wait.get().as_secs_f64(),
            next: AtomicUsize::new(0),
        }
    }

    /// Asks the origins for a task in round-robin order until one answers.
    pub(super) async fn lease(&self) -> Result<Option<Lease>, Error> {
        let mut failed = None;
        for _ in 0..self.origins.len() {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.origins.len().max(1);
            let Some(origin) = self.origins.get(turn) else { continue };
            let body = serde_json::json!({ "wait": self.wait });
            match self
                .http
                .json::<Lease>(Method::POST, &format!("{origin}/v1/tasks/lease"), &self.key, Some(&body))
                .await
            {
                Ok(lease) => return Ok(lease),
                Err(error) => {
                    tracing::debug!(origin, %error, "no task could be leased");
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| Error::Request("there is no origin".to_owned())))
    }

    /// Renews the lease. Returns whether the task was cancelled.
    pub(super) async fn heartbeat(
        &self,
        lease: &Lease,
        progress: f64,
        handed: &[DeliveredObject],
    ) -> Result<bool, LeaseError> {
        let body = Heartbeat { lease: &lease.lease, progress, handed };
        let answer: Option<HeartbeatReply> = self.post(lease, "heartbeat", &body).await?;
        Ok(answer.is_some_and(|beaten| beaten.cancel))
    }

    /// Reports that the task is done.
    pub(super) async fn complete(
        &self,
        lease: &Lease,
        segments: &[DeliveredObject],
        report: Option<&MediaInfo>,
    ) -> Result<(), LeaseError> {
        let body = Completion { lease: &lease.lease, segments, report };
        self.post::<serde::de::IgnoredAny>(lease, "complete", &body).await.map(drop)
    }

    /// Reports that the task failed.
    pub(super) async fn fail(&self, lease: &Lease, code: &str, detail: &str, retry: bool) -> Result<(), LeaseError> {
        let body = FailureReport { lease: &lease.lease, code, detail, retry };
        self.post::<serde::de::IgnoredAny>(lease, "fail", &body).await.map(drop)
    }

    async fn post<T: serde::de::DeserializeOwned>(
        &self,
        lease: &Lease,
        verb: &str,
        body: &impl Serialize,
    ) -> Result<Option<T>, LeaseError> {
        let mut failed = Error::Request("there is no origin".to_owned());
        for origin in &self.origins {
            let url = format!("{origin}/v1/tasks/{}/{verb}", lease.id);
            match self.http.json(Method::POST, &url, &self.key, Some(body)).await {
                Ok(answer) => return Ok(answer),
                Err(error @ (Error::Unreachable { .. } | Error::Timeout { .. })) => failed = error,
                Err(error) => return Err(lease_error(error)),
            }
        }
        Err(failed.into())
    }

    /// Uploads an object.
    pub(super) async fn put(&self, lease: &Lease, handover: &DeliveredObject, bytes: Bytes) -> Result<(), LeaseError> {
        let url = format!("{}{}", lease.objects.url, handover.path);
        let prepare = |request: &mut http::Request<client::Body>| {
            let length = HeaderValue::from(bytes.len());
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(handover.content_type()));
            request.headers_mut().insert(header::CONTENT_LENGTH, length);
            *request.body_mut() = client::full(bytes.clone());
        };
        self.send(lease, Method::PUT, &url, prepare).await.map(drop)
    }

    /// Reads bytes `from ..= to` of the source. Returns them and the size of the source.
    pub(super) async fn read(&self, lease: &Lease, from: u64, to: u64) -> Result<(Bytes, u64), LeaseError> {
        let range = HeaderValue::from_str(&format!("bytes={from}-{to}"));
        let range = range.map_err(|e| Error::Request(e.to_string()))?;
        let prepare = |request: &mut http::Request<client::Body>| {
            request.headers_mut().insert(header::RANGE, range.clone());
        };
        let (head, bytes) = match self.send(lease, Method::GET, &lease.source.url, prepare).await {
            // An empty source has no satisfiable range.
            Err(LeaseError::Call(Error::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. })) => {
                return Ok((Bytes::new(), 0));
            }
            other => other?,
        };
        let unusable = |what: &str| Error::Body { host: "the source".to_owned(), what: what.to_owned() };
        if head.status != StatusCode::PARTIAL_CONTENT {
            let empty = bytes.is_empty();
            return if empty {
                Ok((Bytes::new(), 0))
            } else {
                Err(unusable("it does not answer range requests").into())
            };
        }
        let range = head.headers.get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok()).and_then(content_range);
        let (start, size) = range.ok_or_else(|| unusable("it has no Content-Range"))?;
        if start != from {
            return Err(unusable("it is another range than asked for").into());
        }
        if bytes.is_empty() || bytes.len() as u64 > to - from + 1 {
            return Err(unusable("it is of another length than asked for").into());
        }
        Ok((bytes, size))
    }

    /// Sends a request to a URL of a lease. Credentials are sent to origins only, not to presigned URLs of a store.
    async fn send(
        &self,
        lease: &Lease,
        method: Method,
        url: &str,
        prepare: impl Fn(&mut http::Request<client::Body>),
    ) -> Result<(http::response::Parts, Bytes), LeaseError> {
        let own = self.own_path(url);
        let mut urls = vec![url.to_owned()];
        if let Some(path) = &own {
            urls.extend(self.origins.iter().map(|origin| format!("{origin}{path}")).filter(|other| other != url));
        }
        let mut failed = Error::Request("there is no URL".to_owned());
        for url in &urls {
            let mut request = client::request(method.clone(), url, if own.is_some() { &self.key } else { "" })?;
            prepare(&mut request);
            if own.is_some() {
                let value = HeaderValue::from_str(&lease.lease).map_err(|e| Error::Request(e.to_string()))?;
                request.headers_mut().insert("lyceum-lease", value);
            }
            match self.http.send_ok(request).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let bytes = self.http.bytes(http::Response::from_parts(head.clone(), body)).await?;
                    return Ok((head, bytes));
                }
                Err(error @ (Error::Unreachable { .. } | Error::Timeout { .. })) => failed = error,
                Err(error) => return Err(lease_error(error)),
            }
        }
        Err(failed.into())
    }

    /// The path of a URL if it belongs to an origin.
    fn own_path(&self, url: &str) -> Option<String> {
        let uri: http::Uri = url.parse().ok()?;
        let path = uri.path_and_query()?.as_str();
        let listed = self
            .origins
            .iter()
            .any(|origin| url.strip_prefix(origin.as_str()).is_some_and(|rest| rest.starts_with('/')));
        (listed || path.starts_with("/v1/tasks/")).then(|| path.to_owned())
    }
}

/// Start and complete size from `bytes 0-9/100` (RFC 9110, section 14.4).
fn content_range(value: &str) -> Option<(u64, u64)> {
    let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/100"), Some((5, 100)));
        for bad in ["bytes */100", "bytes 5-9/*", "items 5-9/100", "bytes 5"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn credentials_go_to_origins_alone() {
        let text = "origins = [\"http://a:1\", \"http://b:2\"]\napi_key = \"k\"";
        let config = lyceum_core::config::parse(text, std::path::Path::new("w"), &|_| None).unwrap();
        let api = OriginClient::new(&config);
        assert_eq!(api.own_path("http://a:1/v1/tasks/x/source").as_deref(), Some("/v1/tasks/x/source"));
        assert_eq!(api.own_path("http://public:9/v1/tasks/x/source").as_deref(), Some("/v1/tasks/x/source"));
        assert_eq!(api.own_path("http://a:1.evil.example/x"), None);
        assert_eq!(api.own_path("https://bucket.example/uploads/x?X-Amz-Signature=1"), None);
    }
}

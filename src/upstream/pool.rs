//! A pool: sends a request to one of its origins, and to others while that fails and saved_retries are left.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use lyceum_core::time::monotonic;

use crate::balance::Balancer;
use crate::client::Client;
use crate::config::{Auth, Health, Pool as PoolConfig};
use crate::error::{Failure, FetchError, PoolError};
use crate::metrics::Metrics;
use crate::origin::{InFlightGuard, Origin, OriginMetrics, is_origin_failure};
use crate::request::{RequestBody, TrackedUpload, UploadState, UpstreamRequest};
use crate::response::{ResponseBody, UpstreamResponse};

/// What a retry costs. A request earns `retry_percent` of it.
const RETRY_COST: i64 = 1000;
/// Retries that may be saved up.
const MAX_SAVED_RETRIES: i64 = 50;

/// What every attempt sends.
struct RequestHead {
    method: Method,
    target: String,
    headers: HeaderMap,
}

/// A pool of origins.
#[derive(Debug)]
pub struct Pool {
    name: String,
    origins: Arc<[Arc<Origin>]>,
    balancer: Balancer,
    client: Client,
    authorization: Option<HeaderValue>,
    /// Origins that are tried for one request.
    max_attempts: usize,
    /// What a request earns, in the unit of [`RETRY_COST`].
    retry_share: i64,
    saved_retries: AtomicI64,
    first_byte_timeout: Duration,
    body_idle: Duration,
    min_progress_bytes: u64,
    clock_skew: u32,
    first_byte_seconds: prometheus::Histogram,
}

impl Pool {
    /// A pool whose origins all count as up at first.
    pub fn new(config: &PoolConfig, metrics: &Metrics) -> Result<Self, PoolError> {
        let origins: Arc<[Arc<Origin>]> = config
            .origins
            .iter()
            .map(|origin| (origin, false))
            .chain(config.backup.iter().map(|origin| (origin, true)))
            .map(|(origin, backup)| {
                let metrics = OriginMetrics::new(metrics, &config.name, &origin.label());
                Origin::new(origin, backup, config, metrics).map(Arc::new)
            })
            .collect::<Result<_, _>>()?;
        let authorization = config.auth.as_ref().and_then(Auth::bearer_header).transpose()?;
        Ok(Self {
            name: config.name.clone(),
            balancer: Balancer::new(config.balance, &origins),
            origins,
            client: Client::new(config)?,
            authorization,
            max_attempts: usize::try_from(config.attempts).unwrap_or(1),
            retry_share: i64::try_from(config.retry_percent).unwrap_or(0) * RETRY_COST / 100,
            saved_retries: AtomicI64::new(MAX_SAVED_RETRIES * RETRY_COST),
            first_byte_timeout: config.first_byte.get() + config.connect.get(),
            body_idle: config.idle.get(),
            min_progress_bytes: config.least.0,
            clock_skew: u32::try_from(config.clock_skew.get().as_secs()).unwrap_or(u32::MAX),
            first_byte_seconds: metrics.first_byte.with_label_values(&[config.name.as_str()]),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fewest bytes of a stored body that must come within as much waiting as a body may stand still.
    pub fn min_progress_bytes(&self) -> u64 {
        self.min_progress_bytes
    }

    /// How far the origins' clocks may be behind, in seconds.
    pub fn clock_skew(&self) -> u32 {
        self.clock_skew
    }

    /// Requests in flight to all origins of the pool.
    pub fn in_flight(&self) -> usize {
        self.origins.iter().map(|origin| origin.in_flight()).sum()
    }

    /// The origins' labels in metrics.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &str> {
        self.origins.iter().map(|origin| &*origin.label)
    }

    /// Each origin's label and whether it is used now.
    pub fn origin_states(&self) -> Vec<(String, bool)> {
        let now = monotonic();
        self.origins.iter().map(|origin| (origin.label.to_string(), origin.is_up(now))).collect()
    }

    /// Checks the origins' health for ever; returns at once where no check is configured.
    pub async fn check_health(self: Arc<Self>, health: Option<Health>) {
        let Some(health) = health else { return };
        let checks = self.origins.iter().map(|origin| origin.check(&self.client, &health));
        futures_util::future::join_all(checks).await;
    }

    /// Sends the request to one origin, and to others while that fails and retries are left.
    ///
    /// A response of 500, 502, 503 or 504 counts as a failure of the origin; when no other origin may be tried it is returned
    /// as it is.
    pub async fn fetch(&self, request: UpstreamRequest) -> Result<UpstreamResponse, FetchError> {
        self.earn_retries();
        let UpstreamRequest { method, target, headers, mut body, affinity } = request;
        let may_retry = body.is_none() && method.is_idempotent();
        let head = RequestHead { method, target, headers };
        let mut tried: Vec<usize> = Vec::new();
        loop {
            let chosen = self.balancer.choose(&self.origins, affinity, &tried, monotonic());
            let Some((index, origin)) = chosen else {
                return Err(FetchError {
                    failure: Failure::Connect,
                    origin: self.name.as_str().into(),
                    cause: "the pool has no origin".into(),
                });
            };
            tried.push(index);
            let outcome = self.try_origin(&origin, &head, body.take()).await;
            let may_help = match &outcome {
                Ok(response) => is_origin_failure(response.head.status),
                Err(error) => error.failure.retry(),
            };
            let has_others = tried.len() < self.max_attempts.min(self.origins.len());
            if !(may_help && may_retry && has_others && self.spend_retry()) {
                return outcome;
            }
            if let Err(error) = &outcome {
                tracing::debug!(pool = %self.name, origin = %origin.label, %error, "trying another origin");
            }
        }
    }

    async fn try_origin(
        &self,
        origin: &Arc<Origin>,
        head: &RequestHead,
        body: Option<RequestBody>,
    ) -> Result<UpstreamResponse, FetchError> {
        let in_flight = InFlightGuard::new(origin);
        let failed = |failure: Failure, cause: &dyn std::fmt::Display| FetchError {
            failure,
            origin: Arc::clone(&origin.label),
            cause: cause.to_string().into(),
        };
        let (body, mut upload) = match body.map(TrackedUpload::new) {
            Some((body, upload)) => (Some(body.boxed_unsync()), Some(upload)),
            None => (None, None),
        };
        let request = self.build_request(origin, head, body).map_err(|e| failed(Failure::Request, &e))?;
        let start = monotonic();
        let late = async {
            // The time in which the client sends its body does not count.
            if let Some(upload) = &mut upload {
                let _ = upload.wait_for(|upload| *upload != UploadState::Sending).await;
            }
            tokio::time::sleep(self.first_byte_timeout).await;
        };
        let outcome = tokio::select! {
            biased;
            response = self.client.send(request) => response.map_err(|(failure, cause)| failed(failure, &cause)),
            () = late => Err(failed(Failure::Timeout, &"no response in time")),
        };
        let is_client_failure = upload.is_some_and(|upload| *upload.borrow() == UploadState::Broken);
        let outcome = outcome
            .map_err(|error| if is_client_failure { FetchError { failure: Failure::Client, ..error } } else { error });
        // The pool never asks for an upgrade; a client that got this response would go on in another protocol (RFC 9110,
        // section 15.2.2).
        let outcome = outcome.and_then(|response| {
            if response.status().is_informational() {
                return Err(failed(Failure::Protocol, &"it switches protocols without being asked"));
            }
            // The pool never asks for a coding other than `chunked` (RFC 9112, section 7.4): coded bytes would be taken for
            // content, and with a length too the body would be truncated to it.
            if !has_single_framing(response.headers()) {
                return Err(failed(
                    Failure::Protocol,
                    &"its body has a transfer coding that was not asked for, or two framings",
                ));
            }
            Ok(response)
        });
        let took = start.elapsed();
        match outcome {
            Ok(response) => {
                self.first_byte_seconds.observe(took.as_secs_f64());
                origin.record_response(response.status(), took, monotonic());
                let (head, body) = response.into_parts();
                let body = ResponseBody::new(body, self.body_idle, Arc::clone(origin), in_flight);
                Ok(UpstreamResponse { head, body, origin: Arc::clone(&origin.label) })
            }
            Err(error) => {
                origin.record_failure(error.failure, monotonic());
                Err(error)
            }
        }
    }

    /// The request for one origin.
    fn build_request(
        &self,
        origin: &Origin,
        head: &RequestHead,
        body: Option<RequestBody>,
    ) -> Result<Request<RequestBody>, http::Error> {
        let uri = Uri::builder()
            .scheme(origin.scheme.clone())
            .authority(origin.authority.clone())
            .path_and_query(origin.target(&head.target).as_ref())
            .build()?;
        let body = body.unwrap_or_else(|| Empty::new().map_err(|never| match never {}).boxed_unsync());
        let mut request = Request::builder().method(head.method.clone()).uri(uri).body(body)?;
        *request.headers_mut() = head.headers.clone();
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    fn earn_retries(&self) {
        let most = MAX_SAVED_RETRIES * RETRY_COST;
        if self.saved_retries.load(Ordering::Relaxed) < most {
            self.saved_retries.fetch_add(self.retry_share, Ordering::Relaxed);
        }
    }

    fn spend_retry(&self) -> bool {
        let spend = |left: i64| (left >= RETRY_COST).then(|| left - RETRY_COST);
        self.saved_retries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

/// Whether a body has one framing: its length, a single `chunked`, or the connection's end. A length beside a coding is a
/// second reading of the same bytes, and an error (RFC 9112, section 6.3).
fn has_single_framing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(one), None) => {
            one.as_bytes().eq_ignore_ascii_case(b"chunked") && !headers.contains_key(header::CONTENT_LENGTH)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;

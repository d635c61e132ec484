//! Origins in pools: choosing one, asking it, and asking another when it fails.
//!
//! Owns connections towards origins, their health and the balance between them. It must not know of caches, tokens
//! or clients. An error says who failed and whether another try may help; the pool decides from that alone.
//!
//! HTTP/1.1 and 2 (RFC 9112, RFC 9113): 2 by ALPN to `https` origins, or with `h2c = true` to `http` ones.
#![forbid(unsafe_code)]

mod balance;
mod body;
mod config;
mod connect;
mod origin;
mod sign;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use prometheus::Registry;

use lyceum_core::telemetry;
use lyceum_core::time::monotonic;

pub use balance::stable_hash;
pub use body::Incoming;
pub use config::{Auth, Balance, Health, Origin as OriginConfig, Pool as PoolConfig};
pub use connect::UpstreamError;
pub use sign::S3;

use balance::Balancer;
use body::{Sent, Upload};
use connect::Client;
use origin::{InFlight, Origin, OriginMetrics};

/// An error of any kind inside of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request to an origin.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// What one retry costs, in thousandths; a request adds its share of that.
const RETRY_COST: i64 = 1000;
/// How many retries may be saved up.
const RETRY_BURST: i64 = 50;

/// Why no response, or no whole body, came from an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No connection.
    Connect,
    /// Nothing came in time.
    Timeout,
    /// The connection broke.
    Reset,
    /// It answered, but what is no sound HTTP message.
    Protocol,
    /// The request can't be sent at all.
    Request,
    /// The request's own body broke off or is malformed: its client's fault.
    Client,
}

impl Failure {
    /// The label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Request => "request",
            Self::Client => "client",
        }
    }

    /// Whether another origin, or the same one later, may do better.
    pub fn retry(self) -> bool {
        !matches!(self, Self::Request | Self::Client)
    }
}

/// A failed fetch.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{origin}: {}: {cause}", failure.name())]
pub struct FetchError {
    /// What went wrong.
    pub failure: Failure,
    /// The origin (host and port) that was asked last.
    pub origin: Arc<str>,
    /// The cause, for the log.
    pub cause: Arc<str>,
}

/// A request as an origin shall get it.
#[derive(Debug)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// End-to-end fields; `Host`, credentials and framing are the pool's.
    pub headers: HeaderMap,
    /// A body, if there is one; such a request is sent once.
    pub body: Option<RequestBody>,
    /// What consistent hashing goes by.
    pub affinity: u64,
}

/// What each try sends anew.
struct Message {
    method: Method,
    target: String,
    headers: HeaderMap,
}

/// An answer, its body still to come.
#[derive(Debug)]
pub struct Answer {
    /// Status and fields, as the origin sent them.
    pub head: http::response::Parts,
    /// The body.
    pub body: Incoming,
    /// Who answered (host and port).
    pub origin: Arc<str>,
}

/// A pool of origins.
#[derive(Debug)]
pub struct Pool {
    name: String,
    origins: Arc<[Arc<Origin>]>,
    balancer: Balancer,
    client: Client,
    authorization: Option<HeaderValue>,
    attempts: usize,
    retry_share: i64,
    retries: AtomicI64,
    first_byte: Duration,
    idle: Duration,
    least: u64,
    first_byte_seconds: prometheus::Histogram,
}

/// The metrics of all pools of a process.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: prometheus::IntCounterVec,
    up: prometheus::IntGaugeVec,
    in_flight: prometheus::IntGaugeVec,
    first_byte: prometheus::HistogramVec,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &Registry) -> Self {
        let origin = &["pool", "origin"];
        Self {
            requests: telemetry::counters(
                registry,
                "lyceum_upstream_requests_total",
                "Requests to origins by what came of them.",
                &["pool", "origin", "result"],
            ),
            up: telemetry::gauges(
                registry,
                "lyceum_upstream_origin_up",
                "Whether an origin is used (1) or out (0).",
                origin,
            ),
            in_flight: telemetry::gauges(
                registry,
                "lyceum_upstream_in_flight_requests",
                "Requests to an origin whose body has not ended.",
                origin,
            ),
            first_byte: telemetry::histograms(
                registry,
                "lyceum_upstream_first_byte_seconds",
                "Time from asking an origin to the header of its answer.",
                &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
                &["pool"],
            ),
        }
    }
}

impl Pool {
    /// A pool whose origins all count as up until something else is seen.
    pub fn new(config: &PoolConfig, metrics: &Metrics) -> Result<Self, UpstreamError> {
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
        let authorization = config.auth.as_ref().and_then(Auth::value).transpose()?;
        Ok(Self {
            name: config.name.clone(),
            balancer: Balancer::new(config.balance, &origins),
            origins,
            client: Client::new(config)?,
            authorization,
            attempts: usize::try_from(config.attempts).unwrap_or(1),
            retry_share: i64::try_from(config.retry_percent).unwrap_or(0) * RETRY_COST / 100,
            retries: AtomicI64::new(RETRY_BURST * RETRY_COST),
            first_byte: config.first_byte.get() + config.connect.get(),
            idle: config.idle.get(),
            least: config.least.0,
            first_byte_seconds: metrics.first_byte.with_label_values(&[config.name.as_str()]),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fewest bytes of a body that must come in as much waiting as it may stand still.
    pub fn least(&self) -> u64 {
        self.least
    }

    /// Requests under way to all origins of the pool.
    pub fn in_flight(&self) -> usize {
        self.origins.iter().map(|origin| origin.in_flight()).sum()
    }

    /// Each origin's label and whether it is used now.
    pub fn standing(&self) -> Vec<(String, bool)> {
        let now = monotonic();
        self.origins.iter().map(|origin| (origin.label.to_string(), origin.is_up(now))).collect()
    }

    /// Checks the origins for ever, each at its interval; returns at once where no check is configured.
    pub async fn watch(self: Arc<Self>, health: Option<Health>) {
        let Some(health) = health else { return };
        let checks = self.origins.iter().map(|origin| origin.check(&self.client, &health));
        futures_util::future::join_all(checks).await;
    }

    /// Asks one origin, and others while that fails and retries are left.
    ///
    /// An answer of 500, 502, 503 or 504 counts as a failure of the origin; when there is no one else to ask it is
    /// handed on as it is.
    pub async fn fetch(&self, outgoing: Outgoing) -> Result<Answer, FetchError> {
        self.earn_retries();
        let Outgoing { method, target, headers, mut body, affinity } = outgoing;
        let may_repeat = body.is_none() && method.is_idempotent();
        let message = Message { method, target, headers };
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
            let outcome = self.ask(&origin, &message, body.take()).await;
            let again = match &outcome {
                Ok(answer) => is_origin_failure(answer.head.status),
                Err(error) => error.failure.retry(),
            };
            let others = tried.len() < self.attempts.min(self.origins.len());
            if !(again && may_repeat && others && self.spend_retry()) {
                return outcome;
            }
            if let Err(error) = &outcome {
                tracing::debug!(pool = %self.name, origin = %origin.label, %error, "asking another origin");
            }
        }
    }

    async fn ask(
        &self,
        origin: &Arc<Origin>,
        message: &Message,
        body: Option<RequestBody>,
    ) -> Result<Answer, FetchError> {
        let in_flight = InFlight::new(origin);
        let failed = |failure: Failure, cause: &dyn std::fmt::Display| FetchError {
            failure,
            origin: Arc::clone(&origin.label),
            cause: cause.to_string().into(),
        };
        let (body, mut sent) = match body.map(Upload::new) {
            Some((body, sent)) => (Some(body.boxed_unsync()), Some(sent)),
            None => (None, None),
        };
        let request = self.request(origin, message, body).map_err(|e| failed(Failure::Request, &e))?;
        let start = monotonic();
        let late = async {
            // The time that a client takes for its body is not the origin's.
            if let Some(sent) = &mut sent {
                let _ = sent.wait_for(|sent| *sent != Sent::UnderWay).await;
            }
            tokio::time::sleep(self.first_byte).await;
        };
        let outcome = tokio::select! {
            biased;
            answer = self.client.send(request) => answer.map_err(|(failure, cause)| failed(failure, &cause)),
            () = late => Err(failed(Failure::Timeout, &"no answer in time")),
        };
        let broken = sent.is_some_and(|sent| *sent.borrow() == Sent::Broken);
        let outcome =
            outcome.map_err(|error| if broken { FetchError { failure: Failure::Client, ..error } } else { error });
        // No upgrade is ever asked for: whoever was told of one would read on in another protocol (RFC 9110, section 15.2.2).
        let outcome = outcome.and_then(|response| {
            if response.status().is_informational() {
                return Err(failed(Failure::Protocol, &"it switches protocols unasked"));
            }
            // No coding but `chunked` is ever asked for (RFC 9112, section 7.4): what is coded would be taken for plain, and
            // what has a length too be cut to it.
            if !is_plainly_framed(response.headers()) {
                return Err(failed(Failure::Protocol, &"its body is framed in another way than was asked for"));
            }
            Ok(response)
        });
        let took = start.elapsed();
        match outcome {
            Ok(response) => {
                self.first_byte_seconds.observe(took.as_secs_f64());
                origin.answered(response.status(), took, monotonic());
                let (head, body) = response.into_parts();
                let body = Incoming::new(body, self.idle, Arc::clone(origin), in_flight);
                Ok(Answer { head, body, origin: Arc::clone(&origin.label) })
            }
            Err(error) => {
                origin.failed(error.failure, monotonic());
                Err(error)
            }
        }
    }

    fn request(
        &self,
        origin: &Origin,
        message: &Message,
        body: Option<RequestBody>,
    ) -> Result<Request<RequestBody>, http::Error> {
        let uri = Uri::builder()
            .scheme(origin.scheme.clone())
            .authority(origin.authority.clone())
            .path_and_query(origin.target(&message.target).as_ref())
            .build()?;
        let body = body.unwrap_or_else(|| Empty::new().map_err(|never| match never {}).boxed_unsync());
        let mut request = Request::builder().method(message.method.clone()).uri(uri).body(body)?;
        *request.headers_mut() = message.headers.clone();
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    fn earn_retries(&self) {
        let most = RETRY_BURST * RETRY_COST;
        if self.retries.load(Ordering::Relaxed) < most {
            self.retries.fetch_add(self.retry_share, Ordering::Relaxed);
        }
    }

    fn spend_retry(&self) -> bool {
        let spend = |left: i64| (left >= RETRY_COST).then(|| left - RETRY_COST);
        self.retries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

/// Whether a body is framed in one way: by its length, by `chunked` said once, or by the connection's end. A length beside
/// a coding is another reading of the same bytes, and an error (RFC 9112, section 6.3).
fn is_plainly_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(one), None) => {
            one.as_bytes().eq_ignore_ascii_case(b"chunked") && !headers.contains_key(header::CONTENT_LENGTH)
        }
        _ => false,
    }
}

/// Answers that say that this origin, rather than what was asked for, is at fault.
fn is_origin_failure(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// A response with hyper's body.
type RawResponse = Response<hyper::body::Incoming>;

#[cfg(test)]
mod tests;

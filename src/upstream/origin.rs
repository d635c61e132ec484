//! One origin: its failures, latency and health, and whether it is used.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use prometheus::{IntCounter, IntGauge};

use lyceum_core::time::{Instant, monotonic};

use crate::client::Client;
use crate::config::{Health, Origin as OriginConfig, Pool as PoolConfig};
use crate::error::{Failure, PoolError};
use crate::metrics::Metrics;

/// The weight of a new measurement in the average: 2^-3.
const EWMA_SHIFT: u32 = 3;

/// How often the time of an ejection may double.
const MAX_DOUBLINGS: u32 = 4;

/// The most bytes of a health check's response that are read.
const MAX_PROBE_BODY_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) label: Arc<str>,
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    prefix: String,
    pub(crate) weight: u64,
    pub(crate) backup: bool,
    pub(crate) in_flight: AtomicUsize,
    /// Average time to the response's header, in microseconds; rises at once, falls slowly.
    pub(crate) latency: AtomicU64,
    /// By active health checks.
    healthy: AtomicBool,
    /// Failures in a row.
    failures: AtomicU32,
    /// Ejections in a row.
    ejections: AtomicU32,
    /// The end of its ejection, in milliseconds since `created`.
    ejected_until: AtomicU64,
    created: Instant,
    eject_after: u32,
    eject_for: Duration,
    pub(crate) metrics: OriginMetrics,
}

/// An origin's metrics.
#[derive(Debug)]
pub(crate) struct OriginMetrics {
    ok: IntCounter,
    client_error: IntCounter,
    server_error: IntCounter,
    failures: [(Failure, IntCounter); 6],
    up: IntGauge,
    in_flight: IntGauge,
}

impl OriginMetrics {
    pub(crate) fn new(metrics: &Metrics, pool: &str, origin: &str) -> Self {
        let count = |result: &str| metrics.requests.with_label_values(&[pool, origin, result]);
        let failures =
            [Failure::Connect, Failure::Timeout, Failure::Reset, Failure::Protocol, Failure::Request, Failure::Client];
        Self {
            ok: count("ok"),
            client_error: count("client_error"),
            server_error: count("server_error"),
            failures: failures.map(|failure| (failure, count(failure.name()))),
            up: metrics.up.with_label_values(&[pool, origin]),
            in_flight: metrics.in_flight.with_label_values(&[pool, origin]),
        }
    }

    fn record_response(&self, status: StatusCode) {
        match status.as_u16() {
            500.. => self.server_error.inc(),
            400.. => self.client_error.inc(),
            _ => self.ok.inc(),
        }
    }

    fn record_failure(&self, failure: Failure) {
        if let Some((_, counter)) = self.failures.iter().find(|(name, _)| *name == failure) {
            counter.inc();
        }
    }
}

impl Origin {
    pub(crate) fn new(
        origin: &OriginConfig,
        backup: bool,
        pool: &PoolConfig,
        metrics: OriginMetrics,
    ) -> Result<Self, PoolError> {
        let wrong = || PoolError::Url(origin.url.clone());
        let uri: Uri = origin.url.parse().map_err(|_| wrong())?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.filter(|s| *s == Scheme::HTTP || *s == Scheme::HTTPS).ok_or_else(wrong)?;
        let authority = parts.authority.filter(|a| !a.as_str().contains('@')).ok_or_else(wrong)?;
        if parts.path_and_query.is_some_and(|p| p.as_str() != "/") {
            return Err(wrong());
        }
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
        let prefix = origin.prefix.as_str();
        if !prefix.is_empty() && (!prefix.starts_with('/') || prefix.ends_with('/') || !prefix.bytes().all(is_allowed))
        {
            return Err(PoolError::Prefix(origin.prefix.clone()));
        }
        metrics.up.set(1);
        Ok(Self {
            prefix: origin.prefix.clone(),
            label: authority.as_str().into(),
            scheme,
            authority,
            weight: origin.weight,
            backup,
            in_flight: AtomicUsize::new(0),
            latency: AtomicU64::new(1000),
            healthy: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            created: monotonic(),
            eject_after: u32::try_from(pool.eject_after).unwrap_or(u32::MAX),
            eject_for: pool.eject_for.get(),
            metrics,
        })
    }

    /// Whether it is used.
    pub(crate) fn is_up(&self, now: Instant) -> bool {
        self.healthy.load(Ordering::Relaxed) && self.since_created(now) >= self.ejected_until.load(Ordering::Relaxed)
    }

    /// Requests in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Path and query with this origin's prefix.
    pub(crate) fn target<'a>(&self, target: &'a str) -> Cow<'a, str> {
        if self.prefix.is_empty() { Cow::Borrowed(target) } else { Cow::Owned(format!("{}{target}", self.prefix)) }
    }

    fn since_created(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.created).as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn record_response(&self, status: StatusCode, took: Duration, now: Instant) {
        self.metrics.record_response(status);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let _ = self.latency.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
            Some(if micros > old { micros } else { old - ((old - micros) >> EWMA_SHIFT) })
        });
        if is_origin_failure(status) {
            self.count_failure(now);
        } else {
            self.failures.store(0, Ordering::Relaxed);
            self.ejections.store(0, Ordering::Relaxed);
            self.update_gauge(now);
        }
    }

    pub(crate) fn record_failure(&self, failure: Failure, now: Instant) {
        self.metrics.record_failure(failure);
        if failure.retry() {
            self.count_failure(now);
        }
    }

    /// A body broke off; its response was counted already.
    pub(crate) fn record_broken_body(&self, now: Instant) {
        self.count_failure(now);
    }

    fn count_failure(&self, now: Instant) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures < self.eject_after {
            return;
        }
        self.failures.store(0, Ordering::Relaxed);
        let doublings = self.ejections.fetch_add(1, Ordering::Relaxed).min(MAX_DOUBLINGS);
        let span = u64::try_from((self.eject_for * (1 << doublings)).as_millis()).unwrap_or(u64::MAX);
        self.ejected_until.store(self.since_created(now).saturating_add(span), Ordering::Relaxed);
        tracing::warn!(origin = %self.label, failures, for_ms = span, "origin ejected after failures in a row");
        self.update_gauge(now);
    }

    fn update_gauge(&self, now: Instant) {
        self.metrics.up.set(i64::from(self.is_up(now)));
    }

    /// Requests the health path for ever.
    pub(crate) async fn check(&self, client: &Client, health: &Health) {
        let (mut good, mut bad) = (0_u64, 0_u64);
        let mut ticks = tokio::time::interval(health.interval.get());
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let passed = tokio::time::timeout(health.timeout.get(), self.probe(client, &health.path)).await;
            if passed.unwrap_or(false) {
                (good, bad) = (good + 1, 0);
            } else {
                (good, bad) = (0, bad + 1);
            }
            let was = self.healthy.load(Ordering::Relaxed);
            let is = if was { bad < health.fall } else { good >= health.rise };
            if was != is {
                self.healthy.store(is, Ordering::Relaxed);
                tracing::warn!(origin = %self.label, healthy = is, "origin health changed");
            }
            if is && !was {
                // It has recovered: failures from before do not count any more.
                self.failures.store(0, Ordering::Relaxed);
                self.ejected_until.store(0, Ordering::Relaxed);
            }
            self.update_gauge(monotonic());
        }
    }

    async fn probe(&self, client: &Client, path: &str) -> bool {
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path);
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let Some(request) = uri.build().ok().and_then(|uri| Request::get(uri).body(body).ok()) else {
            return false;
        };
        match client.send(request).await {
            Ok(response) => {
                let healthy = response.status().is_success();
                // Read to the end, so that the connection can be reused, unless the body is long.
                let rest = http_body_util::Limited::new(response.into_body(), MAX_PROBE_BODY_BYTES);
                let _ = rest.collect().await;
                healthy
            }
            Err(_) => false,
        }
    }
}

/// Whether a status blames the origin rather than the request.
pub(crate) fn is_origin_failure(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Counts a request in flight, until its response's body has ended.
#[derive(Debug)]
pub(crate) struct InFlightGuard(Arc<Origin>);

impl InFlightGuard {
    pub(crate) fn new(origin: &Arc<Origin>) -> Self {
        origin.in_flight.fetch_add(1, Ordering::Relaxed);
        origin.metrics.in_flight.inc();
        Self(Arc::clone(origin))
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.in_flight.dec();
    }
}

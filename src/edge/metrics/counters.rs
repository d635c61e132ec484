//! The edge's counters and gauges. Those of the request path keep their handles, so that a request looks up no label.

use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use prometheus::core::GenericCounterVec;
use prometheus::{IntCounter, IntCounterVec, Registry};

use super::first_byte::FirstByte;
use crate::cache_status::CacheOutcome;
use lyceum_cache::PrefetchTally;
use lyceum_core::telemetry::{self, HotCounter, StripedCounter};
use lyceum_token::Denied;

/// Statuses with a kept handle; others are looked up.
const STATUSES: [u16; 6] = [200, 206, 304, 403, 404, 204];

/// The handles of one route.
#[derive(Clone, Debug)]
pub(crate) struct RouteMetrics {
    label: String,
    requests: GenericCounterVec<StripedCounter>,
    kept: [[OnceLock<HotCounter>; STATUSES.len()]; CacheOutcome::ALL.len()],
    pub(crate) bytes: HotCounter,
}

impl RouteMetrics {
    fn new(
        label: &str,
        requests: &GenericCounterVec<StripedCounter>,
        bytes: &GenericCounterVec<StripedCounter>,
    ) -> Self {
        Self {
            label: label.to_owned(),
            requests: requests.clone(),
            kept: Default::default(),
            bytes: bytes.with_label_values(&[label]),
        }
    }

    fn request(&self, outcome: CacheOutcome, status: StatusCode) {
        let of_label = || self.requests.with_label_values(&[self.label.as_str(), outcome.name(), status.as_str()]);
        let slot = STATUSES.iter().position(|known| *known == status.as_u16());
        match slot.and_then(|slot| self.kept.get(outcome.index())?.get(slot)) {
            Some(kept) => kept.get_or_init(of_label).inc(),
            None => of_label().inc(),
        }
    }
}

/// The handles of prefetching.
#[derive(Clone, Debug)]
pub(crate) struct PrefetchMetrics {
    pub(crate) tally: PrefetchTally,
    pub(crate) fetched: IntCounter,
    pub(crate) busy: IntCounter,
    pub(crate) budget: IntCounter,
}

impl PrefetchMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let results = telemetry::counters(
            registry,
            "lyceum_edge_ahead_total",
            "Segments fetched before players asked: fetched, later useful or wasted; not fetched for a busy origin or the budget.",
            &["result"],
        );
        let of = |result: &str| results.with_label_values(&[result]);
        let unused = telemetry::gauge(
            registry,
            "lyceum_edge_ahead_unused_bytes",
            "Bytes fetched ahead that no one has asked for yet.",
        );
        let tally = PrefetchTally { useful: of("useful"), wasted: of("wasted"), unused };
        Self { tally, fetched: of("fetched"), busy: of("busy"), budget: of("budget") }
    }
}

/// The metrics of the edge.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    routes: Vec<RouteMetrics>,
    bytes: GenericCounterVec<StripedCounter>,
    /// Requests without a route.
    unrouted: RouteMetrics,
    first_byte: FirstByte,
    refusals: IntCounterVec,
    fills: IntCounterVec,
    not_stored: IntCounterVec,
    pub(crate) cache_bytes: prometheus::IntGauge,
    pub(crate) cache_objects: prometheus::IntGauge,
    pub(crate) fills_open: prometheus::IntGauge,
    pub(crate) tokens: prometheus::IntGauge,
    pub(crate) revoked: prometheus::IntGauge,
    pub(crate) refreshes: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, prefixes: &[&str]) -> Self {
        let requests = telemetry::hot_counters(
            registry,
            "lyceum_edge_requests_total",
            "Requests by route, what the cache had to do with the answer, and status.",
            &["route", "outcome", "status"],
        );
        let bytes = telemetry::hot_counters(
            registry,
            "lyceum_edge_response_bytes_total",
            "Bytes of response bodies handed to connections.",
            &["route"],
        );
        let route = |label: &str| RouteMetrics::new(label, &requests, &bytes);
        let refusals = telemetry::counters(
            registry,
            "lyceum_edge_refusals_total",
            "Requests that were refused, by code.",
            &["code"],
        );
        // A series that appears with its first count hides that count from rate().
        for code in Denied::CODES {
            refusals.with_label_values(&[code]);
        }
        let fills = telemetry::counters(
            registry,
            "lyceum_edge_fills_total",
            "Fetches into the cache by what came of them.",
            &["result"],
        );
        let not_stored = telemetry::counters(
            registry,
            "lyceum_edge_not_stored_total",
            "Fetched responses that were not stored, by reason.",
            &["reason"],
        );
        Self {
            routes: prefixes.iter().map(|prefix| route(prefix)).collect(),
            unrouted: route(""),
            bytes: bytes.clone(),
            first_byte: FirstByte::new(registry),
            refusals,
            fills,
            not_stored,
            cache_bytes: telemetry::gauge(registry, "lyceum_edge_cache_bytes", "Memory that stored responses take."),
            cache_objects: telemetry::gauge(registry, "lyceum_edge_cache_objects", "Responses that are stored."),
            fills_open: telemetry::gauge(registry, "lyceum_edge_fills_open", "Fetches into the cache under way."),
            tokens: telemetry::gauge(registry, "lyceum_edge_tokens_remembered", "Verified tokens that are remembered."),
            revoked: telemetry::gauge(registry, "lyceum_edge_sessions_revoked", "Revoked sessions that are held."),
            refreshes: telemetry::counters(
                registry,
                "lyceum_edge_follow_total",
                "Attempts to bring keys and revocations up to date.",
                &["what", "result"],
            ),
        }
    }

    /// Removes the series of routes that `other` does not have.
    pub(crate) fn remove_routes_not_in(&self, other: &Self) {
        for former in self.routes.iter().filter(|former| other.routes.iter().all(|route| route.label != former.label)) {
            telemetry::remove_series(&former.requests, &[("route", &former.label)]);
            telemetry::remove_series(&self.bytes, &[("route", &former.label)]);
        }
    }

    /// The same series for other routes.
    pub(crate) fn rerouted(&self, prefixes: &[&str]) -> Self {
        let route = |prefix: &&str| RouteMetrics::new(prefix, &self.unrouted.requests, &self.bytes);
        Self { routes: prefixes.iter().map(route).collect(), ..self.clone() }
    }

    /// How many routes there are.
    pub(crate) fn routes(&self) -> usize {
        self.routes.len()
    }

    pub(crate) fn route(&self, index: Option<usize>) -> &RouteMetrics {
        index.and_then(|index| self.routes.get(index)).unwrap_or(&self.unrouted)
    }

    /// Counts one request when its response begins. `took`: the time until then; `None` if nothing was waited for.
    pub(crate) fn answered(
        &self,
        route: Option<usize>,
        outcome: CacheOutcome,
        status: StatusCode,
        took: Option<Duration>,
    ) {
        self.route(route).request(outcome, status);
        match took {
            Some(took) => self.first_byte.observe(outcome, took),
            None => self.first_byte.at_once(outcome),
        }
    }

    /// A request that was refused; `code` is the refusal's stable code.
    pub(crate) fn refused(&self, code: &str) {
        self.refusals.with_label_values(&[code]).inc();
    }

    pub(crate) fn not_stored(&self, reason: &str) {
        self.not_stored.with_label_values(&[reason]).inc();
    }

    pub(crate) fn filled(&self, result: &str) {
        self.fills.with_label_values(&[result]).inc();
    }
}

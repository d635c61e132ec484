//! The server's metrics.

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Registry};

use lyceum_core::telemetry;

/// Why a connection or a request was ended or refused: the limit's name in `[limits]` where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// Too many connections are open; only over QUIC, as TCP connections wait in the kernel's queue.
    Connections,
    /// The client has too many connections.
    ConnectionsPerClient,
    /// The client sends too many requests.
    RequestsPerClient,
    /// The TLS handshake took too long.
    Handshake,
    /// The TLS handshake failed.
    Tls,
    /// The first byte or the rest of a header did not come in time.
    Header,
    /// No request for too long.
    Idle,
    /// A request is in flight, and no byte was read or written for too long.
    Stall,
    /// The client reads too slowly.
    Throughput,
    /// The client sends a request's body too slowly.
    BodyThroughput,
    /// A stream's flow-control window stayed shut.
    Window,
    /// A response was revoked, and its client took nothing by which it could have ended by itself.
    Revoked,
    /// A connection from a load balancer began without a PROXY header.
    ProxyProtocol,
}

impl EndReason {
    const ALL: [Self; 13] = [
        Self::Connections,
        Self::ConnectionsPerClient,
        Self::RequestsPerClient,
        Self::Handshake,
        Self::Tls,
        Self::Header,
        Self::Idle,
        Self::Stall,
        Self::Throughput,
        Self::BodyThroughput,
        Self::Window,
        Self::Revoked,
        Self::ProxyProtocol,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerClient => "connections_per_client",
            Self::RequestsPerClient => "requests_per_client",
            Self::Handshake => "handshake",
            Self::Tls => "tls",
            Self::Header => "header",
            Self::Idle => "idle",
            Self::Stall => "stall",
            Self::Throughput => "throughput",
            Self::BodyThroughput => "body_throughput",
            Self::Window => "window",
            Self::Revoked => "revoked",
            Self::ProxyProtocol => "proxy_protocol",
        }
    }
}

/// Handles of the metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Open connections.
    pub(crate) open: IntGauge,
    /// Connections whose hyper connection was dropped while they are idle.
    pub(crate) resting: IntGauge,
    /// Retry packets of QUIC.
    pub(crate) retries: IntCounter,
    /// When the certificates in force end, by their files.
    pub(crate) certificate_ends: IntGaugeVec,
    ended: Vec<IntCounter>,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let ended = telemetry::counters(
            registry,
            "lyceum_front_ended_total",
            "Connections and requests that a limit ended or refused, by limit.",
            &["limit"],
        );
        Self {
            open: telemetry::gauge(registry, "lyceum_front_connections", "Client connections that are open."),
            resting: telemetry::gauge(
                registry,
                "lyceum_front_connections_resting",
                "Idle connections of HTTP/1.1 and 2 that hold no buffers.",
            ),
            retries: telemetry::counter(
                registry,
                "lyceum_front_quic_retries_total",
                "QUIC clients that were sent a Retry to validate their address.",
            ),
            certificate_ends: telemetry::gauges(
                registry,
                "lyceum_front_certificate_end_timestamp_seconds",
                "When a certificate in force ends, in seconds since the Unix epoch.",
                &["certificate"],
            ),
            ended: EndReason::ALL.map(|reason| ended.with_label_values(&[reason.name()])).into(),
        }
    }

    pub(crate) fn record_end(&self, reason: EndReason) {
        if let Some(counter) = EndReason::ALL.iter().position(|r| *r == reason).and_then(|at| self.ended.get(at)) {
            counter.inc();
        }
    }
}

/// Increments a gauge while it lives.
#[derive(Debug)]
pub(crate) struct GaugeGuard(IntGauge);

impl GaugeGuard {
    pub(crate) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

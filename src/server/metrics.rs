//! What the front counts.

use prometheus::{IntCounter, IntGauge, Registry};

use lyceum_core::telemetry;

/// Why a connection or a request was ended or refused: the limit's name in `[limits]` where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// As many connections are open as may be. Over TCP they wait in the kernel's queue instead.
    Connections,
    /// A client has as many connections as it may.
    ConnectionsPerClient,
    /// A client asks more often than it may.
    RequestsPerClient,
    /// The TLS handshake took too long.
    Handshake,
    /// The TLS handshake failed.
    Tls,
    /// The first byte or the rest of a header did not come in time.
    Header,
    /// No request for long.
    Idle,
    /// A request under way and nothing moves.
    Stall,
    /// The client takes too little.
    Throughput,
    /// A stream's window stays shut.
    Window,
    /// What a response was given for no longer holds, and its client does not take it.
    Revoked,
    /// No PROXY header where one has to be.
    ProxyProtocol,
}

impl Reason {
    const ALL: [Self; 12] = [
        Self::Connections,
        Self::ConnectionsPerClient,
        Self::RequestsPerClient,
        Self::Handshake,
        Self::Tls,
        Self::Header,
        Self::Idle,
        Self::Stall,
        Self::Throughput,
        Self::Window,
        Self::Revoked,
        Self::ProxyProtocol,
    ];

    pub(super) fn name(self) -> &'static str {
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
            Self::Window => "window",
            Self::Revoked => "revoked",
            Self::ProxyProtocol => "proxy_protocol",
        }
    }
}

/// The handles.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) open: IntGauge,
    pub(super) resting: IntGauge,
    pub(super) retries: IntCounter,
    ended: Vec<IntCounter>,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
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
                "Connections of HTTP/1.1 and 2 on which nothing is under way and that hold no buffers.",
            ),
            retries: telemetry::counter(
                registry,
                "lyceum_front_quic_retries_total",
                "QUIC clients that were asked to show that their address can be reached before anything was kept of them.",
            ),
            ended: Reason::ALL.map(|reason| ended.with_label_values(&[reason.name()])).into(),
        }
    }

    pub(super) fn ended(&self, reason: Reason) {
        if let Some(counter) = Reason::ALL.iter().position(|r| *r == reason).and_then(|at| self.ended.get(at)) {
            counter.inc();
        }
    }
}

/// Counts a connection while it lives.
#[derive(Debug)]
pub(super) struct Open(IntGauge);

impl Open {
    pub(super) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

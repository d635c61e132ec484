//! `[limits]`: what a peer may use before a handler is called.

use serde::Deserialize;

use lyceum_core::units::{self, ByteSize, Span};
use lyceum_http::ip_network::Network;

/// `[limits]` of a role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections open at once over all listeners; further ones wait in the kernel's queue, or are refused over QUIC. 1 to
    /// 1,000,000.
    #[serde(deserialize_with = "units::number::<_, 1, 1_000_000>")]
    pub connections: u64,
    /// Connections open at once from one client: an IPv4 address, or a /64 network of IPv6. 1 to 1,000,000.
    #[serde(deserialize_with = "units::number::<_, 1, 1_000_000>")]
    pub connections_per_client: u64,
    /// QUIC handshakes in flight at once, for each listener, with clients whose address is not validated; further clients
    /// are validated by a Retry, which costs a round trip (RFC 9000, section 8.1). At most a tenth of `connections` and half
    /// of `connections_per_client`. 0 to 100,000; 0 sends every client a Retry.
    #[serde(deserialize_with = "units::number::<_, 0, 100_000>")]
    pub unvalidated: u64,
    /// Sustained requests a second from one client; more are answered with 429 `too_many_requests`. 1 to 1,000,000.
    #[serde(deserialize_with = "units::number::<_, 1, 1_000_000>")]
    pub requests_per_client: u64,
    /// Requests that a client may send at once before that rate applies. 1 to 10,000,000.
    #[serde(deserialize_with = "units::number::<_, 1, 10_000_000>")]
    pub requests_burst: u64,
    /// Clients that are counted at once; those without connections and requests are removed first. 100 to 10,000,000.
    #[serde(deserialize_with = "units::number::<_, 100, 10_000_000>")]
    pub clients: u64,
    /// Networks without client limits: load balancers and services of the same installation.
    pub exempt: Vec<Network>,
    /// Time for a TLS handshake. 100ms to 5m.
    #[serde(deserialize_with = "units::span::<_, 100, 300_000>")]
    pub handshake: Span,
    /// Time for a connection's first byte, and from a request's first byte to its last header byte. 100ms to 5m.
    #[serde(deserialize_with = "units::span::<_, 100, 300_000>")]
    pub header: Span,
    /// How long a connection without a request is kept, whatever other bytes arrive. 1s to 1h.
    #[serde(deserialize_with = "units::span::<_, 1_000, 3_600_000>")]
    pub idle: Span,
    /// How long an HTTP/2 connection has no request before its buffers are freed until the next. Longer than a player's
    /// pause between segments. 100ms to 1h.
    #[serde(deserialize_with = "units::span::<_, 100, 3_600_000>")]
    pub rest: Span,
    /// How long a request may be in flight without a byte read or written. Longer than a long poll. 1s to 1h.
    #[serde(deserialize_with = "units::span::<_, 1_000, 3_600_000>")]
    pub stall: Span,
    /// The fewest bytes a second that a client must read of a response, measured over `throughput_time`. 0B to 1MiB; 0B is
    /// no limit.
    #[serde(deserialize_with = "units::size::<_, 0, 1_048_576>")]
    pub throughput: ByteSize,
    /// The fewest bytes a second that a client must send of a request's body while it is waited for, measured over
    /// `throughput_time`. 0B to 1MiB; 0B is no limit.
    #[serde(deserialize_with = "units::size::<_, 0, 1_048_576>")]
    pub body_throughput: ByteSize,
    /// The time over which `throughput` and `body_throughput` are measured. 1s to 10m.
    #[serde(deserialize_with = "units::span::<_, 1_000, 600_000>")]
    pub throughput_time: Span,
    /// How long the client of an HTTP/2 or 3 stream may read nothing of its response. 1s to 1h.
    #[serde(deserialize_with = "units::span::<_, 1_000, 3_600_000>")]
    pub window: Span,
    /// Bytes of a request's header section. 8KiB to 1MiB.
    #[serde(deserialize_with = "units::size::<_, 8_192, 1_048_576>")]
    pub header_bytes: ByteSize,
    /// Header fields of a request. 8 to 1,000.
    #[serde(deserialize_with = "units::number::<_, 8, 1_000>")]
    pub header_fields: u64,
    /// Streams of HTTP/2 or 3 open at once on a connection. 1 to 10,000.
    #[serde(deserialize_with = "units::number::<_, 1, 10_000>")]
    pub streams: u64,
    /// How long a drain waits for requests in flight. 0s to 1h.
    #[serde(deserialize_with = "units::span::<_, 0, 3_600_000>")]
    pub drain_timeout: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_client: 1_000,
            unvalidated: 200,
            requests_per_client: 1_000,
            requests_burst: 5_000,
            clients: 100_000,
            exempt: ["127.0.0.0/8", "::1"].iter().filter_map(|text| text.parse().ok()).collect(),
            handshake: Span::secs(10),
            header: Span::secs(10),
            idle: Span::secs(60),
            rest: Span::secs(10),
            stall: Span::secs(60),
            throughput: ByteSize::kib(1),
            body_throughput: ByteSize::kib(1),
            throughput_time: Span::secs(30),
            window: Span::secs(120),
            header_bytes: ByteSize::kib(32),
            header_fields: 100,
            streams: 128,
            drain_timeout: Span::secs(30),
        }
    }
}

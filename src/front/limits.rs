//! What a peer may cost before a handler is asked.

use serde::Deserialize;

use crate::units::{self, ByteSize, Span};

/// `[limits]` of a role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections open at once over all listeners; further ones wait in the kernel's queue. 1 to 1,000,000.
    #[serde(deserialize_with = "units::number::<_, 1, 1_000_000>")]
    pub connections: u64,
    /// Time for a TLS handshake. 100ms to 5m.
    #[serde(deserialize_with = "units::span::<_, 100, 300_000>")]
    pub handshake: Span,
    /// Time from the connection's first byte awaited to a request's last header byte. 100ms to 5m.
    #[serde(deserialize_with = "units::span::<_, 100, 300_000>")]
    pub header: Span,
    /// How long a connection without a request is kept. 1s to 1h.
    #[serde(deserialize_with = "units::span::<_, 1_000, 3_600_000>")]
    pub idle: Span,
    /// How long a request may stand still, not one byte read or written. Longer than a long poll. 1s to 1h.
    #[serde(deserialize_with = "units::span::<_, 1_000, 3_600_000>")]
    pub stall: Span,
    /// Bytes of a request's header section. 8KiB to 1MiB.
    #[serde(deserialize_with = "units::size::<_, 8_192, 1_048_576>")]
    pub header_bytes: ByteSize,
    /// Header fields of a request. 8 to 1,000.
    #[serde(deserialize_with = "units::number::<_, 8, 1_000>")]
    pub header_fields: u64,
    /// HTTP/2 streams open at once on a connection. 1 to 10,000.
    #[serde(deserialize_with = "units::number::<_, 1, 10_000>")]
    pub streams: u64,
    /// How long a drain waits for what is under way. 0s to 1h.
    #[serde(deserialize_with = "units::span::<_, 0, 3_600_000>")]
    pub drain_timeout: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            handshake: Span::secs(10),
            header: Span::secs(10),
            idle: Span::secs(60),
            stall: Span::secs(60),
            header_bytes: ByteSize::kib(32),
            header_fields: 100,
            streams: 128,
            drain_timeout: Span::secs(30),
        }
    }
}

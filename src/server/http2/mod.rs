//! HTTP/2 (RFC 9113): the connection, and what keeps its streams, writes and idle time cheap.

pub(crate) mod connection;
pub(crate) mod hibernation;
pub(crate) mod inline_executor;
pub(crate) mod peer_state;
pub(crate) mod write_coalescing;

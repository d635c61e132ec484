//! HTTP/3 (RFC 9114) over QUIC (RFC 9000): the same handler on the same port over UDP.

pub(crate) mod admission;
pub(crate) mod body;
pub(crate) mod config;
pub(crate) mod connection;
pub(crate) mod endpoint;
pub(crate) mod request;

//! HTTP/1.1 (RFC 9112): the connection, and response heads that are encoded before hyper sees the response.

pub(crate) mod connection;
pub(crate) mod prepared_head;

//! Sockets, TLS, HTTP/1.1, 2 and 3, limits and drain, the same for every role.
//!
//! A role implements [`Handler`] and never sees a socket. [`Limits`] bound what a peer may use (connections, header
//! bytes, silence, streams) before the handler is called. HTTP semantics belong to the roles.
//!
//! The life of a TCP connection: `listener` accepts it, `connection` reads its PROXY header and checks its client's
//! limits, `handshake` finds out its protocol, and `http1` or `http2` serves it; `http3` does all of this over UDP.
//! `session` hands each request to the handler, and `watchdog` ends a connection that exceeds a limit.
//!
//! Standards: RFC 9112 (HTTP/1.1), RFC 9113 (HTTP/2), RFC 9114 (HTTP/3), RFC 7301 (ALPN), RFC 8446 (TLS 1.3).
#![forbid(unsafe_code)]

mod activity;
mod body;
mod client_limits;
mod connection;
mod context;
mod drain_body;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod handler;
mod handshake;
mod http1;
mod http2;
mod http3;
mod interrupts;
mod io;
mod limits;
mod listener;
mod metrics;
mod pace;
mod peer;
mod revocable;
mod session;
mod tls;
mod watchdog;
mod worker_threads;

pub use body::RequestBody;
pub use drain_body::DrainOnDrop;
pub use error::BoxError;
pub use handler::{Handler, Refused, ResponseFuture};
pub use http1::prepared_head::STATUS_LINE_200;
pub use http3::config::Http3;
pub use limits::Limits;
pub use listener::{BindError, Listen, Server, TlsReload};
pub use peer::{Forwarded, ForwardedField, Peer, ProxyProtocol};
pub use revocable::{Revocable, RevocationCheck};
pub use tls::{Certificates, TlsError, TlsFiles};
pub use worker_threads::{Stuck, WorkerThreads};

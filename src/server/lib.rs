//! Sockets, TLS, HTTP/1.1, 2 and 3, limits and drain, the same for every role.
//!
//! A role is a [`Handler`]; it never sees a socket. What a peer may cost (connections, header bytes, silence,
//! streams) is bounded here by [`Limits`], before a handler is asked. HTTP semantics are the roles' business.
//!
//! Standards: RFC 9112 (HTTP/1.1), RFC 9113 (HTTP/2), RFC 9114 (HTTP/3), RFC 7301 (ALPN), RFC 8446 (TLS 1.3).
#![forbid(unsafe_code)]

mod awaited;
mod beside;
mod body;
mod clients;
mod connection;
mod cork;
mod crew;
mod gathered;
mod handler;
mod http3;
mod inline;
mod ledger;
mod limits;
mod lines;
mod listen;
mod metrics;
mod pass;
mod peer;
mod plain;
mod pulse;
mod socket;
mod tls;
mod unread;
mod watched;

pub use body::RequestBody;
pub use crew::Crew;
pub use handler::{Answer, Handler, Refused};
pub use http3::Http3;
pub use limits::Limits;
pub use lines::BEGINNING;
pub use listen::{BindError, Front, Listen, TlsReload};
pub use pass::{Pass, Permit};
pub use peer::{Forwarded, ForwardedField, Peer, ProxyProtocol};
pub use tls::{Certificates, TlsError, TlsFiles};
pub use unread::Unread;

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

//! From an accepted connection to the protocol it speaks: ALPN after a TLS handshake (RFC 7301), or the HTTP/2 preface on
//! a connection without TLS.

use bytes::{Bytes, BytesMut};
use futures_util::future::TryFutureExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use std::sync::Arc;

use crate::activity::Activity;
use crate::error::BoxError;
use crate::handler::Handler;
use crate::http2::write_coalescing::{CoalescingStream, WriteHold};
use crate::io::instrumented::Instrumented;
use crate::io::plaintext::Plaintext;
use crate::io::tcp_socket::DirectTcpStream;
use crate::metrics::EndReason;
use crate::session::Session;
use crate::{http1, http2};

/// How an HTTP/2 connection begins (RFC 9113, section 3.4); no HTTP/1.1 method starts like it.
const PREFACE_START: &[u8] = b"PRI ";

#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// Counters for a connection that speaks it.
    fn activity(self) -> Arc<Activity> {
        Arc::new(match self {
            Self::Http1 => Activity::default(),
            // Streams that have to wait are tasks.
            Self::Http2 => Activity::with_request_tasks(),
        })
    }
}

/// Shakes hands and serves the connection to its end; gives the limit that ended it, if one did.
pub(crate) async fn serve_tls<H: Handler>(
    session: Session<H>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
) -> Result<Option<EndReason>, BoxError> {
    let hold = WriteHold::default();
    // Boxed, as it is moved several times and every future it passes through would reserve space for it.
    let handshake = acceptor.accept(CoalescingStream::new(DirectTcpStream::from(stream), hold.clone()));
    let handshake = Box::pin(handshake.map_ok(Box::new));
    let stream = tokio::select! {
        done = tokio::time::timeout(session.context.limits.handshake.get(), handshake) => match done {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) => return Ok(Some(EndReason::Tls)),
            Err(_) => return Ok(Some(EndReason::Handshake)),
        },
        () = session.context.shutdown.draining() => return Ok(None),
    };
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let socket = Instrumented::new(stream, Bytes::new(), protocol.activity());
    match protocol {
        Protocol::Http1 => Box::pin(http1::connection::serve(session, socket)).await,
        Protocol::Http2 => Box::pin(http2::connection::serve(session, socket, Some(hold))).await,
    }
}

/// The same without TLS.
pub(crate) async fn serve_plaintext<H: Handler>(
    session: Session<H>,
    mut stream: TcpStream,
) -> Result<Option<EndReason>, BoxError> {
    let mut first = BytesMut::with_capacity(PREFACE_START.len());
    let detected = async {
        loop {
            if stream.read_buf(&mut first).await? == 0 {
                return Ok::<_, BoxError>(None);
            }
            if first.starts_with(PREFACE_START) {
                return Ok(Some(Protocol::Http2));
            }
            if !PREFACE_START.starts_with(&first) {
                return Ok(Some(Protocol::Http1));
            }
        }
    };
    let protocol = tokio::select! {
        detected = tokio::time::timeout(session.context.limits.header.get(), detected) => match detected {
            Ok(detected) => detected?,
            Err(_) => return Ok(Some(EndReason::Header)),
        },
        () = session.context.shutdown.draining() => return Ok(None),
    };
    let Some(protocol) = protocol else { return Ok(None) };
    let socket = Instrumented::new(Plaintext(stream.into()), first.freeze(), protocol.activity());
    match protocol {
        Protocol::Http1 => Box::pin(http1::connection::serve(session, socket)).await,
        Protocol::Http2 => Box::pin(http2::connection::serve(session, socket, None)).await,
    }
}

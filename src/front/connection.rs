//! One connection: TLS handshake, protocol, requests, end.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::pulse::{Busy, Pulse, Watched};
use super::{BoxError, Limits, Shutdown};

/// Answers requests: a role.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The body of its responses.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;

    /// Answers one request. Dropped midway when the client goes.
    fn call(&self, peer: Peer, request: Request<Incoming>) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The socket's other end.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

pub(super) struct Connection {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) limits: Arc<Limits>,
    pub(super) shutdown: Shutdown,
}

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4); no HTTP/1.1 method starts like it.
const PREFACE_START: &[u8] = b"PRI ";

#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

impl Connection {
    pub(super) async fn serve<H: Handler>(self, stream: TcpStream, handler: H) {
        let peer = Peer { address: self.address, tls: self.tls.is_some() };
        let pulse = Arc::new(Pulse::default());
        let outcome = match self.tls.clone() {
            Some(acceptor) => self.serve_tls(acceptor, stream, handler, peer, pulse).await,
            None => self.serve_plain(stream, handler, peer, pulse).await,
        };
        if let Err(cause) = outcome {
            tracing::debug!(peer = %peer.address, cause, "connection ended");
        }
    }

    async fn serve_tls<H: Handler>(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        handler: H,
        peer: Peer,
        pulse: Arc<Pulse>,
    ) -> Result<(), BoxError> {
        let handshake = acceptor.accept(stream);
        let stream = tokio::select! {
            done = tokio::time::timeout(self.limits.handshake.get(), handshake) => done??,
            () = self.shutdown.draining() => return Ok(()),
        };
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        let socket = Watched::new(stream, Bytes::new(), Arc::clone(&pulse));
        self.requests(protocol, socket, handler, peer, pulse).await
    }

    async fn serve_plain<H: Handler>(
        &self,
        mut stream: TcpStream,
        handler: H,
        peer: Peer,
        pulse: Arc<Pulse>,
    ) -> Result<(), BoxError> {
        let mut first = BytesMut::with_capacity(PREFACE_START.len());
        let told = async {
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
            told = tokio::time::timeout(self.limits.header.get(), told) => told??,
            () = self.shutdown.draining() => return Ok(()),
        };
        let Some(protocol) = protocol else { return Ok(()) };
        let socket = Watched::new(stream, first.freeze(), Arc::clone(&pulse));
        self.requests(protocol, socket, handler, peer, pulse).await
    }

    async fn requests<H: Handler, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        protocol: Protocol,
        socket: S,
        handler: H,
        peer: Peer,
        pulse: Arc<Pulse>,
    ) -> Result<(), BoxError> {
        let watched = Arc::clone(&pulse);
        let service = service_fn(move |request: Request<Incoming>| {
            let (handler, busy) = (handler.clone(), pulse.busy());
            async move {
                let response = handler.call(peer, request).await;
                Ok::<_, Infallible>(response.map(|body| Held { body, _busy: busy }))
            }
        });
        let io = TokioIo::new(socket);
        let limits = &self.limits;
        let fields = usize::try_from(limits.header_fields).unwrap_or(usize::MAX);
        match protocol {
            Protocol::Http1 => {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(limits.header.get())
                    .max_headers(fields)
                    .max_buf_size(limits.header_bytes.as_usize())
                    .half_close(false)
                    .serve_connection(io, service);
                let mut connection = pin!(connection);
                tokio::select! {
                    done = connection.as_mut() => return done.map_err(Into::into),
                    () = watched.stopped(limits.idle.get(), limits.stall.get()) => return Ok(()),
                    () = self.shutdown.draining() => connection.as_mut().graceful_shutdown(),
                }
                connection.await.map_err(Into::into)
            }
            Protocol::Http2 => {
                let connection = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(u32::try_from(limits.streams).unwrap_or(u32::MAX))
                    .max_header_list_size(u32::try_from(limits.header_bytes.0).unwrap_or(u32::MAX))
                    .serve_connection(io, service);
                let mut connection = pin!(connection);
                tokio::select! {
                    done = connection.as_mut() => return done.map_err(Into::into),
                    () = watched.stopped(limits.idle.get(), limits.stall.get()) => return Ok(()),
                    () = self.shutdown.draining() => connection.as_mut().graceful_shutdown(),
                }
                connection.await.map_err(Into::into)
            }
        }
    }
}

/// A response body that keeps its connection busy until it has been sent or dropped.
struct Held<B> {
    body: B,
    _busy: Busy,
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! One connection: TLS handshake, protocol, requests, end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::TryFutureExt as _;
use http::header::{self, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::awaited::Awaited;
use super::beside::{Beside, Told};
use super::body::Held;
use super::clients::{Client, Clients};
use super::cork::{Cork, Corked};
use super::gathered::{Gathered, Polled};
use super::handler::{Answer, Handler, Refused};
use super::inline::Inline;
use super::metrics::{Metrics, Open, Reason};
use super::peer::{self, Forwarded, Peer, ProxyProtocol};
use super::plain::Plain;
use super::pulse::{Busy, Pulse};
use super::socket::Socket;
use super::watched::Watched;
use super::{BoxError, Limits, Pass, RequestBody, Unread};
use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::monotonic;

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: Arc<Limits>,
    pub(super) clients: Arc<Clients>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: Shutdown,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    pub(super) forwarded: Option<Forwarded>,
    /// Where else the same is served, for clients over TCP.
    pub(super) alt_svc: Option<HeaderValue>,
}

impl Shared {
    /// Asks `handler` for an answer, unless a limit refuses the request.
    pub(super) fn answer<H: Handler>(
        &self,
        handler: &H,
        peer: Peer,
        client: Option<&Arc<Client>>,
        request: Request<RequestBody>,
    ) -> Answer<H::Body> {
        let began = monotonic();
        let found;
        let (peer, client) = match &self.forwarded {
            Some(forwarded) if forwarded.trusts(peer) => {
                let named = forwarded.client(peer, request.headers());
                found = self.clients.of(named.address.ip());
                (named, found.as_ref())
            }
            _ => (peer, client),
        };
        if let Some(wait) = client.and_then(|client| self.clients.ask(client, began).err()) {
            self.metrics.ended(Reason::RequestsPerClient);
            let (head, body) = request.into_parts();
            drop(Unread::new(body));
            let retry_after = wait.max(Duration::from_secs(1)).as_secs();
            return Answer::Now(handler.refuse(&head, Refused::TooManyRequests { retry_after }));
        }
        handler.call(peer, request, began)
    }
}

pub(super) struct Connection {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) shared: Arc<Shared>,
}

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4); no HTTP/1.1 method starts like it.
const PREFACE_START: &[u8] = b"PRI ";

#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// What watches a connection that speaks it.
    fn pulse(self) -> Arc<Pulse> {
        Arc::new(match self {
            Self::Http1 => Pulse::default(),
            // Streams that have to wait are tasks.
            Self::Http2 => Pulse::of_tasks(),
        })
    }
}

/// A connection under way.
struct Under<H> {
    handler: H,
    peer: Peer,
    client: Option<Arc<Client>>,
    shared: Arc<Shared>,
}

impl Connection {
    pub(super) async fn serve<H: Handler>(mut self, mut stream: TcpStream, handler: H) {
        let shared = Arc::clone(&self.shared);
        if shared.proxy_protocol.as_ref().is_some_and(|proxy| proxy.speaks(self.address)) {
            let read = tokio::select! {
                read = peer::proxied(&mut stream, shared.limits.header.get()) => read,
                () = shared.shutdown.draining() => return,
            };
            match read {
                Ok(client) => self.address = client.unwrap_or(self.address),
                Err(cause) => {
                    shared.metrics.ended(Reason::ProxyProtocol);
                    tracing::debug!(peer = %self.address, %cause, "connection ended");
                    return;
                }
            }
        }
        let peer = Peer { address: self.address, tls: self.tls.is_some() };
        // A proxy speaks for many clients: they are counted by request.
        let speaks_for_others = shared.forwarded.as_ref().is_some_and(|forwarded| forwarded.trusts(peer));
        let place = if speaks_for_others { None } else { Some(shared.clients.enter(peer.address.ip())) };
        let place = match place.transpose() {
            Ok(place) => place,
            Err(_) => return shared.metrics.ended(Reason::ConnectionsPerClient),
        };
        let client = place.as_ref().and_then(|place| place.client().cloned());
        let under = Under { handler, peer, client, shared: Arc::clone(&shared) };
        // Boxed, here and below: what an idle connection holds is then what its own protocol needs, and no handshake's state.
        let outcome = match self.tls {
            Some(acceptor) => Box::pin(under.serve_tls(acceptor, stream)).await,
            None => Box::pin(under.serve_plain(stream)).await,
        };
        drop(place);
        match outcome {
            Ok(None) => {}
            Ok(Some(reason)) => {
                shared.metrics.ended(reason);
                tracing::debug!(peer = %peer.address, reason = reason.name(), "connection ended");
            }
            Err(cause) => tracing::debug!(peer = %peer.address, cause, "connection ended"),
        }
    }
}

impl<H: Handler> Under<H> {
    async fn serve_tls(self, acceptor: TlsAcceptor, stream: TcpStream) -> Result<Option<Reason>, BoxError> {
        let cork = Cork::default();
        // Boxed, as it is moved from one place to the next and each place would hold room for it.
        let handshake = acceptor.accept(Corked::new(Socket::from(stream), cork.clone())).map_ok(Box::new);
        let handshake = Box::pin(handshake);
        let stream = tokio::select! {
            done = tokio::time::timeout(self.shared.limits.handshake.get(), handshake) => match done {
                Ok(Ok(stream)) => stream,
                Ok(Err(_)) => return Ok(Some(Reason::Tls)),
                Err(_) => return Ok(Some(Reason::Handshake)),
            },
            () = self.shared.shutdown.draining() => return Ok(None),
        };
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        let socket = Watched::new(stream, Bytes::new(), protocol.pulse());
        match protocol {
            Protocol::Http1 => Box::pin(self.http1(socket)).await,
            Protocol::Http2 => Box::pin(self.http2(socket, Some(cork))).await,
        }
    }

    async fn serve_plain(self, mut stream: TcpStream) -> Result<Option<Reason>, BoxError> {
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
            told = tokio::time::timeout(self.shared.limits.header.get(), told) => match told {
                Ok(told) => told?,
                Err(_) => return Ok(Some(Reason::Header)),
            },
            () = self.shared.shutdown.draining() => return Ok(None),
        };
        let Some(protocol) = protocol else { return Ok(None) };
        let socket = Watched::new(Plain(stream.into()), first.freeze(), protocol.pulse());
        match protocol {
            Protocol::Http1 => Box::pin(self.http1(socket)).await,
            Protocol::Http2 => Box::pin(self.http2(socket, None)).await,
        }
    }

    /// Answers one request.
    fn answer(&self, request: Request<Incoming>, pulse: &Arc<Pulse>) -> Answering<H::Body> {
        let busy = pulse.busy();
        let request = request.map(RequestBody::from);
        let answer = self.shared.answer(&self.handler, self.peer, self.client.as_ref(), request);
        Answering { answer, busy: Some(busy), alt_svc: self.shared.alt_svc.clone() }
    }

    /// While nothing is under way there is no connection of hyper's either, whose buffers are most of what an idle one
    /// would hold: its socket is waited for alone.
    async fn http1<S>(self, mut socket: Watched<S>) -> Result<Option<Reason>, BoxError>
    where
        S: AsyncRead + AsyncWrite + Awaited + Unpin + Send + 'static,
    {
        let (pulse, shared) = (socket.pulse(), Arc::clone(&self.shared));
        let limits = &*shared.limits;
        let mut builder = http1::Builder::new();
        builder
            // The pulse watches the time that headers take.
            .header_read_timeout(None)
            .max_headers(usize::try_from(limits.header_fields).unwrap_or(usize::MAX))
            .max_header_size(limits.header_bytes.as_usize())
            .max_buf_size(limits.header_bytes.as_usize().max(H::BODY_READ))
            .half_close(false);
        let counted = Arc::clone(&pulse);
        let mut service = service_fn(move |request| self.answer(request, &counted));
        let mut beside = Beside::new(&pulse, limits, &shared.shutdown, false);
        loop {
            let mut connection = builder.serve_connection(TokioIo::new(socket), service);
            loop {
                let told = tokio::select! {
                    biased;
                    done = &mut connection => return done.map(|()| None).map_err(Into::into),
                    told = beside.next() => told,
                };
                match told {
                    Told::Overstayed(reason) => return Ok(Some(reason)),
                    Told::Drain => {
                        Pin::new(&mut connection).graceful_shutdown();
                        return connection.await.map(|()| None).map_err(Into::into);
                    }
                    Told::Rest => {
                        beside.await_rest();
                        if pulse.is_at_rest() {
                            break;
                        }
                    }
                }
            }
            let parts = connection.into_parts();
            (socket, service) = (parts.io.into_inner(), parts.service);
            socket.unread(parts.read_buf);
            let resting = Open::new(&shared.metrics.resting);
            loop {
                let told = tokio::select! {
                    biased;
                    readable = poll_fn(|cx| socket.poll_readable(cx)) => break readable?,
                    told = beside.next() => told,
                };
                match told {
                    Told::Overstayed(reason) => return Ok(Some(reason)),
                    Told::Drain => {
                        let _ = socket.shutdown().await;
                        return Ok(None);
                    }
                    Told::Rest => beside.await_rest(),
                }
            }
            drop(resting);
        }
    }

    /// `cork` is below the socket's TLS, where it has that. As with HTTP/1.1, an idle connection is no connection of
    /// hyper's; the one before it is dropped, and the next is told what it has to know.
    async fn http2<S>(self, socket: Watched<S>, cork: Option<Cork>) -> Result<Option<Reason>, BoxError>
    where
        S: AsyncRead + AsyncWrite + Awaited + Unpin + Send + 'static,
    {
        let limits = &*self.shared.limits;
        let pulse = socket.pulse();
        let socket = Gathered::new(socket, cork);
        let mut builder = http2::Builder::new(Inline);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(u32::try_from(limits.streams).unwrap_or(u32::MAX))
            .max_header_list_size(u32::try_from(limits.header_bytes.0).unwrap_or(u32::MAX));
        let connect = || {
            let service = service_fn(|request| self.answer(request, &pulse));
            Box::pin(builder.serve_connection(TokioIo::new(socket.clone()), service))
        };
        let mut connection = connect();
        let mut beside = Beside::new(&pulse, limits, &self.shared.shutdown, true);
        // What had been asked for when, and since when it was no more.
        let mut quiet = (0, monotonic());
        loop {
            let told = tokio::select! {
                biased;
                polled = poll_fn(|cx| socket.poll(connection.as_mut(), cx)) => match polled? {
                    Polled::Done(done) => return done.map(|()| None).map_err(Into::into),
                    Polled::Rests => None,
                },
                told = beside.next() => Some(told),
            };
            match told {
                Some(Told::Overstayed(reason)) => return Ok(Some(reason)),
                Some(Told::Drain) => connection.as_mut().graceful_shutdown(),
                Some(Told::Rest) => {
                    beside.await_rest();
                    let requests = socket.requests();
                    if requests != quiet.0 {
                        quiet = (requests, monotonic());
                    } else if quiet.1.elapsed() >= limits.rest.get() {
                        poll_fn(|cx| Poll::Ready(socket.poll_seek_rest(cx))).await?;
                    }
                }
                None => {
                    drop(connection);
                    match self.rested(&socket, &mut beside).await? {
                        Some(Told::Overstayed(reason)) => return Ok(Some(reason)),
                        Some(_) => {
                            poll_fn(|cx| Poll::Ready(socket.poll_end(cx))).await?;
                            return Ok(None);
                        }
                        None => {}
                    }
                    connection = connect();
                    poll_fn(|cx| Poll::Ready(socket.poll_take_up(connection.as_mut(), cx))).await?;
                }
            }
        }
    }

    /// Waits until a connection that rests is spoken to, or what ends it.
    async fn rested<S: Awaited>(&self, socket: &S, beside: &mut Beside<'_>) -> std::io::Result<Option<Told>> {
        let _resting = Open::new(&self.shared.metrics.resting);
        loop {
            tokio::select! {
                biased;
                readable = poll_fn(|cx| socket.poll_readable(cx)) => return readable.map(|()| None),
                told = beside.next() => match told {
                    Told::Rest => beside.await_rest(),
                    told => return Ok(Some(told)),
                },
            }
        }
    }
}

/// A request under way.
struct Answering<B> {
    answer: Answer<B>,
    /// Taken with the answer.
    busy: Option<Busy>,
    alt_svc: Option<HeaderValue>,
}

impl<B: Unpin> Future for Answering<B> {
    type Output = Result<Response<Held<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let (Answer::Lined(_, lines), Some(busy)) = (&mut this.answer, &this.busy) {
            busy.line_up(lines);
        }
        let mut response = ready!(Pin::new(&mut this.answer).poll(cx));
        if let Some(alt_svc) = this.alt_svc.take() {
            response.headers_mut().insert(header::ALT_SVC, alt_svc);
        }
        let mut busy = this.busy.take();
        if let (Some(busy), Some(pass)) = (&mut busy, response.extensions_mut().remove::<Pass>()) {
            busy.under(pass);
        }
        Poll::Ready(Ok(response.map(|body| Held::new(body, busy))))
    }
}

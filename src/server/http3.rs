//! HTTP/3 (RFC 9114) over QUIC (RFC 9000): the same handler on the same port over UDP.
//!
//! One endpoint a listener. What hyper bounds for the other versions is bounded here: handshakes, headers, streams,
//! silence, and clients that do not take what they asked for. What comes from an address that has not shown that it can be
//! reached may be forged: of such handshakes only so many are under way at once, and whoever comes then is asked by a
//! Retry, for which nothing is kept (RFC 9000, section 8.1).

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::hkdf;
use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::server::RequestStream;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use quinn::crypto::HandshakeTokenKey;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, Incoming, ServerConfig, TransportConfig, VarInt};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::clients::Client;
use super::connection::Shared;
use super::handler::Handler;
use super::metrics::{Open, Reason};
use super::peer::Peer;
use super::pulse::{Busy, Pulse};
use super::tls::Tls;
use super::{BoxError, Limits, Pass, RequestBody};
use lyceum_core::time::Clock;
use lyceum_http::fields;
use lyceum_http::problem;

/// What of a body is handed to QUIC at once: what a client has to take within `window`.
const PIECE: usize = 16 << 10;
/// What may be on its way to a client, in bytes.
const SEND_WINDOW: u64 = 2 << 20;
/// What a client may send ahead, in bytes: of a stream, of a connection.
const RECEIVE_WINDOWS: (u32, u32) = (256 << 10, 1 << 20);
/// A client's streams of its own: control, and the two of QPACK; and some to grease.
const UNIDIRECTIONAL: u32 = 8;
/// Handshakes that may wait to be taken up, which takes no longer than a look at the limits; more are not answered.
const WAITING: usize = 1024;
/// What they may bring along meanwhile, in bytes: each, and all.
const WAITING_BYTES: (u64, u64) = (16 << 10, 4 << 20);
/// Of the connections that may be open, how many are for addresses that have not shown themselves: one in so many.
const UNVALIDATED_SHARE: u64 = 10;

/// `http3` of a listener: `true`, `false`, or `{ advertise_port }`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http3 {
    /// Not spoken.
    #[default]
    Off,
    /// Spoken on the listener's own port.
    On {
        /// The port that `Alt-Svc` names, where clients come by another than the listener's.
        advertise_port: Option<u16>,
    },
}

impl<'de> Deserialize<'de> for Http3 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            advertise_port: u16,
        }
        struct SwitchOrTable;
        impl<'de> Visitor<'de> for SwitchOrTable {
            type Value = Http3;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or { advertise_port = 443 }")
            }
            fn visit_bool<E>(self, on: bool) -> Result<Http3, E> {
                Ok(if on { Http3::On { advertise_port: None } } else { Http3::Off })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Http3, A::Error> {
                let Table { advertise_port } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Http3::On { advertise_port: Some(advertise_port) })
            }
        }
        from.deserialize_any(SwitchOrTable)
    }
}

/// A listener's QUIC side, bound and not yet serving.
#[derive(Debug)]
pub(super) struct Quic {
    socket: UdpSocket,
    tls: Tls,
}

impl Quic {
    /// Binds the UDP port of `address`.
    pub(super) fn bind(address: SocketAddr, tls: &Tls) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        Ok(Self { socket, tls: tls.clone() })
    }

    /// Serves until the drain has begun; connections end by themselves.
    pub(super) async fn run<H: Handler>(self, handler: H, shared: Arc<Shared>, places: Arc<Semaphore>) {
        let made = token_key().and_then(|key| Ok((self.endpoint(&shared.limits, &key)?, key)));
        let (endpoint, key) = match made {
            Ok(made) => made,
            Err(cause) => return tracing::error!(cause, "HTTP/3 is not served"),
        };
        let door = Door { unvalidated: unvalidated(&shared.limits), places, shared: Arc::clone(&shared) };
        let mut changed = self.tls.changes();
        loop {
            tokio::select! {
                biased;
                () = shared.shutdown.draining() => break,
                Ok(()) = changed.changed() => match server_config(&self.tls, &shared.limits, &key) {
                    Ok(config) => endpoint.set_server_config(Some(config)),
                    Err(cause) => tracing::error!(cause, "HTTP/3 keeps its certificate"),
                },
                incoming = endpoint.accept() => {
                    let Some(incoming) = incoming else { break };
                    door.take(incoming, &handler);
                }
            }
        }
        endpoint.set_server_config(None);
        // Connections outlive the acceptor; what they still have to say goes out through the endpoint.
        let guard = shared.shutdown.guard();
        tokio::spawn(async move {
            endpoint.wait_idle().await;
            drop(guard);
        });
    }

    fn endpoint(&self, limits: &Limits, key: &TokenKey) -> Result<Endpoint, BoxError> {
        let config = server_config(&self.tls, limits, key)?;
        let socket = self.socket.try_clone()?;
        Ok(Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(quinn::TokioRuntime))?)
    }
}

/// What Retry tokens are sealed with. It outlives certificates: who was asked under the former one is taken under the new.
type TokenKey = Arc<dyn HandshakeTokenKey>;

fn token_key() -> Result<TokenKey, BoxError> {
    let mut secret = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut secret)?;
    Ok(Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secret)))
}

/// Places for handshakes of addresses that have not shown themselves. What may be forged takes no place from others: not
/// the most of what there is in all, and less than one client may have, whose address it may bear.
fn unvalidated(limits: &Limits) -> Arc<Semaphore> {
    let share = (limits.connections / UNVALIDATED_SHARE).min(limits.connections_per_client / 2);
    Arc::new(Semaphore::new(usize::try_from(limits.unvalidated.min(share)).unwrap_or(0)))
}

fn server_config(tls: &Tls, limits: &Limits, key: &TokenKey) -> Result<ServerConfig, BoxError> {
    let mut crypto = rustls::ServerConfig::clone(&tls.config());
    crypto.alpn_protocols = vec![b"h3".to_vec()];
    // Data that a thief can send again is not taken.
    crypto.max_early_data_size = 0;
    let mut config = ServerConfig::new(Arc::new(QuicServerConfig::try_from(crypto)?), Arc::clone(key));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(limits.idle.get().max(limits.stall.get()).try_into()?))
        .max_concurrent_bidi_streams(VarInt::from_u64(limits.streams)?)
        .max_concurrent_uni_streams(VarInt::from_u32(UNIDIRECTIONAL))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOWS.0))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOWS.1))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None);
    config
        .transport_config(Arc::new(transport))
        .max_incoming(WAITING)
        .incoming_buffer_size(WAITING_BYTES.0)
        .incoming_buffer_size_total(WAITING_BYTES.1);
    Ok(config)
}

/// Who comes in.
struct Door {
    unvalidated: Arc<Semaphore>,
    places: Arc<Semaphore>,
    shared: Arc<Shared>,
}

impl Door {
    /// Takes a connection up, or says why not before it costs anything.
    fn take<H: Handler>(&self, incoming: Incoming, handler: &H) {
        let address = incoming.remote_address();
        let forged = match incoming.remote_address_validated() {
            true => None,
            false => match Arc::clone(&self.unvalidated).try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => {
                    self.shared.metrics.retries.inc();
                    // Whoever may not be asked once more has been validated.
                    let _ = incoming.retry();
                    return;
                }
            },
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.shared.metrics.ended(Reason::Connections);
            return incoming.refuse();
        };
        let Ok(held) = self.shared.clients.enter(address.ip()) else {
            self.shared.metrics.ended(Reason::ConnectionsPerClient);
            return incoming.refuse();
        };
        let (handler, shared) = (handler.clone(), Arc::clone(&self.shared));
        let (guard, open) = (shared.shutdown.guard(), Open::new(&shared.metrics.open));
        tokio::spawn(async move {
            let client = held.client().cloned();
            let ended = async {
                let connection = match shake_hands(incoming, &shared.limits).await? {
                    Ok(connection) => connection,
                    Err(reason) => return Ok(Some(reason)),
                };
                drop(forged);
                serve(connection, handler, client, &shared).await
            };
            match ended.await {
                Ok(None) => {}
                Ok(Some(reason)) => {
                    shared.metrics.ended(reason);
                    tracing::debug!(peer = %address, reason = reason.name(), "connection ended");
                }
                Err::<_, BoxError>(cause) => tracing::debug!(peer = %address, cause, "connection ended"),
            }
            drop((held, place, guard, open));
        });
    }
}

/// A finished handshake shows that the client's address can be reached.
async fn shake_hands(incoming: Incoming, limits: &Limits) -> Result<Result<quinn::Connection, Reason>, BoxError> {
    Ok(match tokio::time::timeout(limits.handshake.get(), incoming.accept()?).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(_)) => Err(Reason::Tls),
        Err(_) => Err(Reason::Handshake),
    })
}

/// How long a connection that has nothing left to do stays open for what is on its way.
const LINGER: Duration = Duration::from_secs(2);

type Requests = h3::server::Connection<h3_quinn::Connection, Bytes>;

async fn serve<H: Handler>(
    connection: quinn::Connection,
    handler: H,
    client: Option<Arc<Client>>,
    shared: &Arc<Shared>,
) -> Result<Option<Reason>, BoxError> {
    let limits = &shared.limits;
    let mut builder = h3::server::builder();
    builder.max_field_section_size(limits.header_bytes.0).send_grease(false);
    let building = builder.build(h3_quinn::Connection::new(connection.clone()));
    let mut requests: Requests = tokio::time::timeout(limits.header.get(), building).await??;
    let pulse = Arc::new(Pulse::of_tasks());
    let mut under_way = JoinSet::new();
    let mut draining = false;
    let mut overstayed = pin!(pulse.overstayed(limits, true));
    let ended = loop {
        tokio::select! {
            accepted = requests.accept() => match accepted {
                Ok(Some(resolver)) => {
                    let asking = Asking {
                        handler: handler.clone(),
                        client: client.clone(),
                        busy: pulse.busy(),
                        pulse: Arc::clone(&pulse),
                        shared: Arc::clone(shared),
                        connection: connection.clone(),
                    };
                    under_way.spawn(asking.answer(resolver));
                }
                Ok(None) => break None,
                Err(cause) if cause.is_h3_no_error() => break None,
                Err(cause) => return Err(cause.into()),
            },
            Some(_) = under_way.join_next() => {}
            reason = overstayed.as_mut() => break Some(reason),
            () = shared.shutdown.draining(), if !draining => {
                draining = true;
                requests.shutdown(0).await?;
            }
        }
        if draining && under_way.is_empty() {
            break None;
        }
    };
    while ended.is_none() && under_way.join_next().await.is_some() {}
    if ended.is_none() {
        // A close throws away what was sent and not acknowledged yet (RFC 9000, section 10.2): the client, who knows that
        // no more is taken, is given time to end the connection itself.
        let _ = tokio::time::timeout(LINGER, connection.closed()).await;
    }
    let code = if ended.is_some() { Code::H3_EXCESSIVE_LOAD } else { Code::H3_NO_ERROR };
    connection.close(VarInt::from_u64(code.value()).unwrap_or(VarInt::from_u32(0)), b"");
    Ok(ended)
}

/// One request on its stream.
struct Asking<H> {
    handler: H,
    client: Option<Arc<Client>>,
    busy: Busy,
    pulse: Arc<Pulse>,
    shared: Arc<Shared>,
    connection: quinn::Connection,
}

type Resolver = h3::server::RequestResolver<h3_quinn::Connection, Bytes>;
type Sender = RequestStream<h3_quinn::SendStream<Bytes>, Bytes>;
type Receiver = RequestStream<h3_quinn::RecvStream, Bytes>;

impl<H: Handler> Asking<H> {
    async fn answer(mut self, resolver: Resolver) {
        if let Err(cause) = self.try_answer(resolver).await {
            tracing::debug!(cause, "a request over HTTP/3 ended");
        }
    }

    async fn try_answer(&mut self, resolver: Resolver) -> Result<(), BoxError> {
        let patience = self.shared.limits.header.get();
        let (request, stream) = match tokio::time::timeout(patience, resolver.resolve_request()).await {
            Ok(resolved) => resolved?,
            Err(late) => {
                self.shared.metrics.ended(Reason::Header);
                return Err(late.into());
            }
        };
        let (mut send, receive) = stream.split();
        if is_malformed(request.headers()) {
            send.stop_stream(Code::H3_MESSAGE_ERROR);
            return Ok(());
        }
        if request.headers().len() as u64 > self.shared.limits.header_fields {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            let refusal = problem::response(status, "too_many_fields", "The request has too many header fields.");
            return self.send(&mut send, refusal.map(http_body_util::Full::<Bytes>::new)).await;
        }
        let is_head = request.method() == http::Method::HEAD;
        let body = QuicBody::begin(receive, request.headers(), Arc::clone(&self.pulse)).await?;
        let request = request.map(|()| RequestBody::from(body));
        // A client may have moved since it connected (RFC 9000, section 9).
        let peer = Peer { address: self.connection.remote_address(), tls: true };
        let response = self.shared.answer(&self.handler, peer, self.client.as_ref(), request).await;
        if is_head {
            let (head, _) = response.into_parts();
            return self.send(&mut send, Response::from_parts(head, http_body_util::Empty::new())).await;
        }
        self.send(&mut send, response).await
    }

    async fn send<B>(&mut self, send: &mut Sender, response: Response<B>) -> Result<(), BoxError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        let (mut head, mut body) = response.into_parts();
        fields::strip_hop_by_hop(&mut head.headers);
        date(&mut head.headers);
        if let Some(pass) = head.extensions.remove::<Pass>() {
            self.busy.under(pass);
        }
        send.send_response(Response::from_parts(head, ())).await?;
        while let Some(frame) = body.frame().await.map(|frame| frame.map_err(Into::<BoxError>::into)) {
            let frame = match frame {
                Ok(frame) => frame,
                Err(cause) => {
                    // Broken off: never to be taken for its end.
                    send.stop_stream(Code::H3_INTERNAL_ERROR);
                    return Err(cause);
                }
            };
            let Ok(mut data) = frame.into_data() else { continue };
            while !data.is_empty() {
                let piece = data.split_to(PIECE.min(data.len()));
                let length = piece.len();
                self.busy.handed(length);
                let sent = tokio::time::timeout(self.shared.limits.window.get(), send.send_data(piece)).await;
                self.busy.taken();
                match sent {
                    Ok(sent) => sent?,
                    Err(late) => {
                        self.shared.metrics.ended(Reason::Window);
                        send.stop_stream(Code::H3_REQUEST_CANCELLED);
                        return Err(late.into());
                    }
                }
                self.pulse.wrote(length);
            }
        }
        send.finish().await?;
        Ok(())
    }
}

/// Whoever has a clock says when an answer was made (RFC 9110, section 6.6.1), as hyper does over the other versions.
fn date(headers: &mut HeaderMap) {
    if !headers.contains_key(header::DATE)
        && let Ok(now) = HeaderValue::try_from(fields::format_date(Clock::system().system_time()))
    {
        headers.insert(header::DATE, now);
    }
}

/// RFC 9114, section 4.2: fields of a connection have no place in HTTP/3.
fn is_malformed(headers: &HeaderMap) -> bool {
    let of_a_connection = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
    of_a_connection.iter().any(|name| headers.contains_key(name))
        || headers.contains_key("keep-alive")
        || headers.contains_key("proxy-connection")
        || headers.get(header::TE).is_some_and(|te| te != "trailers")
}

/// The body of a request as its stream brings it, held to the length that was announced.
pub(super) struct QuicBody {
    receive: Option<Receiver>,
    first: Option<Bytes>,
    left: Option<u64>,
    pulse: Arc<Pulse>,
}

impl fmt::Debug for QuicBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicBody").field("left", &self.left).finish_non_exhaustive()
    }
}

impl QuicBody {
    /// Looks once whether there is a body at all: most requests end with their header.
    async fn begin(receive: Receiver, headers: &HeaderMap, pulse: Arc<Pulse>) -> Result<Self, BoxError> {
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let left = match (lengths.next(), lengths.next()) {
            (None, _) => None,
            (Some(one), None) => Some(one.to_str()?.parse::<u64>()?),
            _ => return Err("two lengths".into()),
        };
        let mut body = Self { receive: Some(receive), first: None, left, pulse };
        let looked = std::future::poll_fn(|cx| Poll::Ready(body.poll_data(cx))).await;
        match looked {
            Poll::Ready(Some(Ok(data))) => body.first = Some(data),
            Poll::Ready(Some(Err(cause))) => return Err(cause),
            Poll::Ready(None) | Poll::Pending => {}
        }
        Ok(body)
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        let Some(receive) = &mut self.receive else { return Poll::Ready(None) };
        let data = match receive.poll_recv_data(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(data)) => data.map(|mut data| data.copy_to_bytes(data.remaining())),
            Poll::Ready(Err(cause)) => {
                self.receive = None;
                return Poll::Ready(Some(Err(cause.into())));
            }
        };
        let Some(data) = data else {
            self.receive = None;
            let short = self.left.is_some_and(|left| left > 0);
            return Poll::Ready(short.then(|| Err("the body is shorter than its length".into())));
        };
        self.pulse.heard(data.len());
        if let Some(left) = &mut self.left {
            let Some(rest) = left.checked_sub(data.len() as u64) else {
                self.receive = None;
                return Poll::Ready(Some(Err("the body is longer than its length".into())));
            };
            *left = rest;
        }
        Poll::Ready(Some(Ok(data)))
    }
}

impl Body for QuicBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.poll_data(cx).map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.receive.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, |first| first.len() as u64);
        match (&self.receive, self.left) {
            (None, _) => SizeHint::with_exact(first),
            (Some(_), Some(left)) => SizeHint::with_exact(first + left),
            (Some(_), None) => SizeHint::default(),
        }
    }
}

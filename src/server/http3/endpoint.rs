//! A listener's QUIC endpoint (RFC 9000): its UDP socket, its transport limits, and its TLS configuration.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use aws_lc_rs::hkdf;
use quinn::crypto::HandshakeTokenKey;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, ServerConfig, TransportConfig, VarInt};
use tokio::sync::Semaphore;

use crate::context::ListenerContext;
use crate::error::BoxError;
use crate::handler::Handler;
use crate::http3::admission::Admission;
use crate::limits::Limits;
use crate::tls::Tls;

/// Response data that may be in flight to a client, in bytes of a connection.
const SEND_WINDOW_BYTES: u64 = 2 << 20;
/// What a client may send ahead, in bytes of a stream.
const STREAM_RECEIVE_WINDOW_BYTES: u32 = 256 << 10;
/// What a client may send ahead, in bytes of a connection.
const RECEIVE_WINDOW_BYTES: u32 = 1 << 20;
/// Unidirectional streams of a client: control, two of QPACK, and some for greasing.
const MAX_UNIDIRECTIONAL_STREAMS: u32 = 8;
/// Handshakes that may wait to be accepted, which takes no longer than checking the limits; more are dropped.
const MAX_WAITING_HANDSHAKES: usize = 1024;
/// Bytes that one of them may buffer.
const WAITING_HANDSHAKE_BYTES: u64 = 16 << 10;
/// Bytes that all of them may buffer.
const WAITING_HANDSHAKES_BYTES: u64 = 4 << 20;

/// A bound UDP socket that does not serve yet.
#[derive(Debug)]
pub(crate) struct QuicEndpoint {
    socket: UdpSocket,
    tls: Tls,
}

impl QuicEndpoint {
    /// Binds the UDP port of `address`.
    pub(crate) fn bind(address: SocketAddr, tls: &Tls) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        Ok(Self { socket, tls: tls.clone() })
    }

    /// Accepts connections until the drain begins; each then ends by itself.
    pub(crate) async fn serve<H: Handler>(self, handler: H, context: Arc<ListenerContext>, slots: Arc<Semaphore>) {
        let made = token_key().and_then(|key| Ok((self.endpoint(&context.limits, &key)?, key)));
        let (endpoint, key) = match made {
            Ok(made) => made,
            Err(cause) => return tracing::error!(cause, "HTTP/3 could not be started"),
        };
        let admission = Admission::new(Arc::clone(&context), slots);
        let mut changed = self.tls.changes();
        loop {
            tokio::select! {
                biased;
                () = context.shutdown.draining() => break,
                Ok(()) = changed.changed() => match server_config(&self.tls, &context.limits, &key) {
                    Ok(config) => endpoint.set_server_config(Some(config)),
                    Err(cause) => tracing::error!(cause, "HTTP/3 keeps its previous certificate"),
                },
                incoming = endpoint.accept() => {
                    let Some(incoming) = incoming else { break };
                    admission.accept(incoming, &handler);
                }
            }
        }
        endpoint.set_server_config(None);
        // Connections outlive this loop, and send through the endpoint.
        let guard = context.shutdown.guard();
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

/// Seals Retry tokens. Kept over certificate reloads, so that a token issued before one is valid after it.
type TokenKey = Arc<dyn HandshakeTokenKey>;

fn token_key() -> Result<TokenKey, BoxError> {
    let mut secret = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut secret)?;
    Ok(Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secret)))
}

fn server_config(tls: &Tls, limits: &Limits, key: &TokenKey) -> Result<ServerConfig, BoxError> {
    let mut crypto = rustls::ServerConfig::clone(&tls.config());
    crypto.alpn_protocols = vec![b"h3".to_vec()];
    // No early data: it can be replayed (RFC 8446, section 8).
    crypto.max_early_data_size = 0;
    let mut config = ServerConfig::new(Arc::new(QuicServerConfig::try_from(crypto)?), Arc::clone(key));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(limits.idle.get().max(limits.stall.get()).try_into()?))
        .max_concurrent_bidi_streams(VarInt::from_u64(limits.streams)?)
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_UNIDIRECTIONAL_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None);
    config
        .transport_config(Arc::new(transport))
        .max_incoming(MAX_WAITING_HANDSHAKES)
        .incoming_buffer_size(WAITING_HANDSHAKE_BYTES)
        .incoming_buffer_size_total(WAITING_HANDSHAKES_BYTES);
    Ok(config)
}

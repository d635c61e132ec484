//! A TCP connection from its acceptance to its end: PROXY header, client limits, then the handshake and its protocol.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::context::ListenerContext;
use crate::handler::Handler;
use crate::handshake;
use crate::metrics::EndReason;
use crate::peer::{self, Peer};
use crate::session::Session;

/// An accepted connection.
pub(crate) struct Connection {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) context: Arc<ListenerContext>,
}

impl Connection {
    pub(crate) async fn serve<H: Handler>(mut self, mut stream: TcpStream, handler: H) {
        let context = Arc::clone(&self.context);
        if context.proxy_protocol.as_ref().is_some_and(|proxy| proxy.is_expected_from(self.address)) {
            let read = tokio::select! {
                read = peer::read_proxy_header(&mut stream, context.limits.header.get()) => read,
                () = context.shutdown.draining() => return,
            };
            match read {
                Ok(client) => self.address = client.unwrap_or(self.address),
                Err(cause) => {
                    context.metrics.record_end(EndReason::ProxyProtocol);
                    tracing::debug!(peer = %self.address, %cause, "connection ended");
                    return;
                }
            }
        }
        let peer = Peer { address: self.address, tls: self.tls.is_some() };
        // A trusted proxy's connection carries many clients: they are counted by request.
        let is_proxy = context.forwarded.as_ref().is_some_and(|forwarded| forwarded.trusts(peer));
        let slot = if is_proxy { None } else { Some(context.client_limits.open_connection(peer.address.ip())) };
        let slot = match slot.transpose() {
            Ok(slot) => slot,
            Err(_) => return context.metrics.record_end(EndReason::ConnectionsPerClient),
        };
        let client = slot.as_ref().and_then(|slot| slot.client().cloned());
        let session = Session { handler, peer, client, context: Arc::clone(&context) };
        // Boxed, here and in `handshake`: an idle connection then holds the state of its own protocol, and none of the
        // handshake's.
        let outcome = match self.tls {
            Some(acceptor) => Box::pin(handshake::serve_tls(session, acceptor, stream)).await,
            None => Box::pin(handshake::serve_plaintext(session, stream)).await,
        };
        drop(slot);
        context.record_end(peer.address, outcome);
    }
}

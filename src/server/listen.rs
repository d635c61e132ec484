//! Listeners: bind, accept, hand each connection to its own task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use super::clients::Clients;
use super::connection::{self, Shared};
use super::handler::Handler;
use super::http3::{Http3, Quic};
use super::metrics::{Metrics, Open};
use super::peer::{Forwarded, ProxyProtocol};
use super::tls::{Certificates, Tls, TlsError};
use super::{Crew, Limits};
use lyceum_core::shutdown::Shutdown;

/// `[[listen]]` of a role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// HTTP/1.1 and 2 by ALPN; without it plain HTTP/1.1 and h2c. Several certificates are chosen by SNI.
    #[serde(default)]
    pub tls: Option<Certificates>,
    /// HTTP/3 on the same port over UDP, with `Alt-Svc` on what goes over TCP; needs `tls`.
    #[serde(default)]
    pub http3: Http3,
    /// Load balancers that say in a PROXY header whose connection it is.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Proxies whose `Forwarded` or `X-Forwarded-For` is believed.
    #[serde(default)]
    pub forwarded: Option<Forwarded>,
}

/// A listener that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The socket.
    #[error("can't listen on {address}: {cause}{}", hint(cause))]
    Address {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// HTTP/3 without a certificate.
    #[error("listen {0}: http3 needs tls")]
    Http3WithoutTls(SocketAddr),
}

fn hint(cause: &std::io::Error) -> &'static str {
    match cause.kind() {
        std::io::ErrorKind::AddrInUse => "; stop the program that uses it, or listen on another port",
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege, choose another or grant it",
        std::io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// The bound listeners of a role.
pub struct Front {
    listeners: Vec<Bound>,
    limits: Limits,
    metrics: Metrics,
}

struct Bound {
    socket: TcpListener,
    tls: Option<Tls>,
    quic: Option<Quic>,
    alt_svc: Option<HeaderValue>,
    listen: Listen,
}

/// Binds a TCP listener with address reuse and a long queue.
fn listener(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

impl Bound {
    fn new(listen: &Listen) -> Result<Self, BindError> {
        let tls = listen.tls.as_ref().map(Tls::load).transpose()?;
        let failed = |cause| BindError::Address { address: listen.address, cause };
        let Http3::On { advertise_port } = listen.http3 else {
            let socket = listener(listen.address).map_err(failed)?;
            return Ok(Self { socket, tls, quic: None, alt_svc: None, listen: listen.clone() });
        };
        let Some(tls) = tls else { return Err(BindError::Http3WithoutTls(listen.address)) };
        let (socket, quic) = both(listen.address, &tls).map_err(failed)?;
        let port =
            advertise_port.map_or_else(|| socket.local_addr().map(|address| address.port()), Ok).map_err(failed)?;
        let alt_svc = HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).ok();
        Ok(Self { socket, tls: Some(tls), quic: Some(quic), alt_svc, listen: listen.clone() })
    }
}

/// The same port over TCP and UDP. A free port of one may be taken in the other: then another is tried.
fn both(address: SocketAddr, tls: &Tls) -> std::io::Result<(TcpListener, Quic)> {
    let tries = if address.port() == 0 { 20 } else { 1 };
    let mut last = None;
    for _ in 0..tries {
        let socket = listener(address)?;
        match Quic::bind(socket.local_addr()?, tls) {
            Ok(quic) => return Ok((socket, quic)),
            Err(cause) => last = Some(cause),
        }
    }
    Err(last.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into()))
}

impl Front {
    /// Binds all of `listens`, or none.
    pub fn bind(listens: &[Listen], limits: &Limits, registry: &prometheus::Registry) -> Result<Self, BindError> {
        let mut listeners = Vec::with_capacity(listens.len());
        for listen in listens {
            listeners.push(Bound::new(listen)?);
        }
        Ok(Self { listeners, limits: limits.clone(), metrics: Metrics::new(registry) })
    }

    /// The URLs that the listeners answer, without a trailing slash.
    pub fn urls(&self) -> Vec<String> {
        let url = |bound: &Bound| {
            let scheme = if bound.tls.is_some() { "https" } else { "http" };
            bound.socket.local_addr().ok().map(|address| format!("{scheme}://{address}"))
        };
        self.listeners.iter().filter_map(url).collect()
    }

    /// What [`TlsReload::reload`] needs; taken before [`Front::serve`].
    pub fn tls(&self) -> TlsReload {
        TlsReload(self.listeners.iter().filter_map(|bound| bound.tls.clone()).collect())
    }

    /// Serves until the drain has begun and each connection has ended.
    pub async fn serve<H: Handler>(self, handler: H, shutdown: Shutdown) {
        self.serve_with(Crew::here(), handler, shutdown).await;
    }

    /// The same, with the threads of a crew for the connections.
    pub async fn serve_with<H: Handler>(self, crew: Crew, handler: H, shutdown: Shutdown) {
        let places = Arc::new(Semaphore::new(usize::try_from(self.limits.connections).unwrap_or(1)));
        let limits = Arc::new(self.limits);
        let clients = Arc::new(Clients::new(&limits));
        let metrics = Arc::new(self.metrics);
        let mut accepting = tokio::task::JoinSet::new();
        for Bound { socket, tls, quic, alt_svc, listen } in self.listeners {
            let shared = Arc::new(Shared {
                limits: Arc::clone(&limits),
                clients: Arc::clone(&clients),
                metrics: Arc::clone(&metrics),
                shutdown: shutdown.clone(),
                proxy_protocol: listen.proxy_protocol,
                forwarded: listen.forwarded,
                alt_svc,
            });
            if let Some(quic) = quic {
                accepting.spawn(quic.run(handler.clone(), Arc::clone(&shared), Arc::clone(&places)));
            }
            let accept = Accept { tls, places: Arc::clone(&places), shared, crew: crew.clone() };
            accepting.spawn(accept.run(socket, handler.clone()));
        }
        while accepting.join_next().await.is_some() {}
    }
}

/// Reads the listeners' certificates again.
#[derive(Clone, Debug)]
pub struct TlsReload(Vec<Tls>);

impl TlsReload {
    /// All of them, or an error for the first that can't be read, which stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.0.iter().try_for_each(Tls::reload)
    }
}

struct Accept {
    tls: Option<Tls>,
    places: Arc<Semaphore>,
    shared: Arc<Shared>,
    crew: Crew,
}

impl Accept {
    async fn run<H: Handler>(self, listener: TcpListener, handler: H) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shared.shutdown.draining() => return,
                accepted = self.next(&listener) => accepted,
            };
            let Some((stream, address, place)) = accepted else { continue };
            let connection = connection::Connection {
                address,
                tls: self.tls.as_ref().map(Tls::acceptor),
                shared: Arc::clone(&self.shared),
            };
            let (handler, guard) = (handler.clone(), self.shared.shutdown.guard());
            let open = Open::new(&self.shared.metrics.open);
            let served = self.crew.take(stream, |stream| async move {
                connection.serve(stream, handler).await;
                drop((open, guard, place));
            });
            if let Err(cause) = served {
                tracing::warn!(%cause, "a connection was dropped");
            }
        }
    }

    async fn next(&self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((stream, address)) => {
                // A refused option costs latency, not correctness.
                let _ = stream.set_nodelay(true);
                Some((stream, address, place))
            }
            Err(cause) => {
                // Out of descriptors or a connection reset in the queue: give the rest a moment to end.
                tracing::warn!(%cause, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                None
            }
        }
    }
}

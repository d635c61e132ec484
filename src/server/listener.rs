//! Listeners: bind, accept, and run each connection in a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use lyceum_core::config::Fault;
use lyceum_core::shutdown::Shutdown;

use crate::client_limits::ClientLimits;
use crate::connection::Connection;
use crate::context::ListenerContext;
use crate::handler::Handler;
use crate::http3::config::Http3;
use crate::http3::endpoint::QuicEndpoint;
use crate::limits::Limits;
use crate::metrics::{GaugeGuard, Metrics};
use crate::peer::{Forwarded, ProxyProtocol};
use crate::tls::{Certificates, Tls, TlsError};
use crate::worker_threads::WorkerThreads;

/// Connections that the kernel queues until they are accepted.
const BACKLOG: u32 = 4096;
/// Ports that are tried for one that is free over TCP and UDP.
const MAX_PORT_ATTEMPTS: u32 = 20;
/// Pause after a failed accept, for connections to end and free their descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// `[[listen]]` of a role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// TLS with HTTP/1.1 and 2 by ALPN; without it HTTP/1.1 and h2c. SNI chooses one of several certificates.
    #[serde(default)]
    pub tls: Option<Certificates>,
    /// HTTP/3 on the same port over UDP, advertised by `Alt-Svc` in responses over TCP; needs `tls`.
    #[serde(default)]
    pub http3: Http3,
    /// Load balancers that name the client of a connection in a PROXY header.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Proxies whose `Forwarded` or `X-Forwarded-For` is trusted.
    #[serde(default)]
    pub forwarded: Option<Forwarded>,
}

impl Listen {
    /// What can't work, by its key; `at` is the key of this table.
    pub fn fault(&self, at: &str) -> Option<Fault> {
        let without_tls = self.tls.is_none() && matches!(self.http3, Http3::On { .. });
        without_tls.then(|| Fault::at(&format!("{at}.http3"), BindError::Http3WithoutTls(self.address)))
    }
}

/// Why a listener can't be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The socket can't be bound.
    #[error("can't listen on {address}: {cause}{}", hint(cause))]
    Address {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// The certificate can't be used.
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
pub struct Server {
    listeners: Vec<BoundListener>,
    limits: Limits,
    metrics: Metrics,
}

/// A listener that does not serve yet.
struct BoundListener {
    socket: TcpListener,
    tls: Option<Tls>,
    quic: Option<QuicEndpoint>,
    alt_svc: Option<HeaderValue>,
    listen: Listen,
}

/// Binds a TCP listener with address reuse.
fn bind_tcp(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl BoundListener {
    fn new(listen: &Listen, metrics: &Metrics) -> Result<Self, BindError> {
        let load = |files| Tls::load(files, &metrics.certificate_ends);
        let tls = listen.tls.as_ref().map(load).transpose()?;
        let failed = |cause| BindError::Address { address: listen.address, cause };
        let Http3::On { advertise_port } = listen.http3 else {
            let socket = bind_tcp(listen.address).map_err(failed)?;
            return Ok(Self { socket, tls, quic: None, alt_svc: None, listen: listen.clone() });
        };
        let Some(tls) = tls else { return Err(BindError::Http3WithoutTls(listen.address)) };
        let (socket, quic) = bind_tcp_and_udp(listen.address, &tls).map_err(failed)?;
        let port =
            advertise_port.map_or_else(|| socket.local_addr().map(|address| address.port()), Ok).map_err(failed)?;
        let alt_svc = HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).ok();
        Ok(Self { socket, tls: Some(tls), quic: Some(quic), alt_svc, listen: listen.clone() })
    }
}

/// Binds the same port over TCP and UDP. With port 0, a port that is free over TCP may be taken over UDP: then another is
/// tried.
fn bind_tcp_and_udp(address: SocketAddr, tls: &Tls) -> std::io::Result<(TcpListener, QuicEndpoint)> {
    let attempts = if address.port() == 0 { MAX_PORT_ATTEMPTS } else { 1 };
    let mut last = None;
    for _ in 0..attempts {
        let socket = bind_tcp(address)?;
        match QuicEndpoint::bind(socket.local_addr()?, tls) {
            Ok(quic) => return Ok((socket, quic)),
            Err(cause) => last = Some(cause),
        }
    }
    Err(last.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into()))
}

impl Server {
    /// Binds all of `listens`, or none.
    pub fn bind(listens: &[Listen], limits: &Limits, registry: &prometheus::Registry) -> Result<Self, BindError> {
        let metrics = Metrics::new(registry);
        let bind = |listen| BoundListener::new(listen, &metrics);
        let listeners = listens.iter().map(bind).collect::<Result<_, _>>()?;
        Ok(Self { listeners, limits: limits.clone(), metrics })
    }

    /// The listeners' URLs, without a trailing slash.
    pub fn urls(&self) -> Vec<String> {
        let url = |bound: &BoundListener| {
            let scheme = if bound.tls.is_some() { "https" } else { "http" };
            bound.socket.local_addr().ok().map(|address| format!("{scheme}://{address}"))
        };
        self.listeners.iter().filter_map(url).collect()
    }

    /// Reloads the listeners' certificates; taken before [`Server::serve`].
    pub fn tls(&self) -> TlsReload {
        TlsReload(self.listeners.iter().filter_map(|bound| bound.tls.clone()).collect())
    }

    /// Serves until the drain has begun; connections in tasks of their own end after that ([`Shutdown::drained`] waits for
    /// them).
    pub async fn serve<H: Handler>(self, handler: H, shutdown: Shutdown) {
        self.serve_with(WorkerThreads::none(), handler, shutdown).await;
    }

    /// Like [`Server::serve`], with connections on `workers`.
    pub async fn serve_with<H: Handler>(self, workers: WorkerThreads, handler: H, shutdown: Shutdown) {
        let slots = Arc::new(Semaphore::new(usize::try_from(self.limits.connections).unwrap_or(1)));
        let limits = Arc::new(self.limits);
        let client_limits = Arc::new(ClientLimits::new(&limits));
        let metrics = Arc::new(self.metrics);
        let mut accepting = tokio::task::JoinSet::new();
        for BoundListener { socket, tls, quic, alt_svc, listen } in self.listeners {
            let context = Arc::new(ListenerContext {
                limits: Arc::clone(&limits),
                client_limits: Arc::clone(&client_limits),
                metrics: Arc::clone(&metrics),
                shutdown: shutdown.clone(),
                proxy_protocol: listen.proxy_protocol,
                forwarded: listen.forwarded,
                alt_svc,
            });
            if let Some(quic) = quic {
                accepting.spawn(quic.serve(handler.clone(), Arc::clone(&context), Arc::clone(&slots)));
            }
            let acceptor = Acceptor { tls, slots: Arc::clone(&slots), context, workers: workers.clone() };
            accepting.spawn(acceptor.run(socket, handler.clone()));
        }
        while accepting.join_next().await.is_some() {}
    }
}

/// Reloads the listeners' certificates.
#[derive(Clone, Debug)]
pub struct TlsReload(Vec<Tls>);

impl TlsReload {
    /// Reads all of them; an error for the first that can't be read, which stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.0.iter().try_for_each(Tls::reload)
    }
}

/// Accepts the connections of one listener.
struct Acceptor {
    tls: Option<Tls>,
    slots: Arc<Semaphore>,
    context: Arc<ListenerContext>,
    workers: WorkerThreads,
}

impl Acceptor {
    async fn run<H: Handler>(self, listener: TcpListener, handler: H) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.context.shutdown.draining() => return,
                accepted = self.next(&listener) => accepted,
            };
            let Some((stream, address, slot)) = accepted else { continue };
            let connection =
                Connection { address, tls: self.tls.as_ref().map(Tls::acceptor), context: Arc::clone(&self.context) };
            let (handler, guard) = (handler.clone(), self.context.shutdown.guard());
            let open = GaugeGuard::new(&self.context.metrics.open);
            let served = self.workers.spawn(stream, |stream| async move {
                connection.serve(stream, handler).await;
                drop((open, guard, slot));
            });
            if let Err(cause) = served {
                tracing::warn!(%cause, "an accepted connection was dropped");
            }
        }
    }

    async fn next(&self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((stream, address)) => {
                // Without the option responses are later, not wrong.
                let _ = stream.set_nodelay(true);
                Some((stream, address, slot))
            }
            Err(cause) => {
                // Out of descriptors, or a connection that was reset in the queue.
                tracing::warn!(%cause, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

//! Listeners: bind, accept, hand each connection to its own task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use super::connection::{self, Handler};
use super::tls::{Tls, TlsError, TlsFiles};
use super::{Limits, Shutdown};
use crate::telemetry;

/// `[[listen]]` of a role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// HTTP/1.1 and 2 by ALPN; without it plain HTTP/1.1 and h2c.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
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
    listeners: Vec<(TcpListener, Option<Tls>)>,
    limits: Limits,
    open: IntGauge,
}

/// Binds a TCP listener with address reuse and a long queue.
fn listener(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

impl Front {
    /// Binds all of `listens`, or none.
    pub fn bind(listens: &[Listen], limits: &Limits, registry: &prometheus::Registry) -> Result<Self, BindError> {
        let mut listeners = Vec::with_capacity(listens.len());
        for listen in listens {
            let tls = listen.tls.as_ref().map(Tls::load).transpose()?;
            let bound = listener(listen.address)
                .map_err(|cause| BindError::Address { address: listen.address, cause })?;
            listeners.push((bound, tls));
        }
        let open = telemetry::gauge(registry, "lyceum_front_connections", "Client connections that are open.");
        Ok(Self { listeners, limits: limits.clone(), open })
    }

    /// The URLs that the listeners answer, without a trailing slash.
    pub fn urls(&self) -> Vec<String> {
        let url = |(listener, tls): &(TcpListener, Option<Tls>)| {
            let scheme = if tls.is_some() { "https" } else { "http" };
            listener.local_addr().ok().map(|address| format!("{scheme}://{address}"))
        };
        self.listeners.iter().filter_map(url).collect()
    }

    /// What [`TlsReload::reload`] needs; taken before [`Front::serve`].
    pub fn tls(&self) -> TlsReload {
        TlsReload(self.listeners.iter().filter_map(|(_, tls)| tls.clone()).collect())
    }

    /// Serves until the drain has begun and each connection has ended.
    pub async fn serve<H: Handler>(self, handler: H, shutdown: Shutdown) {
        let places = Arc::new(Semaphore::new(usize::try_from(self.limits.connections).unwrap_or(1)));
        let limits = Arc::new(self.limits);
        let mut accepting = tokio::task::JoinSet::new();
        for (listener, tls) in self.listeners {
            let accept = Accept {
                tls,
                limits: Arc::clone(&limits),
                places: Arc::clone(&places),
                open: self.open.clone(),
                shutdown: shutdown.clone(),
            };
            accepting.spawn(accept.run(listener, handler.clone()));
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
    limits: Arc<Limits>,
    places: Arc<Semaphore>,
    open: IntGauge,
    shutdown: Shutdown,
}

impl Accept {
    async fn run<H: Handler>(self, listener: TcpListener, handler: H) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shutdown.draining() => return,
                accepted = self.next(&listener) => accepted,
            };
            let Some((stream, address, place)) = accepted else { continue };
            let connection = connection::Connection {
                address,
                tls: self.tls.as_ref().map(Tls::acceptor),
                limits: Arc::clone(&self.limits),
                shutdown: self.shutdown.clone(),
            };
            let (handler, guard, open) = (handler.clone(), self.shutdown.guard(), Open::new(&self.open));
            tokio::spawn(async move {
                connection.serve(stream, handler).await;
                drop((open, guard, place));
            });
        }
    }

    async fn next(
        &self,
        listener: &TcpListener,
    ) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
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

/// Counts a connection while it lives.
struct Open(IntGauge);

impl Open {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

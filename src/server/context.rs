//! What all connections of a listener share, and how a request reaches the handler.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request};
use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::monotonic;

use crate::body::RequestBody;
use crate::client_limits::{Client, ClientLimits};
use crate::drain_body::DrainOnDrop;
use crate::error::BoxError;
use crate::handler::{Handler, Refused, ResponseFuture};
use crate::limits::Limits;
use crate::metrics::{EndReason, Metrics};
use crate::peer::{Forwarded, Peer, ProxyProtocol};

/// `Retry-After` is at least this.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A listener's configuration and what it shares with the role's other listeners.
#[derive(Debug)]
pub(crate) struct ListenerContext {
    pub(crate) limits: Arc<Limits>,
    pub(crate) client_limits: Arc<ClientLimits>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: Shutdown,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    pub(crate) forwarded: Option<Forwarded>,
    /// The value of `Alt-Svc` in responses over TCP, where the listener has HTTP/3.
    pub(crate) alt_svc: Option<HeaderValue>,
}

impl ListenerContext {
    /// Passes a request to `handler`, unless a limit refuses it.
    pub(crate) fn dispatch<H: Handler>(
        &self,
        handler: &H,
        peer: Peer,
        client: Option<&Arc<Client>>,
        mut request: Request<RequestBody>,
    ) -> ResponseFuture<H::Body> {
        let began = monotonic();
        let forwarded_client;
        let (peer, client) = match &self.forwarded {
            Some(forwarded) if forwarded.trusts(peer) => {
                let named = forwarded.client(peer, request.headers());
                forwarded_client = self.client_limits.client(named.address.ip());
                (named, forwarded_client.as_ref())
            }
            _ => (peer, client),
        };
        if let Some(wait) = client.and_then(|client| self.client_limits.count_request(client, began).err()) {
            self.metrics.record_end(EndReason::RequestsPerClient);
            let (head, body) = request.into_parts();
            drop(DrainOnDrop::new(body));
            let retry_after = wait.max(MIN_RETRY_AFTER).as_secs();
            return ResponseFuture::Ready(handler.refuse(&head, Refused::TooManyRequests { retry_after }));
        }
        request.body_mut().hold_to(&self.limits, &self.metrics);
        handler.call(peer, request, began)
    }

    /// Counts and logs a connection's end: by a limit, by itself (`None`), or by an error.
    pub(crate) fn record_end(&self, peer: std::net::SocketAddr, outcome: Result<Option<EndReason>, BoxError>) {
        match outcome {
            Ok(None) => {}
            Ok(Some(reason)) => {
                self.metrics.record_end(reason);
                tracing::debug!(%peer, reason = reason.name(), "connection ended");
            }
            Err(cause) => tracing::debug!(%peer, cause, "connection ended"),
        }
    }
}

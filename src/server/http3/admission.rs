//! Decides which QUIC connections are accepted.
//!
//! A packet whose source address is not validated may be forged. Only so many handshakes with such addresses are in flight
//! at once; further clients are validated by a Retry, for which the server keeps no state (RFC 9000, section 8.1).

use std::sync::Arc;

use quinn::Incoming;
use tokio::sync::Semaphore;

use crate::context::ListenerContext;
use crate::error::BoxError;
use crate::handler::Handler;
use crate::http3::connection;
use crate::limits::Limits;
use crate::metrics::{EndReason, GaugeGuard};

/// Of the connections that may be open, one in so many may be for an address that is not validated.
const UNVALIDATED_SHARE: u64 = 10;

/// Admits connections of one listener.
pub(crate) struct Admission {
    /// Slots for handshakes of addresses that are not validated.
    unvalidated: Arc<Semaphore>,
    /// Slots for open connections, over all listeners.
    slots: Arc<Semaphore>,
    context: Arc<ListenerContext>,
}

impl Admission {
    pub(crate) fn new(context: Arc<ListenerContext>, slots: Arc<Semaphore>) -> Self {
        Self { unvalidated: unvalidated_slots(&context.limits), slots, context }
    }

    /// Accepts a connection, asks its client for a Retry, or refuses it before it costs anything.
    pub(crate) fn accept<H: Handler>(&self, incoming: Incoming, handler: &H) {
        let address = incoming.remote_address();
        let unvalidated = match incoming.remote_address_validated() {
            true => None,
            false => match Arc::clone(&self.unvalidated).try_acquire_owned() {
                Ok(slot) => Some(slot),
                Err(_) => {
                    self.context.metrics.retries.inc();
                    // An error means that a Retry is not possible because the address is validated.
                    let _ = incoming.retry();
                    return;
                }
            },
        };
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            self.context.metrics.record_end(EndReason::Connections);
            return incoming.refuse();
        };
        let Ok(client_slot) = self.context.client_limits.open_connection(address.ip()) else {
            self.context.metrics.record_end(EndReason::ConnectionsPerClient);
            return incoming.refuse();
        };
        let (handler, context) = (handler.clone(), Arc::clone(&self.context));
        let (guard, open) = (context.shutdown.guard(), GaugeGuard::new(&context.metrics.open));
        tokio::spawn(async move {
            let client = client_slot.client().cloned();
            let outcome = async {
                let connection = match handshake(incoming, &context.limits).await? {
                    Ok(connection) => connection,
                    Err(reason) => return Ok(Some(reason)),
                };
                drop(unvalidated);
                connection::serve(connection, handler, client, &context).await
            };
            context.record_end(address, outcome.await);
            drop((client_slot, slot, guard, open));
        });
    }
}

/// A finished handshake validates the client's address.
async fn handshake(incoming: Incoming, limits: &Limits) -> Result<Result<quinn::Connection, EndReason>, BoxError> {
    Ok(match tokio::time::timeout(limits.handshake.get(), incoming.accept()?).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(_)) => Err(EndReason::Tls),
        Err(_) => Err(EndReason::Handshake),
    })
}

/// Forged packets must not use up the slots of others: they get a fraction of all connections, and less than one client
/// may have, whose address they may carry.
fn unvalidated_slots(limits: &Limits) -> Arc<Semaphore> {
    let share = (limits.connections / UNVALIDATED_SHARE).min(limits.connections_per_client / 2);
    Arc::new(Semaphore::new(usize::try_from(limits.unvalidated.min(share)).unwrap_or(0)))
}

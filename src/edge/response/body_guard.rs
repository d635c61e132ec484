//! Guards of bodies: they count the bytes, and end a body when its session is revoked.

use std::sync::Arc;

use tokio::sync::watch;

use crate::metrics::counters::Metrics;
use lyceum_core::telemetry::HotCounter;
use lyceum_core::time::Clock;
use lyceum_server::Revocable;
use lyceum_token::{Denied, Grant, Verifier};

/// What the guards of one route share.
#[derive(Debug)]
pub(crate) struct RouteGuard {
    bytes: HotCounter,
    verifier: Option<Arc<Verifier>>,
    clock: Clock,
}

/// What the guards of all routes share.
#[derive(Debug)]
pub(crate) struct BodyGuards {
    routes: Vec<Arc<RouteGuard>>,
    /// For requests without a route.
    unrouted: Arc<RouteGuard>,
}

impl BodyGuards {
    pub(crate) fn new(metrics: &Metrics, verifier: Option<&Arc<Verifier>>, clock: &Clock) -> Self {
        let guard = |route| {
            let bytes = metrics.route(route).bytes.clone();
            Arc::new(RouteGuard { bytes, verifier: verifier.cloned(), clock: clock.clone() })
        };
        Self { routes: (0..metrics.routes()).map(|route| guard(Some(route))).collect(), unrouted: guard(None) }
    }

    /// A guard for a response of a route; `generation`: the revocation generation before the grant was made.
    pub(crate) fn guard(&self, route: Option<usize>, grant: Option<Grant>, generation: u64) -> BodyGuard {
        let shared = route.and_then(|route| self.routes.get(route)).unwrap_or(&self.unrouted);
        BodyGuard { shared: Arc::clone(shared), grant, generation }
    }
}

/// The guard of one body.
#[derive(Clone, Debug)]
pub(crate) struct BodyGuard {
    shared: Arc<RouteGuard>,
    grant: Option<Grant>,
    /// The revocation generation at the last check.
    generation: u64,
}

impl BodyGuard {
    /// Counts bytes that were handed over.
    pub(crate) fn count(&self, bytes: usize) {
        self.shared.bytes.inc_by(bytes as u64);
    }

    /// Whether there is a grant, which may be revoked.
    pub(crate) fn is_granted(&self) -> bool {
        self.grant.is_some()
    }

    /// Checks the grant again if sessions were revoked since the last check.
    pub(crate) fn check(&mut self) -> Result<(), Denied> {
        let (Some(grant), Some(verifier)) = (&self.grant, &self.shared.verifier) else { return Ok(()) };
        let generation = verifier.revocations().generation();
        if generation == self.generation {
            return Ok(());
        }
        self.generation = generation;
        self.shared.judge(verifier, grant)
    }
}

impl RouteGuard {
    fn judge(&self, verifier: &Verifier, grant: &Grant) -> Result<(), Denied> {
        match verifier.still_holds(grant, self.clock.unix_seconds()) {
            // A token that expires while its segment is sent does not cut the segment off.
            Err(Denied::Expired) | Ok(()) => Ok(()),
            Err(denied) => Err(denied),
        }
    }
}

impl Revocable for BodyGuard {
    fn changes(&self) -> watch::Receiver<u64> {
        match &self.shared.verifier {
            Some(verifier) => verifier.revocations().watch(),
            // It never changes.
            None => watch::channel(0).1,
        }
    }

    fn is_valid(&self) -> bool {
        match (&self.grant, &self.shared.verifier) {
            (Some(grant), Some(verifier)) => self.shared.judge(verifier, grant).is_ok(),
            _ => true,
        }
    }
}

//! What watches a body on its way out: counts its bytes, and ends it when what allowed it does.

use std::sync::Arc;

use tokio::sync::watch;

use super::metrics::Metrics;
use lyceum_core::telemetry::HotCounter;
use lyceum_core::time::Clock;
use lyceum_server::Revocable;
use lyceum_token::{Denied, Grant, Verifier};

/// Where the bodies of one route are watched from.
#[derive(Debug)]
pub(super) struct Post {
    bytes: HotCounter,
    verifier: Option<Arc<Verifier>>,
    clock: Clock,
}

/// Those of all routes.
#[derive(Debug)]
pub(super) struct Posts {
    routes: Vec<Arc<Post>>,
    /// For what no route takes.
    unrouted: Arc<Post>,
}

impl Posts {
    pub(super) fn new(metrics: &Metrics, verifier: Option<&Arc<Verifier>>, clock: &Clock) -> Self {
        let post = |route| {
            let bytes = metrics.route(route).bytes.clone();
            Arc::new(Post { bytes, verifier: verifier.cloned(), clock: clock.clone() })
        };
        Self { routes: (0..metrics.routes()).map(|route| post(Some(route))).collect(), unrouted: post(None) }
    }

    /// A watch over a response of a route; `seen`: the revocations as they were before the grant was made.
    pub(super) fn watch(&self, route: Option<usize>, grant: Option<Grant>, seen: u64) -> Watch {
        let post = route.and_then(|route| self.routes.get(route)).unwrap_or(&self.unrouted);
        Watch { post: Arc::clone(post), grant, seen }
    }
}

/// What watches one body.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    post: Arc<Post>,
    grant: Option<Grant>,
    /// The revocations that were looked at last.
    seen: u64,
}

impl Watch {
    /// So many bytes were handed over.
    pub(super) fn count(&self, bytes: usize) {
        self.post.bytes.inc_by(bytes as u64);
    }

    /// Whether there is something that may end.
    pub(super) fn is_granted(&self) -> bool {
        self.grant.is_some()
    }

    /// Looks at the grant again when sessions were revoked since the last look.
    pub(super) fn look(&mut self) -> Result<(), Denied> {
        let (Some(grant), Some(verifier)) = (&self.grant, &self.post.verifier) else { return Ok(()) };
        let generation = verifier.revocations().generation();
        if generation == self.seen {
            return Ok(());
        }
        self.seen = generation;
        self.post.judge(verifier, grant)
    }
}

impl Post {
    fn judge(&self, verifier: &Verifier, grant: &Grant) -> Result<(), Denied> {
        match verifier.still_holds(grant, self.clock.unix_seconds()) {
            // A token that runs out while its segment goes out does not cut the segment.
            Err(Denied::Expired) | Ok(()) => Ok(()),
            Err(denied) => Err(denied),
        }
    }
}

impl Revocable for Watch {
    fn changes(&self) -> watch::Receiver<u64> {
        match &self.post.verifier {
            Some(verifier) => verifier.revocations().watch(),
            // Nothing changes.
            None => watch::channel(0).1,
        }
    }

    fn is_valid(&self) -> bool {
        match (&self.grant, &self.post.verifier) {
            (Some(grant), Some(verifier)) => self.post.judge(verifier, grant).is_ok(),
            _ => true,
        }
    }
}

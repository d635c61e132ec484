//! Record: the last step of every request. The response is counted, and its body put under a guard.

use std::time::Duration;

use http::header::HeaderValue;
use http::{Response, Version};

use crate::cache_status::CacheOutcome;
use crate::response::body::Body;
use crate::state::State;
use lyceum_token::Grant;

/// What is known of a request when its response begins.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The index of its route.
    pub(crate) route: Option<usize>,
    pub(crate) grant: Option<Grant>,
    /// The revocation generation before the grant was made.
    pub(crate) generation: u64,
    /// `Set-Cookie` with the renewed token.
    pub(crate) cookie: Option<HeaderValue>,
    /// Whether the response has its connection to itself: without streams.
    pub(crate) exclusive: bool,
}

/// Whether requests of this version have their connection to themselves: there are no streams.
pub(crate) fn is_exclusive(version: Version) -> bool {
    version <= Version::HTTP_11
}

/// Counts a response and guards its body. `took`: see [`Metrics::answered`](crate::metrics::counters::Metrics::answered).
pub(crate) fn record(
    state: &State,
    record: Record,
    response: Response<Body>,
    outcome: CacheOutcome,
    took: Option<Duration>,
) -> Response<Body> {
    state.metrics.answered(record.route, outcome, response.status(), took);
    let guard = state.body_guards.guard(record.route, record.grant, record.generation);
    let mut response = response.map(|body| body.guarded(guard, record.exclusive));
    if let Some(check) = response.body().revocation_check() {
        response.extensions_mut().insert(check);
    }
    response
}

//! Authorize and lookup without waiting, for most requests: the token was verified before, and a fresh response is in
//! memory. Whatever needs more yields `None`; nothing was counted or changed then, and `serve.rs` starts over.

use std::sync::Arc;

use http::request;

use crate::config::Auth;
use crate::request::authorize::{Authorized, facts};
use crate::request::prepare::ResourceRequest;
use crate::state::State;
use lyceum_cache::{CacheSlot, StoredResponse};
use lyceum_core::time::Instant;
use lyceum_http::freshness::FreshnessState;
use lyceum_packaging::filter::Playlist;
use lyceum_server::Peer;
use lyceum_token::extract::TokenPlacement;

/// Judges a token that was verified before. `slot` fetches the stored response into the CPU's cache meanwhile.
#[inline]
pub(crate) fn authorize(
    state: &State,
    peer: Peer,
    request: &ResourceRequest<'_>,
    slot: &CacheSlot<'_>,
    now_ms: i64,
    began: Instant,
) -> Option<Authorized> {
    let (_, token) = request
        .target
        .token
        .filter(|(place, _)| request.route.auth == Auth::Token && *place != TokenPlacement::Query)?;
    let verifier = state.guard.verifier.as_ref()?;
    let facts = facts(peer, request, request.target.query, now_ms.div_euclid(1000));
    let generation = verifier.revocations().generation();
    let verified = verifier.cached(token)?;
    slot.prefetch();
    let grant = verifier.authorize(verified, &facts).ok().filter(|grant| !grant.is_renewable())?;
    if !state.guard.control.has_lease(&grant, began) {
        return None;
    }
    let authorized = Authorized { grant: Some(grant), generation, cookie: None };
    if authorized.limits().any() && Playlist::of(request.target.path.as_str()).is_some() {
        return None;
    }
    Some(authorized)
}

/// Looks up a fresh response that is in memory as a whole.
#[inline]
pub(crate) fn look_up(
    state: &State,
    request: &ResourceRequest<'_>,
    head: &request::Parts,
    slot: CacheSlot<'_>,
    steady_ms: i64,
) -> Option<Arc<StoredResponse>> {
    let stored = state.fetcher.cache.get_in(slot, &request.key, &head.headers)?;
    // The first use of a prefetched response starts the prefetch of the next ones.
    let is_plain = stored.sliced().is_none() && !stored.awaits_first_use();
    (is_plain && stored.freshness.standing(steady_ms) == FreshnessState::Fresh).then_some(stored)
}

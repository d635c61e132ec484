//! The short way of most requests: a token that was verified before, a fresh response in memory. Nothing waits, so
//! there is no future to make and to move.
//!
//! It takes the steps of `serve.rs` through the same functions, and leaves to it whatever is not plain: then nothing was
//! counted or changed, and all is looked at again from the start.

use http::{Method, Response, Version};

use super::Inner;
use super::body::Body;
use super::config::Auth;
use super::decision::Decision;
use super::deliver::{deliver_lined, deliver_whole};
use super::locate::{Located, TokenPlacement, What};
use super::serve::{Record, check_framing, check_host, is_alone, key_of, wanted};
use lyceum_core::time::Instant;
use lyceum_http::freshness::Standing;
use lyceum_packaging::filter::{Limits, Playlist};
use lyceum_server::Peer;
use lyceum_token::{Facts, RequestUri};

impl Inner {
    /// The answer to a request that takes no waiting and no second thought, and those of its fields that are in lines;
    /// `None` for all others.
    pub(super) fn at_once(
        &self,
        peer: Peer,
        head: &http::request::Parts,
        began: Instant,
    ) -> Option<(Response<Body>, Option<Vec<u8>>)> {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return None;
        }

        // Lookup, begun: memory brings the slot and then the response, each while something else is looked at.
        let located = Located::find(&head.uri, &head.headers, &self.routes).ok()?;
        let What::Resource(route) = located.what else { return None };
        let key = key_of(route, &located, head);
        let slot = self.fetcher.cache.slot(&key);

        // Admit.
        let host = check_host(head).ok()?;
        check_framing(&head.headers).ok()?;

        // Authorize.
        let (_, token) =
            located.token.filter(|(place, _)| route.auth == Auth::Token && *place != TokenPlacement::Query)?;
        let verifier = self.guard.verifier.as_ref()?;
        let now_ms = self.clock.ticked_unix_millis();
        let facts = Facts {
            path: Some(located.path),
            uri: RequestUri { secure: peer.tls, host, query: located.query },
            client: Some(peer.address.ip()),
            now: now_ms.div_euclid(1000),
        };
        let seen = verifier.revocations().generation();
        let verified = verifier.cached(token)?;
        slot.prefetch();
        let grant = verifier.authorize(verified, &facts).ok().filter(|grant| !grant.is_renewable())?;
        if !self.guard.follow.has_lease(&grant, began) {
            return None;
        }
        let limits = Limits { max_height: grant.max_height(), preview_ms: grant.preview_ms() };
        if limits.any() && Playlist::of(located.path.as_str()).is_some() {
            return None;
        }

        // Lookup.
        let stored = self.fetcher.cache.get_in(slot, &key, &head.headers)?;
        let is_plain = stored.sliced().is_none() && !stored.awaits_first_use();
        if !is_plain || stored.freshness.standing(now_ms) != Standing::Fresh {
            return None;
        }

        // Deliver.
        let wanted = || wanted(route, &located, head, key.to_string());
        let terms = self.terms(head, route, &located, limits, now_ms, &wanted);
        let lined = if head.version == Version::HTTP_11 { deliver_lined(&terms, &stored) } else { None };
        let (response, lines) = match lined {
            Some((response, lines)) => (response, Some(lines)),
            None => (deliver_whole(&terms, &stored, Decision::HIT).ok()?, None),
        };

        // Record.
        self.listen_to_player(&located, &head.headers, began);
        let alone = is_alone(head.version);
        let record = Record { route: Some(route.index), grant: Some(grant), seen, cookie: None, alone };
        Some((self.recorded(record, response, Decision::HIT.outcome, None), lines))
    }
}

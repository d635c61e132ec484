//! Lookup: from a key to a response, in memory, in a fill under way, or from the origin.

use std::sync::Arc;

use http::header::{self, HeaderMap};

use super::fetcher::Fetcher;
use super::fill;
use super::key::FetchRequest;
use crate::cache_status::{CacheOutcome, CacheStatus, Forward};
use lyceum_cache::{FillOutcome, Lookup, ReadError, Reader, ResponseHead, StoredResponse};
use lyceum_http::cache_control::Directives;
use lyceum_http::fields;
use lyceum_http::freshness::{Freshness, FreshnessState};
use lyceum_upstream::FetchError;

/// A response to deliver, and what the cache had to do with it.
#[derive(Debug)]
pub(crate) enum Found {
    /// A stored one: whole in memory, or in slices.
    StoredResponse(Arc<StoredResponse>, CacheStatus),
    /// One on its way from the origin.
    Live {
        head: Arc<ResponseHead>,
        freshness: Option<Freshness>,
        reader: Reader<FetchError>,
        cache_status: CacheStatus,
    },
}

impl Found {
    /// Whether the segments after it should be prefetched: it had to be fetched, or was prefetched and is requested for
    /// the first time.
    pub(crate) fn starts_prefetch(&self) -> bool {
        match self {
            Self::StoredResponse(stored, cache_status) => {
                cache_status.outcome == CacheOutcome::Disk || stored.is_first_use()
            }
            Self::Live { cache_status, .. } => cache_status.outcome == CacheOutcome::Miss,
        }
    }

    /// The length in bytes; 0 if unknown.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::StoredResponse(stored, _) => stored.length(),
            Self::Live { head, .. } => head.length.unwrap_or(0),
        }
    }
}

/// Why nothing was found.
#[derive(Debug)]
pub(crate) enum NotFound {
    /// The fill failed.
    Failed(ReadError<FetchError>),
    /// `only-if-cached` (RFC 9111, section 5.2.1.7), and nothing usable is stored.
    OnlyIfCached,
}

/// Why the fill that this request waited for does not serve it.
enum Unusable {
    Error(ReadError<FetchError>),
    OtherVariant,
}

/// How often a request looks for its variant while other requests fetch theirs.
const MAX_VARIANT_LOOKUPS: usize = 3;

/// Finds a response; waits at most until it begins. `request` are the client's fields, `directives` its `Cache-Control`
/// where that counts, and `fetch_request` makes what is fetched if it has to be.
pub(crate) async fn find(
    fetcher: &Fetcher,
    fetch_request: impl Fn() -> FetchRequest,
    key: &str,
    request: &HeaderMap,
    directives: Option<&Directives>,
) -> Result<Found, NotFound> {
    let now = fetcher.clock.steady_millis();
    let usable = |stored: &StoredResponse| match directives {
        Some(directives) => stored.freshness.meets(directives, now),
        None => matches!(stored.freshness.standing(now), FreshnessState::Fresh | FreshnessState::StaleWhileRevalidate),
    };
    // Rare branches are boxed, here and below: they would enlarge the future of every request, which is moved.
    if let Some(directives) = directives.filter(|directives| directives.only_if_cached || directives.no_store) {
        return Box::pin(find_without_storing(fetcher, &fetch_request, key, request, directives, usable)).await;
    }
    for _ in 0..MAX_VARIANT_LOOKUPS {
        let (reader, cache_status) = match fetcher.cache.lookup(key, request, usable) {
            Lookup::Hit(stored) => return Ok(hit(fetcher, stored, now, key, request, &fetch_request)),
            Lookup::Join(reader) => (reader, CacheStatus::of(CacheOutcome::Collapsed)),
            Lookup::Pass => break,
            Lookup::Fill { writer, reader, stale, variant } => {
                let forward = match &stale {
                    Some(stored) if stored.freshness.standing(now) == FreshnessState::Fresh => Forward::Request,
                    Some(_) => Forward::Stale,
                    None if variant => Forward::VaryMiss,
                    None => Forward::UriMiss,
                };
                fill::start(fetcher, writer, fetch_request(), stale);
                (reader, CacheStatus::forwarded(CacheOutcome::Miss, forward))
            }
        };
        match Box::pin(wait_for_begin(reader, cache_status, request)).await {
            // It can't be shared: this request fetches its own.
            Err(Unusable::Error(ReadError::Unshared)) => break,
            // It is another variant: looked up again, now that it is known which request fields choose.
            Err(Unusable::OtherVariant | Unusable::Error(ReadError::Again)) => {}
            // Read from disk into memory, but not usable under this client's directives.
            Ok(Found::StoredResponse(stored, CacheStatus { outcome: CacheOutcome::Disk, .. })) if !usable(&stored) => {}
            Err(Unusable::Error(error)) => return Err(NotFound::Failed(error)),
            Ok(found) => return Ok(found),
        }
    }
    Box::pin(fetch_apart(fetcher, fetch_request(), Forward::UriMiss)).await
}

/// Requests with `only-if-cached` or `no-store` (RFC 9111, section 5.2.1).
async fn find_without_storing(
    fetcher: &Fetcher,
    fetch_request: &impl Fn() -> FetchRequest,
    key: &str,
    request: &HeaderMap,
    directives: &Directives,
    usable: impl Fn(&StoredResponse) -> bool,
) -> Result<Found, NotFound> {
    if let Some(stored) = fetcher.cache.get(key, request).filter(|stored| usable(stored)) {
        return Ok(Found::StoredResponse(stored, CacheStatus::HIT));
    }
    match fetcher.cache.load_from_disk(key, request).await.filter(|stored| usable(stored)) {
        Some(stored) => Ok(Found::StoredResponse(stored, CacheStatus::of(CacheOutcome::Disk))),
        None if directives.only_if_cached => Err(NotFound::OnlyIfCached),
        None => fetch_apart(fetcher, fetch_request(), Forward::Bypass).await,
    }
}

fn hit(
    fetcher: &Fetcher,
    stored: Arc<StoredResponse>,
    now: i64,
    key: &str,
    request: &HeaderMap,
    fetch_request: &impl Fn() -> FetchRequest,
) -> Found {
    match stored.freshness.standing(now) {
        FreshnessState::Fresh => Found::StoredResponse(stored, CacheStatus::HIT),
        FreshnessState::StaleWhileRevalidate => {
            if let Some(writer) = fetcher.cache.claim(key, request) {
                fill::start(fetcher, writer, fetch_request(), Some(Arc::clone(&stored)));
            }
            Found::StoredResponse(stored, CacheStatus::of(CacheOutcome::Stale))
        }
        // The client accepts stale responses (`max-stale`).
        FreshnessState::StaleIfError | FreshnessState::Stale => {
            Found::StoredResponse(stored, CacheStatus::of(CacheOutcome::Stale))
        }
    }
}

/// Fetches for one client only; nothing is shared or stored.
async fn fetch_apart(fetcher: &Fetcher, to_origin: FetchRequest, forward: Forward) -> Result<Found, NotFound> {
    let (writer, reader) = fetcher.cache.private_fill();
    fill::start(fetcher, writer, to_origin, None);
    match wait_for_begin(reader, CacheStatus::forwarded(CacheOutcome::Pass, forward), &HeaderMap::new()).await {
        Ok(found) => Ok(found),
        Err(Unusable::Error(error)) => Err(NotFound::Failed(error)),
        Err(Unusable::OtherVariant) => Err(NotFound::Failed(ReadError::Unshared)),
    }
}

/// Waits until a fill begins, and tells whether and how it serves this request.
async fn wait_for_begin(
    reader: Reader<FetchError>,
    cache_status: CacheStatus,
    request: &HeaderMap,
) -> Result<Found, Unusable> {
    let outcome = reader.outcome().await.map_err(Unusable::Error)?;
    if cache_status.outcome == CacheOutcome::Collapsed && !outcome.vary().matches(request) {
        return Err(Unusable::OtherVariant);
    }
    let cache_status = cache_status.after(&outcome);
    Ok(match outcome {
        FillOutcome::Storing { head, freshness } => {
            Found::Live { head, freshness: Some(freshness), reader, cache_status }
        }
        FillOutcome::Passing { head, .. } => Found::Live { head, freshness: None, reader, cache_status },
        FillOutcome::Sliced(stored)
        | FillOutcome::Revalidated(stored)
        | FillOutcome::FromDisk(stored)
        | FillOutcome::StaleOnError(stored) => Found::StoredResponse(stored, cache_status),
    })
}

/// The cache directives of a request; `Pragma: no-cache` counts without `Cache-Control` (RFC 9111, section 5.4).
pub(crate) fn request_directives(request: &HeaderMap) -> Directives {
    let mut directives = Directives::of(request);
    let mut pragma = fields::values(request, &header::PRAGMA).flat_map(fields::list);
    if !request.contains_key(header::CACHE_CONTROL) && pragma.any(|member| member.eq_ignore_ascii_case("no-cache")) {
        directives.no_cache = true;
    }
    directives
}

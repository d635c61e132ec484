//! From a key to a response: memory, a fill under way, or the origin. With `fill.rs` and `slices.rs` the only place
//! that sees cache and upstream.
//!
//! Fills are tasks of the edge's own: a client that leaves ends nothing that others read, and what can be stored is
//! brought to its end.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderValue};

use super::decision::{CacheOutcome, Decision, Forward};
use super::metrics::Metrics;
use super::route::Route;
use lyceum_cache::{Begun, Cache, Came, Lookup, ReadError, Reader, ResponseHead, Stored, Writer};
use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::Clock;
use lyceum_http::cache_control::Directives;
use lyceum_http::freshness::{Freshness, Standing};
use lyceum_upstream::FetchError;

/// What is wanted, as the cache and the origin see it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) route: Arc<Route>,
    pub(super) key: String,
    /// Path and query for the origin.
    pub(super) target: String,
    /// End-to-end fields for the origin.
    pub(super) headers: HeaderMap,
    /// Whether a client's `Authorization` is among them.
    pub(super) authorized: bool,
    /// The client's `Range`, where a part can be answered with.
    pub(super) range: Option<HeaderValue>,
    /// The client's `If-Range`.
    pub(super) if_range: Option<HeaderValue>,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// A whole response in memory, or one in slices.
    Stored(Arc<Stored>, Decision),
    /// One that is on its way.
    Live { head: Arc<ResponseHead>, freshness: Option<Freshness>, reader: Reader<FetchError>, decision: Decision },
}

impl Found {
    /// Whether what comes after it is likely to be wanted and not to be there: it had to be fetched, or was fetched ahead
    /// and is asked for the first time.
    pub(super) fn leads_on(&self) -> bool {
        match self {
            Self::Stored(stored, decision) => decision.outcome == CacheOutcome::Disk || stored.is_first_use(),
            Self::Live { decision, .. } => decision.outcome == CacheOutcome::Miss,
        }
    }

    /// The length in bytes, as far as it is known.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Stored(stored, _) => stored.length(),
            Self::Live { head, .. } => head.length.unwrap_or(0),
        }
    }
}

/// Why nothing was found.
#[derive(Debug)]
pub(super) enum NotFound {
    /// The fill came to nothing.
    Failed(ReadError<FetchError>),
    /// The client wants what is stored or nothing.
    OnlyIfCached,
}

/// Why what another's request brought does not serve this one.
enum Unfit {
    Error(ReadError<FetchError>),
    OtherVariant,
}

/// How often a request looks for its variant while others bring theirs.
const VARIANT_TRIES: usize = 3;

/// Fetches through the cache. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    pub(super) cache: Arc<Cache<FetchError>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) shutdown: Shutdown,
}

impl Fetcher {
    /// Finds what is wanted. Waits for no more than the response's beginning.
    pub(super) async fn find(
        &self,
        wanted: impl Fn() -> Wanted,
        key: &str,
        request: &HeaderMap,
        demands: Option<&Directives>,
    ) -> Result<Found, NotFound> {
        let now = self.clock.unix_millis();
        let usable = |stored: &Stored| match demands {
            Some(demands) => stored.freshness.meets(demands, now),
            None => matches!(stored.freshness.standing(now), Standing::Fresh | Standing::StaleWhileRevalidate),
        };
        // What seldom runs is boxed, here and below: it would make the future of every request larger, which is moved.
        if let Some(demands) = demands.filter(|demands| demands.only_if_cached || demands.no_store) {
            return Box::pin(self.alone(&wanted, key, request, demands, usable)).await;
        }
        for _ in 0..VARIANT_TRIES {
            let (reader, decision) = match self.cache.lookup(key, request, usable) {
                Lookup::Hit(stored) => return Ok(self.hit(stored, now, key, request, &wanted)),
                Lookup::Join(reader) => (reader, Decision::of(CacheOutcome::Collapsed)),
                Lookup::Fill { writer, reader, stale, variant } => {
                    let forward = match &stale {
                        Some(stored) if stored.freshness.standing(now) == Standing::Fresh => Forward::Request,
                        Some(_) => Forward::Stale,
                        None if variant => Forward::VaryMiss,
                        None => Forward::UriMiss,
                    };
                    self.spawn(writer, wanted(), stale);
                    (reader, Decision::forwarded(CacheOutcome::Miss, forward))
                }
            };
            match Box::pin(self.begun(reader, decision, request)).await {
                // What can't be shared is asked for once more in one's own name.
                Err(Unfit::Error(ReadError::Unshared)) => break,
                // What was chosen by other fields than this request's is looked up again, by now by those fields.
                Err(Unfit::OtherVariant | Unfit::Error(ReadError::Again)) => {}
                // What was found on disk lies in memory now, and is not what this client takes.
                Ok(Found::Stored(stored, Decision { outcome: CacheOutcome::Disk, .. })) if !usable(&stored) => {}
                Err(Unfit::Error(error)) => return Err(NotFound::Failed(error)),
                Ok(found) => return Ok(found),
            }
        }
        Box::pin(self.find_apart(wanted(), Forward::UriMiss)).await
    }

    /// Requests that may not fetch, or of which nothing may be stored (RFC 9111, section 5.2.1).
    async fn alone(
        &self,
        wanted: &impl Fn() -> Wanted,
        key: &str,
        request: &HeaderMap,
        demands: &Directives,
        usable: impl Fn(&Stored) -> bool,
    ) -> Result<Found, NotFound> {
        if let Some(stored) = self.cache.get(key, request).filter(|stored| usable(stored)) {
            return Ok(Found::Stored(stored, Decision::HIT));
        }
        match self.cache.load_from_disk(key, request).await.filter(|stored| usable(stored)) {
            Some(stored) => Ok(Found::Stored(stored, Decision::of(CacheOutcome::Disk))),
            None if demands.only_if_cached => Err(NotFound::OnlyIfCached),
            None => self.find_apart(wanted(), Forward::Bypass).await,
        }
    }

    fn hit(
        &self,
        stored: Arc<Stored>,
        now: i64,
        key: &str,
        request: &HeaderMap,
        wanted: &impl Fn() -> Wanted,
    ) -> Found {
        match stored.freshness.standing(now) {
            Standing::Fresh => Found::Stored(stored, Decision::HIT),
            Standing::StaleWhileRevalidate => {
                if let Some(writer) = self.cache.claim(key, request) {
                    self.spawn(writer, wanted(), Some(Arc::clone(&stored)));
                }
                Found::Stored(stored, Decision::of(CacheOutcome::Stale))
            }
            // The client said that it takes what is stale.
            Standing::StaleIfError | Standing::Stale => Found::Stored(stored, Decision::of(CacheOutcome::Stale)),
        }
    }

    /// Fetches for one client alone.
    async fn find_apart(&self, wanted: Wanted, forward: Forward) -> Result<Found, NotFound> {
        let (writer, reader) = self.cache.private_fill();
        self.spawn(writer, wanted, None);
        match self.begun(reader, Decision::forwarded(CacheOutcome::Pass, forward), &HeaderMap::new()).await {
            Ok(found) => Ok(found),
            Err(Unfit::Error(error)) => Err(NotFound::Failed(error)),
            Err(Unfit::OtherVariant) => Err(NotFound::Failed(ReadError::Unshared)),
        }
    }

    async fn begun(&self, reader: Reader<FetchError>, decision: Decision, request: &HeaderMap) -> Result<Found, Unfit> {
        let Begun { head, freshness, why, stored } = reader.begun().await.map_err(Unfit::Error)?;
        if decision.outcome == CacheOutcome::Collapsed && !head.vary.matches(request) {
            return Err(Unfit::OtherVariant);
        }
        if let Some((stored, came)) = stored {
            let outcome = match came {
                Came::Fetched => decision.outcome,
                Came::Recalled => CacheOutcome::Disk,
                Came::Renewed => CacheOutcome::Revalidated,
                Came::OnError => CacheOutcome::StaleOnError,
            };
            let forward = match (came, decision.forward) {
                // It was there after all, on disk or for the one who asked first.
                (Came::Renewed | Came::OnError, Forward::UriMiss | Forward::VaryMiss) => Forward::Stale,
                (_, forward) => forward,
            };
            return Ok(Found::Stored(stored, Decision { outcome, forward, why: None }));
        }
        let decision = match freshness {
            Some(_) => decision,
            None => Decision { outcome: CacheOutcome::Pass, why, ..decision },
        };
        Ok(Found::Live { head, freshness, reader, decision })
    }

    pub(super) fn spawn(&self, writer: Writer<FetchError>, wanted: Wanted, stale: Option<Arc<Stored>>) {
        let fetcher = self.clone();
        let guard = self.shutdown.guard();
        tokio::spawn(async move {
            fetcher.fill(writer, wanted, stale).await;
            drop(guard);
        });
    }
}

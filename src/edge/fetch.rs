//! From a key to a response: memory, a fill under way, or the origin. The only place that sees cache and upstream.
//!
//! Fills are tasks of the edge's own: a client that leaves ends nothing that others read, and what can be stored is
//! brought to its end.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::config;
use super::metrics::{CacheOutcome, Metrics};
use super::route::Route;
use crate::cache::{Begun, Cache, Head, Lookup, Plan, ReadError, Reader, Stored, Vary, Writer};
use crate::front::Shutdown;
use crate::semantics::cache_control::{CDN_CACHE_CONTROL, Directives};
use crate::semantics::conditional::ETag;
use crate::semantics::freshness::{Exchange, Freshness, NotStored, Standing};
use crate::semantics::fields;
use crate::time::Clock;
use crate::upstream::{Answer, FetchError, Outgoing, Pool, stable_hash};

/// How often a body that broke off is asked for from where it ended.
const RESUMES: usize = 3;

/// The most tags of one response.
const MAX_TAGS: usize = 64;

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
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// A whole response in memory.
    Stored(Arc<Stored>, CacheOutcome),
    /// One that is on its way.
    Live { head: Arc<Head>, freshness: Option<Freshness>, reader: Reader<FetchError>, outcome: CacheOutcome },
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
        if let Some(refused) = self.alone(&wanted, key, request, demands, usable).await {
            return refused;
        }
        for _ in 0..VARIANT_TRIES {
            let (reader, outcome) = match self.cache.lookup(key, request, usable) {
                Lookup::Hit(stored) => return Ok(self.hit(stored, now, key, request, &wanted)),
                Lookup::Join(reader) => (reader, CacheOutcome::Collapsed),
                Lookup::Fill { writer, reader, stale } => {
                    self.spawn(writer, wanted(), stale);
                    (reader, CacheOutcome::Miss)
                }
            };
            match self.begun(reader, outcome, request).await {
                // What can't be shared is asked for once more in one's own name.
                Err(Unfit::Error(ReadError::Unshared)) => break,
                // What was chosen by other fields than this request's is looked up again, by now by those fields.
                Err(Unfit::OtherVariant) => {}
                Err(Unfit::Error(error)) => return Err(NotFound::Failed(error)),
                Ok(found) => return Ok(found),
            }
        }
        self.find_apart(wanted()).await
    }

    /// Requests that may not fetch, or of which nothing may be stored (RFC 9111, section 5.2.1).
    async fn alone(
        &self,
        wanted: &impl Fn() -> Wanted,
        key: &str,
        request: &HeaderMap,
        demands: Option<&Directives>,
        usable: impl Fn(&Stored) -> bool,
    ) -> Option<Result<Found, NotFound>> {
        let demands = demands.filter(|demands| demands.only_if_cached || demands.no_store)?;
        match self.cache.get(key, request).filter(|stored| usable(stored)) {
            Some(stored) => Some(Ok(Found::Stored(stored, CacheOutcome::Hit))),
            None if demands.only_if_cached => Some(Err(NotFound::OnlyIfCached)),
            None => Some(self.find_apart(wanted()).await),
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
            Standing::Fresh => Found::Stored(stored, CacheOutcome::Hit),
            Standing::StaleWhileRevalidate => {
                if let Some(writer) = self.cache.claim(key, request) {
                    self.spawn(writer, wanted(), Some(Arc::clone(&stored)));
                }
                Found::Stored(stored, CacheOutcome::Stale)
            }
            // The client said that it takes what is stale.
            Standing::StaleIfError | Standing::Stale => Found::Stored(stored, CacheOutcome::Stale),
        }
    }

    /// Fetches for one client alone.
    async fn find_apart(&self, wanted: Wanted) -> Result<Found, NotFound> {
        let (writer, reader) = self.cache.apart();
        self.spawn(writer, wanted, None);
        match self.begun(reader, CacheOutcome::Pass, &HeaderMap::new()).await {
            Ok(found) => Ok(found),
            Err(Unfit::Error(error)) => Err(NotFound::Failed(error)),
            Err(Unfit::OtherVariant) => Err(NotFound::Failed(ReadError::Unshared)),
        }
    }

    async fn begun(
        &self,
        reader: Reader<FetchError>,
        outcome: CacheOutcome,
        request: &HeaderMap,
    ) -> Result<Found, Unfit> {
        let Begun { head, freshness, stored } = reader.begun().await.map_err(Unfit::Error)?;
        if outcome == CacheOutcome::Collapsed && !head.vary.matches(request) {
            return Err(Unfit::OtherVariant);
        }
        if let Some(stored) = stored {
            let fresh = stored.freshness.standing(self.clock.unix_millis()) == Standing::Fresh;
            let outcome = if fresh { CacheOutcome::Revalidated } else { CacheOutcome::StaleOnError };
            return Ok(Found::Stored(stored, outcome));
        }
        let outcome = if freshness.is_none() { CacheOutcome::Pass } else { outcome };
        Ok(Found::Live { head, freshness, reader, outcome })
    }

    fn spawn(&self, writer: Writer<FetchError>, wanted: Wanted, stale: Option<Arc<Stored>>) {
        let fetcher = self.clone();
        let guard = self.shutdown.guard();
        tokio::spawn(async move {
            fetcher.fill(writer, wanted, stale).await;
            drop(guard);
        });
    }

    /// Brings one response to its end.
    async fn fill(&self, writer: Writer<FetchError>, wanted: Wanted, stale: Option<Arc<Stored>>) {
        let requested_ms = self.clock.unix_millis();
        let outgoing = outgoing(&wanted, stale.as_deref());
        let outcome = wanted.route.pool.fetch(outgoing).await;
        let usable = stale.filter(|stored| {
            let failed = outcome.as_ref().map_or(true, |answer| answer.head.status.is_server_error());
            !failed || stored.freshness.usable_on_error(self.clock.unix_millis())
        });
        match (outcome, usable) {
            (Ok(answer), Some(stored)) if answer.head.status == StatusCode::NOT_MODIFIED => {
                self.renew(writer, &wanted, &stored, answer, requested_ms);
            }
            (Ok(answer), Some(stored)) if answer.head.status.is_server_error() => {
                tracing::debug!(origin = %answer.origin, status = %answer.head.status, "stale in place of an error");
                self.metrics.filled("stale_on_error");
                writer.answer(stored, false);
            }
            (Err(error), Some(stored)) => {
                tracing::debug!(%error, "stale in place of an error");
                self.metrics.filled("stale_on_error");
                writer.answer(stored, false);
            }
            (Err(error), None) => {
                tracing::warn!(%error, path = %wanted.key, "fetch failed");
                self.metrics.filled(error.failure.name());
                writer.fail(error);
            }
            (Ok(answer), _) => self.bring(writer, &wanted, answer, requested_ms).await,
        }
    }

    /// 304: the stored response takes over the new fields (RFC 9111, section 4.3.4).
    fn renew(&self, writer: Writer<FetchError>, wanted: &Wanted, stored: &Stored, answer: Answer, requested_ms: i64) {
        let mut headers = stored.headers.clone();
        for name in answer.head.headers.keys() {
            let framing = matches!(*name, header::CONTENT_LENGTH | header::CONTENT_ENCODING | header::CONTENT_TYPE | header::CONTENT_RANGE);
            if framing || fields::HOP_BY_HOP.contains(name) {
                continue;
            }
            headers.remove(name);
            for value in answer.head.headers.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        if !answer.head.headers.contains_key(header::DATE) {
            headers.remove(header::DATE);
            self.date(&mut headers);
        }
        match self.judge(wanted, stored.status, &headers, requested_ms) {
            Ok(freshness) => {
                self.metrics.filled("ok");
                clean(&mut headers, wanted);
                writer.answer(Arc::new(stored.with(headers, freshness)), true);
            }
            Err(reason) => {
                // It may be used for those who asked, and is not kept.
                self.metrics.filled("ok");
                self.metrics.not_stored(reason.name());
                let now = self.clock.unix_millis();
                let freshness = Freshness { life: 1, initial_age: 0, received_ms: now, ..stored.freshness.clone() };
                writer.answer(Arc::new(stored.with(headers, freshness)), false);
            }
        }
    }

    async fn bring(&self, mut writer: Writer<FetchError>, wanted: &Wanted, answer: Answer, requested_ms: i64) {
        let Answer { head, mut body, .. } = answer;
        let mut headers = head.headers;
        let judged = self.judge(wanted, head.status, &headers, requested_ms);
        let tags = tags(&headers);
        let length = fields::single(&headers, &header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        let validator = strong_etag(&headers);
        let vary = vary(&headers, wanted);
        clean(&mut headers, wanted);
        self.date(&mut headers);
        let plan = match &judged {
            Ok(freshness) => Plan::Store { freshness: freshness.clone(), tags },
            Err(_) => Plan::Pass,
        };
        let resumable = head.status == StatusCode::OK;
        writer.begin(Head { status: head.status, headers, length, vary }, plan);
        let (mut came, mut resumes) = (0_u64, 0_usize);
        loop {
            match body.next().await {
                Ok(Some(piece)) => {
                    came += piece.len() as u64;
                    if writer.push(piece).await.is_err() {
                        return self.metrics.filled("ok");
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let rest = match (&validator, length) {
                        (Some(etag), Some(length)) if resumable && came < length && resumes < RESUMES => {
                            resumes += 1;
                            tracing::debug!(%error, came, "going on from where the body broke off");
                            resume(&wanted.route.pool, wanted, etag, came, length).await
                        }
                        _ => None,
                    };
                    match rest {
                        Some(rest) => body = rest.body,
                        None => {
                            tracing::warn!(%error, path = %wanted.key, came, "the origin's answer broke off");
                            self.metrics.filled("broken_off");
                            return writer.fail(error);
                        }
                    }
                }
            }
        }
        let stored = writer.finish();
        if length.is_some_and(|length| length != came) {
            return self.metrics.filled("short");
        }
        self.metrics.filled("ok");
        match (stored, judged) {
            (Some(_), _) => {}
            (None, Err(reason)) => self.metrics.not_stored(reason.name()),
            (None, Ok(_)) => self.metrics.not_stored("too_large"),
        }
    }

    /// Every message that is kept says when it was made (RFC 9110, section 6.6.1).
    fn date(&self, headers: &mut HeaderMap) {
        if !headers.contains_key(header::DATE)
            && let Ok(date) = HeaderValue::try_from(fields::format_date(self.clock.system_time()))
        {
            headers.insert(header::DATE, date);
        }
    }

    fn judge(&self, wanted: &Wanted, status: StatusCode, headers: &HeaderMap, requested_ms: i64) -> Result<Freshness, NotStored> {
        Freshness::judge(&Exchange {
            method: &Method::GET,
            authorized: wanted.authorized,
            status,
            headers,
            requested_ms,
            received_ms: self.clock.unix_millis(),
            default_life: wanted.route.default_life,
        })
    }
}

fn outgoing(wanted: &Wanted, stale: Option<&Stored>) -> Outgoing {
    let mut headers = wanted.headers.clone();
    if let Some(stored) = stale {
        let validators = [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)];
        for (validator, condition) in validators {
            if let Some(value) = stored.headers.get(&validator) {
                headers.insert(condition, value.clone());
            }
        }
    }
    Outgoing {
        method: Method::GET,
        target: wanted.target.clone(),
        headers,
        body: None,
        affinity: stable_hash(wanted.key.as_bytes()),
    }
}

/// The rest of a body from another origin (or the same), only if it is the same representation (RFC 9110, section
/// 13.1.1, 14.2).
async fn resume(pool: &Pool, wanted: &Wanted, etag: &HeaderValue, from: u64, length: u64) -> Option<Answer> {
    let mut outgoing = outgoing(wanted, None);
    outgoing.headers.insert(header::RANGE, HeaderValue::try_from(format!("bytes={from}-")).ok()?);
    outgoing.headers.insert(header::IF_MATCH, etag.clone());
    let answer = pool.fetch(outgoing).await.ok()?;
    let expected = format!("bytes {from}-{}/{length}", length.checked_sub(1)?);
    let range = fields::single(&answer.head.headers, &header::CONTENT_RANGE);
    let same = answer.head.status == StatusCode::PARTIAL_CONTENT
        && range == Some(expected.as_str())
        && answer.head.headers.get(header::ETAG) == Some(etag);
    same.then_some(answer)
}

fn strong_etag(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(header::ETAG)?;
    ETag::parse(value.to_str().ok()?).filter(|etag| !etag.weak)?;
    Some(value.clone())
}

/// The fields that `Vary` names, with the values that the origin saw.
fn vary(response: &HeaderMap, wanted: &Wanted) -> Vary {
    let is_media = wanted.route.auth != config::Auth::None;
    let names = fields::values(response, &header::VARY)
        .flat_map(fields::list)
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        // Media is asked for without the client's fields, so nothing can choose.
        .filter(|name| !is_media && *name != header::ACCEPT_ENCODING);
    Vary::of(names, &wanted.headers)
}

/// `Surrogate-Key` is split at spaces, `Cache-Tag` at commas.
fn tags(headers: &HeaderMap) -> Vec<Box<str>> {
    let spaced = headers.get_all("surrogate-key").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(' '));
    let listed = headers.get_all("cache-tag").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    spaced.chain(listed).map(str::trim).filter(|tag| !tag.is_empty()).take(MAX_TAGS).map(Into::into).collect()
}

/// Takes away what is the origin's and the connection's own.
fn clean(headers: &mut HeaderMap, wanted: &Wanted) {
    fields::strip_hop_by_hop(headers);
    // The age is told anew with each answer; the targeted field and the tags were meant for the edge.
    for name in [header::AGE, CDN_CACHE_CONTROL] {
        headers.remove(name);
    }
    for name in ["surrogate-key", "surrogate-control", "cache-tag", "cache-status"] {
        headers.remove(name);
    }
    if wanted.route.auth == config::Auth::Token {
        headers.remove(header::SET_COOKIE);
        headers.remove(header::VARY);
        let cors: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
        cors.iter().for_each(|name| drop(headers.remove(name)));
    }
}

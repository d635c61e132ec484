//! Keeps keys, revocations and stream leases fresh from what the origins say.
//!
//! Keys: each source's last good document is kept, and a key that is not known is looked for boundedly. Revocations
//! and purges: a long poll to every origin, so that the loss of one is not noticed. Leases: one a session, renewed
//! while it plays.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as AsyncMutex;

use super::StartError;
use super::config::{self, WhenUnreachable};
use super::metrics::Metrics;
use lyceum_cache::{Cache, Purge, PurgeTarget};
use lyceum_client::{self as client, Http};
use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::{Clock, Instant, monotonic};
use lyceum_core::units::{ByteSize, Span};
use lyceum_token::{CLOCK_SKEW_SECONDS, Denied, Grant, IssuerIndex, KeyError, KeySet, Trust, Verifier};
use lyceum_upstream::FetchError;

/// How long an origin may hold a question for news.
const WAIT: &str = "25s";
/// How long a refused lease is remembered.
const REFUSED_FOR: Duration = Duration::from_secs(2);
/// How long a request waits for a look for its key, or for its lease.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the edge follows.
#[derive(Debug)]
pub(super) struct Follow {
    verifier: Option<Arc<Verifier>>,
    issuers: Vec<Sources>,
    refresh: Duration,
    refetch: Duration,
    http: Http,
    poll: Http,
    control: Option<Control>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// The key documents of one issuer.
#[derive(Debug)]
struct Sources {
    places: Vec<Place>,
    /// The last good document of each place.
    documents: Mutex<Vec<Option<Document>>>,
    /// When the issuer's documents were last looked at; held while they are.
    looked: AsyncMutex<Option<Instant>>,
}

/// A key document's bytes, and how far it is trusted.
type Document = (Vec<u8>, Trust);

#[derive(Debug)]
enum Place {
    Url(String),
    File(PathBuf, Trust),
}

#[derive(Debug)]
struct Control {
    config: config::Control,
    leases: RwLock<HashMap<Box<str>, Lease>>,
    /// Sessions whose lease is being asked for.
    asking: Mutex<HashMap<Box<str>, Arc<AsyncMutex<()>>>>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    verdict: Result<(), Denied>,
    /// From when on it is renewed beside.
    renew: Instant,
    until: Instant,
}

impl Place {
    fn new(text: &str, hs256: bool) -> Result<Self, StartError> {
        let is_url = text.contains("://");
        if !is_url {
            let trust = if hs256 { Trust::Symmetric } else { Trust::Public };
            return Ok(Self::File(PathBuf::from(text), trust));
        }
        let wrong = |what: &str| StartError::Keys(format!("tokens.issuers: \"{text}\": {what}"));
        let url = url::Url::parse(text).map_err(|e| wrong(&e.to_string()))?;
        let loopback = match url.host() {
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        match url.scheme() {
            "https" => Ok(Self::Url(text.to_owned())),
            "http" if loopback => Ok(Self::Url(text.to_owned())),
            _ => Err(wrong("keys come over https, or over http from loopback alone")),
        }
    }
}

impl Follow {
    pub(super) fn new(
        config: &config::Config,
        verifier: Option<Arc<Verifier>>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let issuers = config.tokens.iter().flat_map(|tokens| &tokens.issuers);
        let issuers = issuers
            .map(|issuer| {
                let places =
                    issuer.jwks.iter().map(|text| Place::new(text, issuer.hs256)).collect::<Result<Vec<_>, _>>()?;
                let documents = Mutex::new(places.iter().map(|_| None).collect());
                Ok(Sources { places, documents, looked: AsyncMutex::new(None) })
            })
            .collect::<Result<Vec<_>, StartError>>()?;
        let quick = client::Limits {
            connect: Span::secs(2),
            response: Span::secs(5),
            body: Span::secs(5),
            body_bytes: ByteSize::mib(4),
            ..client::Limits::default()
        };
        let patient = client::Limits { response: Span::secs(35), ..quick.clone() };
        let (refresh, refetch) =
            config.tokens.as_ref().map_or((Duration::MAX, Duration::MAX), |t| (t.refresh.get(), t.refetch.get()));
        let control = config.control.clone().map(|config| Control {
            config,
            leases: RwLock::default(),
            asking: Mutex::default(),
        });
        let follow = Self {
            verifier,
            issuers,
            refresh,
            refetch,
            http: Http::new(quick),
            poll: Http::new(patient),
            control,
            clock,
            metrics,
        };
        follow.read_files()?;
        follow.restore();
        Ok(follow)
    }

    /// Files have to be good at the start: nobody else would mend them.
    fn read_files(&self) -> Result<(), StartError> {
        for (index, sources) in self.issuers.iter().enumerate() {
            for (at, place) in sources.places.iter().enumerate() {
                if let Place::File(path, trust) = place {
                    let read = read_key_file(path).and_then(|bytes| KeySet::parse(&bytes, *trust).map(|_| bytes));
                    let bytes =
                        read.map_err(|e| StartError::Keys(format!("tokens.issuers: {}: {e}", path.display())))?;
                    sources.keep(at, bytes, *trust);
                }
            }
            self.rebuild(index);
        }
        Ok(())
    }

    /// Why tokens can't be judged yet, if they can't.
    pub(super) fn ready(&self) -> Result<(), String> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        match verifier.issuers().iter().find(|issuer| issuer.key_count() == 0) {
            Some(issuer) => Err(format!("no key of the issuer \"{}\" has been fetched yet", issuer.name())),
            None => Ok(()),
        }
    }

    /// Looks for a key that is not known; says whether it is worth asking for it again.
    pub(super) async fn look_for_key(&self, want: IssuerIndex) -> bool {
        let asked = monotonic();
        tokio::time::timeout(PATIENCE, self.look(want.issuer(), asked, self.refetch)).await.unwrap_or(false)
    }

    /// Fetches an issuer's documents unless that was done since `asked`, or less than `apart` ago.
    async fn look(&self, index: usize, asked: Instant, apart: Duration) -> bool {
        let Some(sources) = self.issuers.get(index) else { return false };
        let mut looked = sources.looked.lock().await;
        match *looked {
            Some(at) if at >= asked => return true,
            Some(at) if at.elapsed() < apart => return false,
            _ => {}
        }
        for (at, place) in sources.places.iter().enumerate() {
            let (read, trust) = match place {
                Place::Url(url) => (self.fetch_keys(url).await, Trust::Public),
                Place::File(path, trust) => (read_key_file(path).map_err(|e| e.to_string()), *trust),
            };
            let good = read.and_then(|bytes| KeySet::parse(&bytes, trust).map(|_| bytes).map_err(|e| e.to_string()));
            match good {
                Ok(bytes) => {
                    self.metrics.refreshes.with_label_values(&["keys", "ok"]).inc();
                    sources.keep(at, bytes, trust);
                }
                Err(cause) => {
                    self.metrics.refreshes.with_label_values(&["keys", "failed"]).inc();
                    tracing::warn!(?place, cause, "keys not refreshed, the last good ones stay");
                }
            }
        }
        self.rebuild(index);
        *looked = Some(monotonic());
        true
    }

    async fn fetch_keys(&self, url: &str) -> Result<Vec<u8>, String> {
        let request = client::request(Method::GET, url, "").map_err(|e| e.to_string())?;
        let response = self.http.send_ok(request).await.map_err(|e| e.to_string())?;
        self.http.bytes(response).await.map(|bytes| bytes.to_vec()).map_err(|e| e.to_string())
    }

    /// Puts the kept documents of an issuer in force.
    fn rebuild(&self, index: usize) {
        let (Some(sources), Some(verifier)) = (self.issuers.get(index), &self.verifier) else { return };
        let Some(issuer) = verifier.issuers().get(index) else { return };
        let documents = sources.documents.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all = KeySet::default();
        let mut any = false;
        for (bytes, trust) in documents.iter().flatten() {
            match KeySet::parse(bytes, *trust).and_then(|set| all.join(set)) {
                Ok(()) => any = true,
                Err(error) => tracing::error!(issuer = issuer.name(), %error, "a key document was left out"),
            }
        }
        if any {
            issuer.replace(all);
        }
    }

    /// Keeps all of it fresh until the end.
    pub(super) async fn run(self: Arc<Self>, cache: Arc<Cache<FetchError>>, shutdown: Shutdown) {
        let keys = (0..self.issuers.len()).map(|index| self.refresh_keys(index));
        let origins = self.control.iter().flat_map(|control| &control.config.origins);
        let feeds = origins.map(|origin| self.follow_feed(origin, &cache));
        tokio::select! {
            () = shutdown.draining() => {}
            _ = futures_util::future::join(
                futures_util::future::join_all(keys),
                futures_util::future::join_all(feeds),
            ) => {}
        }
    }

    /// Looks at every key document once, at an operator's word.
    pub(super) async fn look_again(self: Arc<Self>, shutdown: Shutdown) {
        let looks = (0..self.issuers.len()).map(|index| self.look(index, monotonic(), Duration::ZERO));
        tokio::select! {
            () = shutdown.draining() => {}
            _ = futures_util::future::join_all(looks) => {}
        }
    }

    async fn refresh_keys(&self, index: usize) {
        loop {
            self.look(index, monotonic(), Duration::ZERO).await;
            let has_keys = || self.verifier.as_ref()?.issuers().get(index).map(|issuer| issuer.key_count() > 0);
            let pause =
                if has_keys() == Some(true) { self.refresh } else { Duration::from_millis(500).min(self.refresh) };
            tokio::time::sleep(pause).await;
        }
    }

    /// One origin's feed of revocations and purges, by long poll.
    async fn follow_feed(&self, origin: &str, cache: &Arc<Cache<FetchError>>) {
        let Some(control) = &self.control else { return };
        let mut after = 0_i64;
        loop {
            let url = format!("{}/v1/revocations?after={after}&wait={WAIT}", origin.trim_end_matches('/'));
            let asked = monotonic();
            match self.poll.json::<Told>(Method::GET, &url, &control.config.bearer, None::<&()>).await {
                Ok(told) => {
                    let told = told.unwrap_or_default();
                    self.metrics.refreshes.with_label_values(&["feed", "ok"]).inc();
                    let news = !told.events.is_empty();
                    let purges = self.apply(told.events);
                    if !purges.is_empty() {
                        purge(purges, Arc::clone(cache), self.clock.unix_millis()).await;
                    }
                    if news {
                        self.persist().await;
                    }
                    let stood_still = told.next == after && asked.elapsed() < Duration::from_millis(100);
                    after = told.next;
                    if stood_still {
                        // An origin that answers at once with nothing would be asked without end.
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                }
                Err(error) => {
                    self.metrics.refreshes.with_label_values(&["feed", "failed"]).inc();
                    tracing::debug!(origin, %error, "the feed of revocations can't be had");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    /// Ends sessions; the purges are left to the caller.
    fn apply(&self, events: Vec<Told1>) -> Vec<Purge> {
        let now = self.clock.unix_seconds();
        let (mut ended, mut purges) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                Told1::Session { session, until } => ended.push((session, until)),
                Told1::Purge { purge } => purges.extend(purge.purges()),
            }
        }
        if let (Some(verifier), false) = (&self.verifier, ended.is_empty()) {
            if let Some(control) = &self.control {
                let mut leases = control.leases.write().unwrap_or_else(PoisonError::into_inner);
                leases.retain(|held, _| !ended.iter().any(|(session, _)| **session == **held));
            }
            if let Some(longest) = verifier.max_renewal_seconds() {
                // The origin counts from its own tokens; a renewed one may be about for longer.
                let last = now.saturating_add(longest).saturating_add(CLOCK_SKEW_SECONDS);
                ended.iter_mut().for_each(|(_, until)| *until = last.max(*until));
            }
            let forgotten = verifier.revocations().add(ended, now);
            if forgotten > 0 {
                tracing::error!(forgotten, "more sessions are revoked than tokens.revocations holds");
            }
        }
        purges
    }

    /// Writes the revocations beside the state file and renames.
    async fn persist(&self) {
        let Some(path) = self.control.as_ref().and_then(|control| control.config.state.clone()) else { return };
        let Some(verifier) = &self.verifier else { return };
        let kept = Kept { sessions: verifier.revocations().snapshot() };
        let written = tokio::task::spawn_blocking(move || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let staging = path.with_extension("part");
            std::fs::write(&staging, serde_json::to_vec(&kept)?)?;
            std::fs::rename(&staging, &path)
        });
        if let Ok(Err(cause)) = written.await {
            tracing::warn!(%cause, "control.state can't be written: revocations are held in memory alone");
        }
    }

    /// Takes up the revocations seen before a restart.
    fn restore(&self) {
        let Some(path) = self.control.as_ref().and_then(|control| control.config.state.as_ref()) else { return };
        let Some(verifier) = &self.verifier else { return };
        match std::fs::read(path).map(|bytes| serde_json::from_slice::<Kept>(&bytes)) {
            Ok(Ok(kept)) => drop(verifier.revocations().add(kept.sessions, self.clock.unix_seconds())),
            Ok(Err(error)) => tracing::warn!(path = %path.display(), %error, "control.state is not readable"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "control.state is not readable"),
        }
    }

    /// Whether the grant's session is known to stream by right at `now`, with nothing to be asked or renewed.
    pub(super) fn has_lease(&self, grant: &Grant, now: Instant) -> bool {
        let (Some(control), Some(session)) = (&self.control, grant.session()) else { return true };
        if grant.skips_other_checks_at(now) {
            return true;
        }
        let known = control.leases.read().unwrap_or_else(PoisonError::into_inner).get(session).copied();
        let good = known.filter(|lease| now < lease.renew && lease.verdict.is_ok());
        if let Some(lease) = &good {
            grant.skip_other_checks_until(lease.renew);
        }
        good.is_some()
    }

    /// Sees that the grant's session may stream.
    pub(super) async fn lease(self: &Arc<Self>, grant: &Grant) -> Result<(), Denied> {
        let (Some(control), Some(session)) = (&self.control, grant.session()) else { return Ok(()) };
        let now = monotonic();
        let known = control.leases.read().unwrap_or_else(PoisonError::into_inner).get(session).copied();
        match known {
            Some(lease) if now < lease.renew => lease.verdict,
            Some(lease) if now < lease.until => {
                // Still good: one of those who ask renews it beside.
                if let Some(place) = control.ask_alone(session) {
                    let (follow, session) = (Arc::clone(self), session.to_owned());
                    tokio::spawn(async move {
                        let _alone = place.lock().await;
                        let _ = follow.ask_for_lease(&session).await;
                    });
                }
                lease.verdict
            }
            _ => tokio::time::timeout(PATIENCE, Box::pin(self.first_lease(control, session)))
                .await
                .unwrap_or_else(|_| self.unreachable()),
        }
    }

    async fn first_lease(&self, control: &Control, session: &str) -> Result<(), Denied> {
        let place = control.ask_together(session);
        let _turn = place.lock().await;
        let now = monotonic();
        let known = control.leases.read().unwrap_or_else(PoisonError::into_inner).get(session).copied();
        match known {
            Some(lease) if now < lease.until => lease.verdict,
            _ => self.ask_for_lease(session).await,
        }
    }

    fn unreachable(&self) -> Result<(), Denied> {
        match self.control.as_ref().map(|control| control.config.when_unreachable) {
            Some(WhenUnreachable::Refuse) => Err(Denied::TooManyStreams),
            _ => Ok(()),
        }
    }

    /// Asks the origins in turn; the first that answers decides.
    async fn ask_for_lease(&self, session: &str) -> Result<(), Denied> {
        let Some(control) = &self.control else { return Ok(()) };
        let mut verdict = None;
        for origin in &control.config.origins {
            let url = format!("{}/v1/sessions/{}/lease", origin.trim_end_matches('/'), percent(session));
            let answer =
                self.http.json::<serde_json::Value>(Method::POST, &url, &control.config.bearer, None::<&()>).await;
            verdict = match answer {
                Ok(_) => Some(Ok(())),
                Err(error) => match refused(&error) {
                    Some(verdict) => Some(verdict),
                    None => {
                        tracing::debug!(origin, %error, "no stream lease can be had here");
                        None
                    }
                },
            };
            if verdict.is_some() {
                break;
            }
        }
        let result = if verdict.is_some() { "ok" } else { "failed" };
        self.metrics.refreshes.with_label_values(&["lease", result]).inc();
        let now = monotonic();
        let span = control.config.lease.get();
        let lease = match verdict {
            Some(Ok(())) => Lease { verdict: Ok(()), renew: now + span / 2, until: now + span },
            Some(Err(denied)) => Lease { verdict: Err(denied), renew: now + REFUSED_FOR, until: now + REFUSED_FOR },
            None => {
                let known = control.leases.read().unwrap_or_else(PoisonError::into_inner).get(session).copied();
                // A session that plays goes on playing while the origins are away.
                let playing = known.is_some_and(|lease| lease.verdict.is_ok());
                let verdict = if playing { Ok(()) } else { self.unreachable() };
                Lease { verdict, renew: now + REFUSED_FOR, until: now + if playing { span } else { REFUSED_FOR } }
            }
        };
        control.keep(session, lease, now);
        lease.verdict
    }
}

impl Sources {
    fn keep(&self, at: usize, bytes: Vec<u8>, trust: Trust) {
        if let Some(slot) = self.documents.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at) {
            *slot = Some((bytes, trust));
        }
    }
}

impl Control {
    /// The turn of those who ask for a session's lease.
    fn ask_together(&self, session: &str) -> Arc<AsyncMutex<()>> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.retain(|_, place| Arc::strong_count(place) > 1);
        Arc::clone(asking.entry(session.into()).or_default())
    }

    /// The same, unless someone asks already.
    fn ask_alone(&self, session: &str) -> Option<Arc<AsyncMutex<()>>> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.retain(|_, place| Arc::strong_count(place) > 1);
        if asking.contains_key(session) {
            return None;
        }
        Some(Arc::clone(asking.entry(session.into()).or_default()))
    }

    fn keep(&self, session: &str, lease: Lease, now: Instant) {
        let most = usize::try_from(self.config.sessions).unwrap_or(usize::MAX);
        let mut leases = self.leases.write().unwrap_or_else(PoisonError::into_inner);
        if leases.len() >= most {
            leases.retain(|_, lease| lease.until > now);
        }
        if leases.len() < most {
            leases.insert(session.into(), lease);
        }
    }
}

/// What an origin's refusal of a lease means. A session that it does not know is another issuer's: it is not the
/// origin's to limit, and its signature was good.
fn refused(error: &client::Error) -> Option<Result<(), Denied>> {
    let client::Error::Status { status, problem, .. } = error else { return None };
    match status.as_u16() {
        409 if problem.code == "session_revoked" => Some(Err(Denied::Revoked)),
        409 => Some(Err(Denied::TooManyStreams)),
        400 | 404 => Some(Ok(())),
        _ => None,
    }
}

/// Looks through the whole cache and has files to remove: no work for a thread that serves.
async fn purge(purges: Vec<Purge>, cache: Arc<Cache<FetchError>>, now_ms: i64) {
    let done = tokio::task::spawn_blocking(move || {
        for purge in purges {
            let count = cache.purge(&purge, now_ms);
            tracing::info!(?purge, count, "purged");
        }
    });
    if done.await.is_err() {
        tracing::error!("a purge broke off");
    }
}

fn read_key_file(path: &std::path::Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(path).map_err(|e| KeyError::Malformed(format!("it can't be read: {e}")))
}

fn percent(text: &str) -> percent_encoding::PercentEncode<'_> {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
}

#[derive(Debug, Default, Deserialize)]
struct Told {
    next: i64,
    events: Vec<Told1>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Told1 {
    Session { session: String, until: i64 },
    Purge { purge: PurgeOrder },
}

/// A purge as operators and origins order it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PurgeOrder {
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    tag: Option<String>,
    #[serde(default)]
    soft: bool,
}

impl PurgeOrder {
    /// Whether just one thing is named.
    pub(super) fn is_one(&self) -> bool {
        [&self.url, &self.prefix, &self.tag].iter().filter(|name| name.is_some()).count() == 1
    }

    /// The purges of keys that it comes to: a URL is a path with any query and host.
    pub(super) fn purges(&self) -> Vec<Purge> {
        let path = |text: &str| match text.split_once("://") {
            Some((_, rest)) => rest.find('/').and_then(|slash| rest.get(slash..)).unwrap_or("/").to_owned(),
            None => text.to_owned(),
        };
        let mut targets = Vec::new();
        targets.extend(self.url.as_deref().map(|url| PurgeTarget::Path(path(url).into())));
        targets.extend(self.prefix.as_deref().map(|prefix| PurgeTarget::Prefix(path(prefix).into())));
        targets.extend(self.tag.as_deref().map(|tag| PurgeTarget::Tag(tag.into())));
        targets.into_iter().map(|target| Purge { target, soft: self.soft }).collect()
    }
}

/// What is kept over a restart.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    sessions: Vec<(String, i64)>,
}

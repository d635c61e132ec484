//! Verification keys: read from files, fetched from URLs (JWK Sets, RFC 7517), and refreshed.
//!
//! The last good document of each source stays in force. A token whose key is unknown triggers a refresh of its
//! issuer, at most once in `tokens.refetch`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use tokio::sync::Mutex as AsyncMutex;

use crate::config;
use crate::error::StartError;
use crate::metrics::counters::Metrics;
use lyceum_client::{self as client, Http};
use lyceum_core::time::{Instant, monotonic};
use lyceum_token::{IssuerIndex, KeyError, KeySet, Trust, Verifier};

/// How soon an issuer without any key is asked again, unless `tokens.refresh` is less.
const RETRY_WITHOUT_KEYS: Duration = Duration::from_millis(500);

/// The keys of all issuers.
#[derive(Debug)]
pub(super) struct Keys {
    verifier: Option<Arc<Verifier>>,
    issuers: Vec<IssuerKeys>,
    refresh: Duration,
    refetch: Duration,
    http: Http,
    metrics: Arc<Metrics>,
}

/// The key documents of one issuer.
#[derive(Debug)]
struct IssuerKeys {
    sources: Vec<KeySource>,
    /// The last good document of each source.
    documents: Mutex<Vec<Option<Document>>>,
    /// When the issuer's sources were last read; locked while they are.
    refreshed: AsyncMutex<Option<Instant>>,
}

/// A key document's bytes, and which kinds of key are taken from it.
type Document = (Vec<u8>, Trust);

/// Where a key document comes from.
#[derive(Debug)]
pub(crate) enum KeySource {
    Url(String),
    File(PathBuf, Trust),
}

impl KeySource {
    /// A source as `jwks` names it: a URL, or a file that may hold shared secrets with `hs256`.
    pub(crate) fn new(text: &str, hs256: bool) -> Result<Self, StartError> {
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
            _ => Err(wrong("keys are fetched over https, or over http from loopback only")),
        }
    }
}

impl Keys {
    /// Reads the key files; one that can't be read or parsed is an error.
    pub(super) fn new(
        config: Option<&config::Tokens>,
        verifier: Option<Arc<Verifier>>,
        http: Http,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let issuers = config
            .iter()
            .flat_map(|tokens| &tokens.issuers)
            .map(|issuer| {
                let sources =
                    issuer.jwks.iter().map(|text| KeySource::new(text, issuer.hs256)).collect::<Result<Vec<_>, _>>()?;
                let documents = Mutex::new(sources.iter().map(|_| None).collect());
                Ok(IssuerKeys { sources, documents, refreshed: AsyncMutex::new(None) })
            })
            .collect::<Result<Vec<_>, StartError>>()?;
        let (refresh, refetch) =
            config.map_or((Duration::MAX, Duration::MAX), |tokens| (tokens.refresh.get(), tokens.refetch.get()));
        let keys = Self { verifier, issuers, refresh, refetch, http, metrics };
        keys.read_files()?;
        Ok(keys)
    }

    /// A bad file fails the start: unlike a URL, it does not mend itself.
    fn read_files(&self) -> Result<(), StartError> {
        for (index, issuer) in self.issuers.iter().enumerate() {
            for (at, source) in issuer.sources.iter().enumerate() {
                if let KeySource::File(path, trust) = source {
                    let read = read_key_file(path).and_then(|bytes| KeySet::parse(&bytes, *trust).map(|_| bytes));
                    let bytes =
                        read.map_err(|e| StartError::Keys(format!("tokens.issuers: {}: {e}", path.display())))?;
                    issuer.keep(at, bytes, *trust);
                }
            }
            self.publish(index);
        }
        Ok(())
    }

    /// Why tokens can't be verified yet, if they can't.
    pub(super) fn ready(&self) -> Result<(), String> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        match verifier.issuers().iter().find(|issuer| issuer.key_count() == 0) {
            Some(issuer) => Err(format!("no key of the issuer \"{}\" has been fetched yet", issuer.name())),
            None => Ok(()),
        }
    }

    /// Refreshes the issuer of an unknown key; whether the key may be known now.
    pub(super) async fn look_for(&self, want: IssuerIndex) -> bool {
        self.refresh(want.issuer(), monotonic(), self.refetch).await
    }

    /// Refreshes every issuer once.
    pub(super) async fn refresh_all(&self) {
        join_all((0..self.issuers.len()).map(|index| self.refresh(index, monotonic(), Duration::ZERO))).await;
    }

    /// Refreshes every issuer at its interval, without end.
    pub(super) async fn keep_fresh(&self) {
        join_all((0..self.issuers.len()).map(|index| self.keep_issuer_fresh(index))).await;
    }

    async fn keep_issuer_fresh(&self, index: usize) {
        loop {
            self.refresh(index, monotonic(), Duration::ZERO).await;
            let has_keys = || self.verifier.as_ref()?.issuers().get(index).map(|issuer| issuer.key_count() > 0);
            let pause = if has_keys() == Some(true) { self.refresh } else { RETRY_WITHOUT_KEYS.min(self.refresh) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads an issuer's sources, unless that was done since `asked`, or less than `min_interval` ago. Whether they were
    /// read since `asked`.
    async fn refresh(&self, index: usize, asked: Instant, min_interval: Duration) -> bool {
        let Some(issuer) = self.issuers.get(index) else { return false };
        let mut refreshed = issuer.refreshed.lock().await;
        match *refreshed {
            Some(at) if at >= asked => return true,
            Some(at) if at.elapsed() < min_interval => return false,
            _ => {}
        }
        for (at, source) in issuer.sources.iter().enumerate() {
            let (read, trust) = match source {
                KeySource::Url(url) => (self.fetch(url).await, Trust::Public),
                KeySource::File(path, trust) => (read_key_file(path).map_err(|e| e.to_string()), *trust),
            };
            let good = read.and_then(|bytes| KeySet::parse(&bytes, trust).map(|_| bytes).map_err(|e| e.to_string()));
            match good {
                Ok(bytes) => {
                    self.metrics.refreshes.with_label_values(&["keys", "ok"]).inc();
                    issuer.keep(at, bytes, trust);
                }
                Err(cause) => {
                    self.metrics.refreshes.with_label_values(&["keys", "failed"]).inc();
                    tracing::warn!(?source, cause, "keys not refreshed: the last good ones stay in force");
                }
            }
        }
        self.publish(index);
        *refreshed = Some(monotonic());
        true
    }

    async fn fetch(&self, url: &str) -> Result<Vec<u8>, String> {
        let request = client::request(Method::GET, url, "").map_err(|e| e.to_string())?;
        let response = self.http.send_ok(request).await.map_err(|e| e.to_string())?;
        self.http.bytes(response).await.map(|bytes| bytes.to_vec()).map_err(|e| e.to_string())
    }

    /// Puts the kept documents of an issuer in force.
    fn publish(&self, index: usize) {
        let (Some(keys), Some(verifier)) = (self.issuers.get(index), &self.verifier) else { return };
        let Some(issuer) = verifier.issuers().get(index) else { return };
        let documents = keys.documents.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
}

impl IssuerKeys {
    fn keep(&self, at: usize, bytes: Vec<u8>, trust: Trust) {
        if let Some(slot) = self.documents.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at) {
            *slot = Some((bytes, trust));
        }
    }
}

fn read_key_file(path: &Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(path).map_err(|e| KeyError::Malformed(format!("it can't be read: {e}")))
}

//! An edge in this process, its metrics, and content that can be verified at any offset.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::{Clock, monotonic};
use lyceum_edge::{Config, Edge, Parts};
use lyceum_server::Server;
use lyceum_token::{Claims, Signer};

/// What stops a run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WorldError(String);

impl WorldError {
    /// With a sentence for people.
    pub fn new(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}

/// A client that keeps its connections.
pub type Http = Client<HttpConnector, Empty<Bytes>>;

/// A client of HTTP/1.1, or of HTTP/2 without TLS, on connections of its own.
pub fn client(http2: bool) -> Http {
    let mut connector = HttpConnector::new();
    // Small frames shall not wait for the other side's acknowledgements.
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).http2_only(http2).build(connector)
}

/// A GET or HEAD.
pub fn request(method: Method, url: &str, fields: &[(&str, String)]) -> Result<Request<Empty<Bytes>>, WorldError> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in fields {
        request = request.header(*name, value);
    }
    request.body(Empty::new()).map_err(WorldError::new)
}

/// Asks, with a limit for the answer's head.
pub async fn ask(
    http: &Http,
    request: Request<Empty<Bytes>>,
    limit: Duration,
) -> Result<Response<Incoming>, WorldError> {
    match tokio::time::timeout(limit, http.request(request)).await {
        Ok(answer) => answer.map_err(WorldError::new),
        Err(_) => Err(WorldError::new("no answer in time")),
    }
}

/// The edge and what it needs.
#[derive(Debug)]
pub struct World {
    /// Where it listens.
    pub url: String,
    /// A token for everything below `/v/a/`.
    pub token: String,
    /// Its directory: the disk tier, and keys.
    pub directory: tempfile::TempDir,
    registry: prometheus::Registry,
    shutdown: Shutdown,
}

impl World {
    /// Starts an edge before `origins`, with tokens on `/v/`; `more` is TOML, in which `{dir}` is its directory.
    pub async fn start(origins: &[String], pool: &str, more: &str) -> Result<Self, WorldError> {
        let directory = tempfile::tempdir().map_err(WorldError::new)?;
        let signer = Signer::open(&directory.path().join("keys"), "lyceum", "lyceum-edge").map_err(WorldError::new)?;
        std::fs::write(directory.path().join("jwks.json"), signer.jwks().to_string()).map_err(WorldError::new)?;
        let origins: Vec<String> = origins.iter().map(|url| format!("{{ url = \"{url}\" }}")).collect();
        let toml = format!(
            "listen = [{{ address = \"127.0.0.1:0\" }}]\n[tokens]\naudience = \"lyceum-edge\"\n\
             issuers = [{{ name = \"lyceum\", jwks = [\"{{dir}}/jwks.json\"] }}]\n{more}\n\
             [[pool]]\nname = \"origin\"\norigins = [{}]\n{pool}\n[[route]]\nprefix = \"/v/\"\npool = \"origin\"\nauth = \"token\"\n",
            origins.join(", ")
        )
        .replace("{dir}", &directory.path().display().to_string());
        let config: Config =
            lyceum_core::config::parse(&toml, Path::new("edge.toml"), &|_| None).map_err(WorldError::new)?;
        let (shutdown, registry, clock) = (Shutdown::new(), prometheus::Registry::new(), Clock::system());
        let server = Server::bind(&config.listen, &config.limits, &registry).map_err(WorldError::new)?;
        let url = server.urls().into_iter().next().ok_or_else(|| WorldError::new("the edge has no listener"))?;
        let now = clock.unix_seconds();
        let parts = Parts { clock, registry: registry.clone(), shutdown: shutdown.clone() };
        let edge = Edge::start(config, parts).await.map_err(WorldError::new)?;
        tokio::spawn(server.serve(edge, shutdown.clone()));
        let claims = Claims {
            sub: "load".into(),
            exp: now + 86_400,
            jti: Some("load".into()),
            paths: vec!["/v/a/".into()],
            ..Claims::default()
        };
        let token = signer.sign(&claims).map_err(WorldError::new)?;
        Ok(Self { url, token, directory, registry, shutdown })
    }

    /// The URL of a path below `/v/a/`, its token in it.
    pub fn media(&self, name: &str) -> String {
        format!("{}/t/{}/v/a/{name}", self.url, self.token)
    }

    /// The sum of a metric's samples whose line contains all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = lyceum_core::telemetry::render(&self.registry);
        let text = String::from_utf8_lossy(&text);
        let fits = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        };
        text.lines().filter(fits).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// A metric's samples by a label.
    pub fn by_label(&self, name: &str, label: &str) -> Vec<(String, f64)> {
        let text = lyceum_core::telemetry::render(&self.registry);
        let text = String::from_utf8_lossy(&text);
        let mut found = std::collections::BTreeMap::<String, f64>::new();
        for line in text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))) {
            let key = line.split(&format!("{label}=\"")).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("");
            let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
            *found.entry(key.to_owned()).or_default() += value;
        }
        found.into_iter().collect()
    }

    /// Waits until `condition` holds; whether it did within `limit`.
    pub async fn until(&self, limit: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        let start = monotonic();
        while start.elapsed() < limit {
            if condition(self) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        condition(self)
    }

    /// Ends the edge; whether all of its work ended within `limit`.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.shutdown.begin();
        self.shutdown.drained(limit).await
    }
}

/// Bytes that can be told at any place: no two names or versions have a stretch in common.
#[derive(Clone, Copy, Debug)]
pub struct Content(u64);

impl Content {
    /// The content of a version of a name.
    pub fn of(name: &str, version: u64) -> Self {
        let seed = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(mix(seed ^ version.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// `length` bytes from `first` on.
    pub fn bytes(self, first: u64, length: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        let (mut at, end) = (first, first.saturating_add(length));
        while at < end {
            let word = mix(self.0 ^ (at / 8)).to_le_bytes();
            let (skip, take) = ((at % 8) as usize, (8 - at % 8).min(end - at));
            bytes.extend(word.iter().skip(skip).take(take as usize));
            at += take;
        }
        bytes
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Numbers by chance, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice of a seed and a place in a row of such.
    pub fn new(seed: u64, place: u64) -> Self {
        Self(mix(seed ^ mix(place.wrapping_add(1))))
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0).checked_rem(end).unwrap_or(0)
    }

    /// A number from 0 to 1.
    pub fn share(&mut self) -> f64 {
        self.below(1 << 53) as f64 / (1_u64 << 53) as f64
    }

    /// Whether something of so many percent happens.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A field as text; empty where it is missing.
pub fn field<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// Resident memory of this process, in bytes.
pub fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Shared by reference count.
pub type Shared = Arc<World>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_the_same_from_any_place() {
        let content = Content::of("a", 1);
        let whole = content.bytes(0, 1000);
        for (first, length) in [(0, 1), (3, 10), (8, 8), (999, 1), (5, 995)] {
            assert_eq!(content.bytes(first, length), whole[first as usize..(first + length) as usize]);
        }
        assert_ne!(Content::of("a", 2).bytes(0, 1000), whole);
        assert_ne!(Content::of("b", 1).bytes(0, 1000), whole);
    }
}

//! `origin.toml`.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::{Deserialize, Deserializer};

use lyceum_admin as admin;
use lyceum_core::config::Fault;
use lyceum_core::units::{self, ByteSize, Span};
use lyceum_packaging::Ladder;
use lyceum_server as server;
use lyceum_storage::db;
use lyceum_storage::queue;
use lyceum_storage::store;
use lyceum_storage::upload;

use crate::readiness;

/// The configuration of an origin.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients and workers reach this origin, without a trailing slash.
    #[serde(deserialize_with = "base_url")]
    pub public_url: String,
    /// Where playback URLs begin: one edge or several, which sessions are spread over. From 1 to 64.
    #[serde(deserialize_with = "edges")]
    pub edges: Vec<String>,
    /// The catalogue and the queue.
    pub database: db::Url,
    /// Connections to the database.
    #[serde(default)]
    pub database_pool: db::PoolConfig,
    /// An API key of role admin. Without one, one is made at the first start and printed once.
    #[serde(default, deserialize_with = "secret_option")]
    pub admin_key: Option<Secret>,
    /// The bearer token that edges must send on `/v/`, the revocation feed and stream leases.
    #[serde(deserialize_with = "secret")]
    pub edge_bearer: Secret,
    /// The object store.
    pub store: store::Config,
    /// How tokens are signed.
    pub tokens: Tokens,
    /// How many streams a viewer may watch at once.
    #[serde(default)]
    pub streams: Streams,
    /// Transcoding processes that the origin starts.
    #[serde(default)]
    pub workers: Workers,
    /// The renditions and segments that recordings are made into.
    #[serde(default)]
    pub ladder: Ladder,
    /// Uploads.
    #[serde(default)]
    pub uploads: upload::Config,
    /// What recordings may be.
    #[serde(default)]
    pub recordings: Recordings,
    /// The queue.
    #[serde(default)]
    pub queue: queue::Config,
    /// Encryption of lessons.
    #[serde(default)]
    pub encryption: Encryption,
    /// The API.
    #[serde(default)]
    pub api: Api,
    /// What `/readyz` goes by.
    #[serde(default)]
    pub readiness: readiness::Config,
    /// The operators' listener.
    #[serde(default)]
    pub admin: Option<admin::Config>,
    /// The listeners.
    #[serde(default)]
    pub listen: Vec<server::Listen>,
    /// Which sites' pages may use the API, with an API key.
    #[serde(default)]
    pub cors: Cors,
    /// Limits for each peer.
    #[serde(default)]
    pub limits: server::Limits,
}

/// The configuration in force; a reload replaces it.
pub(crate) type Live = Arc<ArcSwap<Config>>;

/// Keys of `origin.toml` that a reload does not change: what they configure is opened or started once.
pub const FIXED: [&str; 10] = [
    "admin",
    "admin_key",
    "database",
    "database_pool",
    "encryption",
    "limits",
    "listen",
    "store",
    "uploads",
    "workers",
];

impl Config {
    /// Where the sealing keys are.
    pub(super) fn sealing_keys(&self) -> PathBuf {
        self.encryption.sealing_keys.clone().unwrap_or_else(|| self.tokens.keys.join("sealing"))
    }

    /// Finds what no single key can tell: whether the values fit together; each fault with its key.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (key, text) in [("issuer", &self.tokens.issuer), ("audience", &self.tokens.audience)] {
            if text.is_empty() {
                faults.push(Fault::at(&format!("tokens.{key}"), "it can't be empty"));
            }
        }
        if self.listen.is_empty() {
            faults.push(Fault::at("listen", "there is no [[listen]]: add one with an address"));
        }
        faults.extend(self.listen.iter().enumerate().filter_map(|(n, listen)| listen.fault(&format!("listen[{n}]"))));
        faults.extend(self.admin.as_ref().and_then(|admin| admin.fault("admin")));
        if self.queue.backoff > self.queue.backoff_most {
            faults.push(Fault::at("queue.backoff", "it is longer than `queue.backoff_most`"));
        }
        if let store::Config::S3(s3) = &self.store {
            faults.extend(s3.faults("store.s3"));
        }
        faults
    }
}

/// A secret; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for comparing and hashing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    let text = String::deserialize(from)?;
    if !(16..=512).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(serde::de::Error::custom("a secret has 16 to 512 printable characters without spaces"));
    }
    Ok(Secret(text))
}

fn secret_option<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    secret(from).map(Some)
}

fn check_url(text: String) -> Result<String, String> {
    let url = url::Url::parse(&text).map_err(|error| format!("\"{text}\" is no URL: {error}"))?;
    let plain = matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
    if !plain || url.host().is_none() {
        return Err(format!("\"{text}\" should be such as \"https://courses.example.com\""));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn base_url<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    check_url(String::deserialize(from)?).map_err(serde::de::Error::custom)
}

fn edges<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let edges = Vec::<String>::deserialize(from)?;
    if !(1..=64).contains(&edges.len()) {
        return Err(serde::de::Error::custom("name 1 to 64 edges"));
    }
    edges.into_iter().map(|edge| check_url(edge).map_err(serde::de::Error::custom)).collect()
}

/// `tokens = { … }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// The directory of the signing keys; the first one is made when there is none.
    pub keys: PathBuf,
    /// The `iss` of tokens. Default "lyceum".
    #[serde(default = "default_issuer")]
    pub issuer: String,
    /// The `aud` of tokens. Default "lyceum-edge".
    #[serde(default = "default_audience")]
    pub audience: String,
    /// How long a token lives at least; it outlives its lesson in any case. From 1m to 30d, default 12h.
    #[serde(default = "default_ttl", deserialize_with = "units::span::<_, 60_000, 2_592_000_000>")]
    pub ttl: Span,
    /// How long a new key is published before it signs, so that edges know it by then. From 0s to 1d, default 2m.
    #[serde(default = "default_announce", deserialize_with = "units::span::<_, 0, 86_400_000>")]
    pub announce: Span,
}

fn default_announce() -> Span {
    Span::secs(120)
}

fn default_issuer() -> String {
    "lyceum".to_owned()
}
fn default_audience() -> String {
    "lyceum-edge".to_owned()
}
fn default_ttl() -> Span {
    Span::secs(12 * 3600)
}

/// What happens to a viewer's next stream when the limit is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// It is refused.
    #[default]
    Refuse,
    /// It ends the oldest one.
    EndOldest,
}

/// `streams = { … }`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Streams {
    /// Streams that a viewer may watch at once. From 1 to 1,000, default 3.
    #[serde(deserialize_with = "units::number::<_, 1, 1000>")]
    pub limit: u64,
    /// "refuse" or "end-oldest". Default "refuse".
    pub when_full: WhenFull,
    /// How long an edge's lease for a stream lasts without being renewed. From 5s to 10m, default 45s.
    #[serde(deserialize_with = "units::span::<_, 5_000, 600_000>")]
    pub lease: Span,
}

impl Default for Streams {
    fn default() -> Self {
        Self { limit: 3, when_full: WhenFull::Refuse, lease: Span::secs(45) }
    }
}

/// `workers = { … }`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workers {
    /// How many `lyceum-transcoder worker` processes run beside the origin. From 0 to 64, default 0.
    #[serde(deserialize_with = "units::number::<_, 0, 64>")]
    pub count: u64,
}

/// `encryption = { … }`: HLS `AES-128`, whose keys players get with the token alone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Encryption {
    /// Whether lessons are encrypted whose course says nothing of it. Default false.
    pub default: bool,
    /// The directory of the keys that seal lessons' keys in the database: `<name>.key`, 64 hexadecimal digits each, the
    /// last by name in force; the first is made when there is none. Origins over one database need the same ones.
    /// Default `sealing` in the directory of `tokens.keys`.
    pub sealing_keys: Option<PathBuf>,
}

/// `[recordings]`: the origin's own limits, whatever a worker reports.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recordings {
    /// The longest recording that becomes a lesson; workers have a limit of their own, `limits.duration`. From 1m to 7d,
    /// default 24h.
    #[serde(deserialize_with = "units::span::<_, 60_000, 604_800_000>")]
    pub duration: Span,
}

impl Default for Recordings {
    fn default() -> Self {
        Self { duration: Span::secs(24 * 3600) }
    }
}

/// `[api]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// The largest JSON body. From 1KiB to 16MiB, default 256KiB; what a worker reports may have sixteen times that.
    #[serde(deserialize_with = "units::size::<_, 1024, 16_777_216>")]
    pub body: ByteSize,
    /// The most rows of a list's page. From 1 to 1,000, default 100.
    #[serde(deserialize_with = "units::number::<_, 1, 1000>")]
    pub page: u64,
    /// How long a page's login lasts. From 5m to 90d, default 7d.
    #[serde(deserialize_with = "units::span::<_, 300_000, 7_776_000_000>")]
    pub login: Span,
    /// Event streams open at once; as many long polls of workers, and as many of edges, may be open beside them.
    /// From 1 to 100,000, default 2,000.
    #[serde(deserialize_with = "units::number::<_, 1, 100_000>")]
    pub waiting: u64,
    /// Wrong keys that an address (IPv6: a /64 network) may log in with in a minute before it has to wait, and twenty times
    /// as many in requests of other kinds; keys that an origin made can't be guessed and are not counted. From 1 to
    /// 10,000, default 20.
    #[serde(deserialize_with = "units::number::<_, 1, 10_000>")]
    pub attempts: u64,
    /// Secrets that a key may have at once. From 2 to 100, default 10.
    #[serde(deserialize_with = "units::number::<_, 2, 100>")]
    pub secrets: u64,
    /// Event streams open at once of one API key. From 1 to 100,000, default 500.
    #[serde(deserialize_with = "units::number::<_, 1, 100_000>")]
    pub waiting_per_key: u64,
    /// How often a waiting request polls for what another origin did. From 50ms to 10s, default 400ms.
    #[serde(deserialize_with = "units::span::<_, 50, 10_000>")]
    pub look: Span,
    /// The largest object that a worker may hand over. From 1MiB to 256MiB, default 128MiB.
    #[serde(deserialize_with = "units::size::<_, 1_048_576, 268_435_456>")]
    pub object: ByteSize,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            body: ByteSize::kib(256),
            page: 100,
            login: Span::secs(7 * 24 * 3600),
            waiting: 2_000,
            attempts: 20,
            secrets: 10,
            waiting_per_key: 500,
            look: Span::millis(400),
            object: ByteSize::mib(128),
        }
    }
}

/// `[cors]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cors {
    /// Origins whose pages may read answers, or "*". They need a key: cookies are never taken from other sites.
    /// Default "*".
    pub origins: Vec<String>,
}

impl Default for Cors {
    fn default() -> Self {
        Self { origins: vec!["*".to_owned()] }
    }
}

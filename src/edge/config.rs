//! `edge.toml`: the edge's own sections, and those of the crates that it is made of.

use std::path::PathBuf;

use serde::Deserialize;

use lyceum_admin as admin;
use lyceum_cache as cache;
use lyceum_core::units::{self, ByteSize, Span};
use lyceum_server as server;
use lyceum_token::extract::TokenNames;
use lyceum_upstream as upstream;

/// The whole of `edge.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The admin listener; without it there are no metrics.
    #[serde(default)]
    pub admin: Option<admin::Config>,
    /// Where clients connect.
    pub listen: Vec<server::Listen>,
    /// The cache in memory and on disk.
    #[serde(default)]
    pub cache: cache::Config,
    /// Which tokens are accepted; needed by routes with `auth = "token"`.
    #[serde(default)]
    pub tokens: Option<Tokens>,
    /// Prefetching of segments.
    #[serde(default)]
    pub ahead: Ahead,
    /// Revocations, purges and stream leases from the origins.
    #[serde(default)]
    pub control: Option<Control>,
    /// Pages (web origins) that may read responses.
    #[serde(default)]
    pub cors: Cors,
    /// Pools of origins.
    #[serde(default)]
    pub pool: Vec<upstream::PoolConfig>,
    /// Which paths are served from which pool.
    #[serde(default)]
    pub route: Vec<Route>,
    /// Playback metrics from CMCD reports.
    #[serde(default)]
    pub playback: Playback,
    /// Limits on clients and connections.
    #[serde(default)]
    pub limits: server::Limits,
}

/// `[ahead]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ahead {
    /// Segments that are fetched after a requested one. 0 to 100; 0 turns prefetching off.
    #[serde(deserialize_with = "units::number::<_, 0, 100>")]
    pub segments: u64,
    /// Prefetched bytes that may wait to be requested. 0B to 1TiB.
    #[serde(deserialize_with = "units::size::<_, 0, 1_099_511_627_776>")]
    pub bytes: ByteSize,
    /// Requests in flight to the pool from which on nothing is prefetched. 1 to 100,000.
    #[serde(deserialize_with = "units::number::<_, 1, 100_000>")]
    pub busy: u64,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { segments: 2, bytes: ByteSize::mib(64), busy: 16 }
    }
}

/// `[tokens]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// The audience that a token's `aud` has to name.
    pub audience: String,
    /// Issuers whose tokens are accepted.
    pub issuers: Vec<Issuer>,
    /// How often key documents are fetched from their URLs again. 1s to 24h; default 1m.
    #[serde(default = "defaults::refresh", deserialize_with = "units::span::<_, 1_000, 86_400_000>")]
    pub refresh: Span,
    /// The least time between two fetches for an unknown key. 100ms to 1h; default 2s.
    #[serde(default = "defaults::refetch", deserialize_with = "units::span::<_, 100, 3_600_000>")]
    pub refetch: Span,
    /// Verified tokens that are cached, so that their signature is not verified again. 0 to 10,000,000; default 100,000 (about 1 KiB each).
    #[serde(default = "defaults::remembered", deserialize_with = "units::number::<_, 0, 10_000_000>")]
    pub remembered: u64,
    /// Revoked sessions that are held. 1 to 10,000,000; default 100,000.
    #[serde(default = "defaults::revocations", deserialize_with = "units::number::<_, 1, 10_000_000>")]
    pub revocations: u64,
    /// Another name for the query parameter `token` and the cookie `lyceum_token`, which are read beside it: the URI Signing
    /// Package Attribute (RFC 9246, section 2), whose own default is `URISigningPackage`. 1 to 64 letters, digits, `-` and
    /// `_`; default none.
    #[serde(default)]
    pub attribute: TokenNames,
    /// What renews tokens with `cdnistt` 1 (RFC 9246, section 3); without it they are refused.
    #[serde(default)]
    pub renewal: Option<Renewal>,
    /// JWK files of type `oct` (16 or 32 bytes) that open an encrypted `cdniip` (`alg` `dir`, AES-GCM).
    #[serde(default)]
    pub claim_keys: Vec<PathBuf>,
}

/// `tokens.renewal`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// The key that signs renewed tokens, `<kid>.pem` as `lyceum keys new` makes it; the same on all edges.
    pub key: PathBuf,
    /// The `iss` of renewed tokens: a name that no other issuer has.
    pub issuer: String,
    /// The longest life of a renewed token, whatever it asks for; revoked sessions are held for at least as long. 1s to
    /// 24h; default 1h.
    #[serde(default = "defaults::longest", deserialize_with = "units::span::<_, 1_000, 86_400_000>")]
    pub longest: Span,
}

/// An issuer of tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Its `iss`.
    pub name: String,
    /// Its keys: URLs (https, or http on loopback) or files, each a JWK or a JWK Set; all of them together.
    pub jwks: Vec<String>,
    /// Whether its files may hold shared secrets (HS256).
    #[serde(default)]
    pub hs256: bool,
}

/// `[control]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Origins to follow. The feed is read from all of them; a lease is asked of the first that answers.
    pub origins: Vec<String>,
    /// The bearer token that authenticates this edge to them.
    pub bearer: String,
    /// The file that keeps the revocations over a restart while all origins are unreachable.
    #[serde(default)]
    pub state: Option<PathBuf>,
    /// Whether new sessions may play while no origin answers requests for leases.
    #[serde(default)]
    pub when_unreachable: WhenUnreachable,
    /// How long a stream lease is valid. 1s to 1h; default 20s.
    #[serde(default = "defaults::lease", deserialize_with = "units::span::<_, 1_000, 3_600_000>")]
    pub lease: Span,
    /// Sessions whose leases are kept. 1 to 10,000,000; default 100,000.
    #[serde(default = "defaults::revocations", deserialize_with = "units::number::<_, 1, 10_000_000>")]
    pub sessions: u64,
}

/// Whether new sessions may play while no origin answers requests for leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenUnreachable {
    /// They play.
    #[default]
    Allow,
    /// They don't.
    Refuse,
}

/// `[cors]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cors {
    /// Origins of pages (`https://shop.example`), or `*` for all.
    pub origins: Vec<String>,
    /// How long a browser may remember a preflight. 0s to 24h.
    #[serde(deserialize_with = "units::span::<_, 0, 86_400_000>")]
    pub max_age: Span,
}

impl Default for Cors {
    fn default() -> Self {
        Self { origins: Vec::new(), max_age: Span::secs(7200) }
    }
}

/// `[[route]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A path prefix of whole segments; the longest one that matches decides.
    pub prefix: String,
    /// The name of the pool that is asked.
    pub pool: String,
    /// What a client has to show.
    pub auth: Auth,
    /// With `auth = "bearer"`: what clients show as `Authorization: Bearer`.
    #[serde(default)]
    pub bearer: Option<String>,
    /// Query parameters that are part of the key and go upstream; `*` for all but `CMCD`, which the edge takes for its metrics. Default none with `token`, else all.
    #[serde(default)]
    pub cache_key_query: Option<Vec<String>>,
    /// Whether the host is part of the key. Default no with `token`, else yes.
    #[serde(default)]
    pub cache_key_host: Option<bool>,
    /// The freshness lifetime of responses without an explicit one. Default: they are not stored.
    #[serde(default)]
    pub default_freshness: Option<Span>,
    /// The same for 404, 405, 410, 414 and 501 (negative caching). Default: as for other responses.
    #[serde(default)]
    pub error_freshness: Option<Span>,
}

/// What a client has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// A signed token.
    Token,
    /// The route's bearer.
    Bearer,
    /// Nothing.
    None,
}

/// `[playback]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Playback {
    /// Playback sessions that are tracked at once. 1 to 10,000,000.
    #[serde(deserialize_with = "units::number::<_, 1, 10_000_000>")]
    pub sessions: u64,
    /// How long a session counts as playing after its last report. 1s to 1h.
    #[serde(deserialize_with = "units::span::<_, 1_000, 3_600_000>")]
    pub idle: Span,
    /// The largest body of event reports. 1KiB to 1MiB.
    #[serde(deserialize_with = "units::size::<_, 1_024, 1_048_576>")]
    pub report: ByteSize,
}

impl Default for Playback {
    fn default() -> Self {
        Self { sessions: 100_000, idle: Span::secs(60), report: ByteSize::kib(64) }
    }
}

mod defaults {
    use lyceum_core::units::Span;

    pub(crate) fn refresh() -> Span {
        Span::secs(60)
    }
    pub(crate) fn refetch() -> Span {
        Span::secs(2)
    }
    pub(crate) fn longest() -> Span {
        Span::secs(3600)
    }
    pub(crate) fn remembered() -> u64 {
        100_000
    }
    pub(crate) fn revocations() -> u64 {
        100_000
    }
    pub(crate) fn lease() -> Span {
        Span::secs(20)
    }
}

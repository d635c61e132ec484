//! `edge.toml`: the edge's own parts, and those of the modules that it is made of.

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
    /// The operators' listener; without it there are no metrics.
    #[serde(default)]
    pub admin: Option<admin::Config>,
    /// Where clients connect.
    pub listen: Vec<server::Listen>,
    /// What is kept.
    #[serde(default)]
    pub cache: cache::Config,
    /// Who may sign; needed by routes with `auth = "token"`.
    #[serde(default)]
    pub tokens: Option<Tokens>,
    /// What is fetched before players ask for it.
    #[serde(default)]
    pub ahead: Ahead,
    /// What the edge follows at the origins.
    #[serde(default)]
    pub control: Option<Control>,
    /// Pages that may use what is served.
    #[serde(default)]
    pub cors: Cors,
    /// Origins.
    #[serde(default)]
    pub pool: Vec<upstream::PoolConfig>,
    /// What is served from where.
    #[serde(default)]
    pub route: Vec<Route>,
    /// What players say of their playback.
    #[serde(default)]
    pub playback: Playback,
    /// What a client may cost.
    #[serde(default)]
    pub limits: server::Limits,
}

/// `[ahead]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ahead {
    /// Segments that are fetched after the one that was asked for. 0 to 100; 0 turns it off.
    #[serde(deserialize_with = "units::number::<_, 0, 100>")]
    pub segments: u64,
    /// How much may wait to be asked for. 0B to 1TiB.
    #[serde(deserialize_with = "units::size::<_, 0, 1_099_511_627_776>")]
    pub bytes: ByteSize,
    /// Requests under way to the pool from which on nothing is fetched ahead. 1 to 100,000.
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
    /// What a token's `aud` has to name.
    pub audience: String,
    /// Who signs.
    pub issuers: Vec<Issuer>,
    /// How often key documents at URLs are fetched anew. 1s to 24h; default 1m.
    #[serde(default = "defaults::refresh", deserialize_with = "units::span::<_, 1_000, 86_400_000>")]
    pub refresh: Span,
    /// The least time between two fetches for a key that is not known. 100ms to 1h; default 2s.
    #[serde(default = "defaults::refetch", deserialize_with = "units::span::<_, 100, 3_600_000>")]
    pub refetch: Span,
    /// Tokens whose signature is remembered. 0 to 10,000,000; default 100,000 (about 1 KiB each).
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

/// One who signs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// What `iss` says.
    pub name: String,
    /// Its keys: URLs (https, or http on loopback) or files, each a JWK or a JWK Set; all of them together.
    pub jwks: Vec<String>,
    /// Whether shared secrets (HS256) are taken from its files.
    #[serde(default)]
    pub hs256: bool,
}

/// `[control]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Origins to follow; the first that answers.
    pub origins: Vec<String>,
    /// What they are shown.
    pub bearer: String,
    /// Where the last revocations seen are kept, for a restart while all origins are away.
    #[serde(default)]
    pub state: Option<PathBuf>,
    /// New sessions, while stream leases can't be had.
    #[serde(default)]
    pub when_unreachable: WhenUnreachable,
    /// For how long a stream lease is taken to hold. 1s to 1h; default 20s.
    #[serde(default = "defaults::lease", deserialize_with = "units::span::<_, 1_000, 3_600_000>")]
    pub lease: Span,
    /// Sessions whose leases are kept. 1 to 10,000,000; default 100,000.
    #[serde(default = "defaults::revocations", deserialize_with = "units::number::<_, 1, 10_000_000>")]
    pub sessions: u64,
}

/// What becomes of new sessions while stream leases can't be had.
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
    /// Paths that begin so, whole segments compared; the longest prefix that matches counts.
    pub prefix: String,
    /// The pool that is asked.
    pub pool: String,
    /// What a client has to show.
    pub auth: Auth,
    /// With `auth = "bearer"`: what clients show as `Authorization: Bearer`.
    #[serde(default)]
    pub bearer: Option<String>,
    /// Query parameters that are part of the key and go upstream; `*` for all. Default none with `token`, else all.
    #[serde(default)]
    pub cache_key_query: Option<Vec<String>>,
    /// Whether the host is part of the key. Default no with `token`, else yes.
    #[serde(default)]
    pub cache_key_host: Option<bool>,
    /// For how long a response without explicit freshness is fresh. Default: it is not stored.
    #[serde(default)]
    pub default_freshness: Option<Span>,
    /// The same for 404, 405, 410, 414 and 501, where these shall live longer or shorter (negative caching).
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
    /// Playback sessions that are followed at once. 1 to 10,000,000.
    #[serde(deserialize_with = "units::number::<_, 1, 10_000_000>")]
    pub sessions: u64,
    /// How long a session counts as playing after its last word. 1s to 1h.
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

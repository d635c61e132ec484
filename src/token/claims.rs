//! The claims of a token: written by a signer, read strictly by the verifier.

use serde_json::{Map, Value};

use crate::denied::Denied;
use crate::jwe::EncryptedClaim;
use crate::uri_container::UriContainer;
use lyceum_http::ip_network::Network;

/// The most path prefixes in one token.
const MAX_PATHS: usize = 64;

/// The claims of a token to be signed; the signer adds `iss` and `aud`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// When the token expires, in seconds since the Unix epoch.
    pub exp: i64,
    /// Before when the token is not valid, in seconds since the Unix epoch.
    pub nbf: Option<i64>,
    /// When the token was issued, in seconds since the Unix epoch.
    pub iat: Option<i64>,
    /// The session, which a revocation names.
    pub jti: Option<String>,
    /// The allowed path prefixes, each ending in `/`.
    pub paths: Vec<String>,
    /// The largest allowed shorter side of a rendition, in pixels.
    pub max_height: Option<u32>,
    /// For how many seconds from the start segments are allowed.
    pub preview: Option<f64>,
    /// Further claims, written as they are. They never replace one of the above.
    pub extra: Map<String, Value>,
}

impl Claims {
    /// The payload: the registered claims, then `extra`.
    pub(super) fn payload(&self, issuer: &str, audience: &str) -> Map<String, Value> {
        let mut payload = Map::new();
        payload.insert("iss".into(), issuer.into());
        payload.insert("aud".into(), audience.into());
        payload.insert("sub".into(), self.sub.as_str().into());
        payload.insert("exp".into(), self.exp.into());
        let mut optional = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                payload.insert(name.into(), value);
            }
        };
        optional("nbf", self.nbf.map(Value::from));
        optional("iat", self.iat.map(Value::from));
        optional("jti", self.jti.as_deref().map(Value::from));
        optional("paths", (!self.paths.is_empty()).then(|| self.paths.as_slice().into()));
        optional("max_height", self.max_height.map(Value::from));
        optional("preview", self.preview.map(Value::from));
        for (name, value) in &self.extra {
            payload.entry(name.as_str()).or_insert_with(|| value.clone());
        }
        payload
    }
}

/// The claims of a token as they were read.
#[derive(Debug)]
pub(super) struct ParsedClaims {
    pub(super) audiences: Vec<String>,
    pub(super) subject: Option<String>,
    pub(super) expires: i64,
    pub(super) not_before: Option<i64>,
    pub(super) session: Option<String>,
    pub(super) paths: Vec<String>,
    pub(super) max_height: Option<u32>,
    pub(super) preview_ms: Option<u64>,
    /// `cdniip`.
    pub(super) client: Option<ClientBinding>,
    /// `cdniuc`.
    pub(super) container: Option<UriContainer>,
    /// `cdnistt`, `cdniets`, `cdnistd`.
    pub(super) renewal: Option<RenewalTerms>,
    /// The first claim that must be understood and is not.
    pub(super) unsupported: Option<&'static str>,
}

/// The client that a token is bound to (`cdniip`).
#[derive(Debug)]
pub(super) enum ClientBinding {
    /// In plain text, as Lyceum's own issuer writes it: the token reveals the viewer's address to the viewer alone.
    Plain(Network),
    /// Encrypted, as RFC 9246, section 2.1.10, requires.
    Encrypted(EncryptedClaim),
}

/// How a token is to be renewed (RFC 9246, sections 2.1.12 to 2.1.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RenewalTerms {
    /// The lifetime of a renewed token, in seconds.
    pub(super) lifetime_seconds: i64,
    /// How many leading segments of the path the renewed token's cookie is for.
    pub(super) path_depth: usize,
}

/// Claims that RFC 9246 defines or takes over; `cdnicrit` must not name them.
const RFC_CLAIMS: &[&str] = &[
    "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "cdniv", "cdnicrit", "cdniip", "cdniuc", "cdniets", "cdnistt",
    "cdnistd",
];

/// Lyceum's own claims: the extensions that are supported.
const EXTENSIONS: &[&str] = &["paths", "max_height", "preview"];

/// The longest lifetime of a renewed token that a claim may ask for, in seconds; a configuration may be stricter.
const MAX_RENEWAL_SECONDS: i64 = 30 * 86_400;

/// The most path segments that a renewal may be for.
const MAX_PATH_DEPTH: u64 = 64;

impl ParsedClaims {
    /// Reads a payload. A known claim of the wrong type makes the whole token malformed.
    pub(super) fn read(mut map: Map<String, Value>) -> Result<Self, Denied> {
        let unsupported = unsupported(&map)?;
        let (container, other_form) = defer_unsupported(container(&mut map))?;
        let (renewal, other_transport) = defer_unsupported(renewal(&map))?;
        Ok(Self {
            audiences: audiences(map.remove("aud"))?,
            subject: text(&mut map, "sub")?,
            expires: date(&map, "exp")?.ok_or(Denied::Malformed)?,
            not_before: date(&map, "nbf")?,
            session: session(&mut map)?,
            paths: paths(map.remove("paths"))?,
            max_height: max_height(map.get("max_height"))?,
            preview_ms: preview(map.get("preview"))?,
            client: client(&mut map)?,
            container,
            renewal,
            unsupported: unsupported.or(other_form).or(other_transport),
        })
    }
}

/// The first claim of `cdniv` and `cdnicrit` that is not supported (RFC 9246, sections 2.1.8 and 2.1.9).
fn unsupported(map: &Map<String, Value>) -> Result<Option<&'static str>, Denied> {
    if let Some(version) = map.get("cdniv")
        && version.as_i64() != Some(1)
    {
        return Ok(Some("cdniv"));
    }
    let critical = match map.get("cdnicrit") {
        None => return Ok(None),
        Some(Value::String(text)) => text.split(',').map(str::trim).collect::<Vec<_>>(),
        Some(_) => return Err(Denied::Malformed),
    };
    if critical.iter().any(|name| !EXTENSIONS.contains(name) && !RFC_CLAIMS.contains(name) && !name.is_empty()) {
        return Ok(Some("cdnicrit"));
    }
    let named_once = |(at, name): (usize, &&str)| !critical.iter().take(at).any(|before| before == name);
    let well_made = critical.iter().all(|name| EXTENSIONS.contains(name) && map.contains_key(*name))
        && critical.iter().enumerate().all(named_once);
    if well_made { Ok(None) } else { Err(Denied::Malformed) }
}

/// Keeps an unsupported claim until all claims were read: a malformed one takes precedence.
fn defer_unsupported<T>(read: Result<Option<T>, Denied>) -> Result<(Option<T>, Option<&'static str>), Denied> {
    match read {
        Ok(value) => Ok((value, None)),
        Err(Denied::UnsupportedClaim(name)) => Ok((None, Some(name))),
        Err(denied) => Err(denied),
    }
}

fn container(map: &mut Map<String, Value>) -> Result<Option<UriContainer>, Denied> {
    text(map, "cdniuc")?.map(|text| UriContainer::read(&text)).transpose()
}

fn client(map: &mut Map<String, Value>) -> Result<Option<ClientBinding>, Denied> {
    let Some(text) = text(map, "cdniip")? else { return Ok(None) };
    match text.parse() {
        Ok(network) => Ok(Some(ClientBinding::Plain(network))),
        Err(_) => EncryptedClaim::read(&text).map(|claim| Some(ClientBinding::Encrypted(claim))),
    }
}

/// Transports (RFC 9246, section 6.5): 0 is none, 1 is a cookie; 2, the query, is not supported.
fn renewal(map: &Map<String, Value>) -> Result<Option<RenewalTerms>, Denied> {
    let seconds = date(map, "cdniets")?;
    let depth = match map.get("cdnistd") {
        None => 0,
        Some(value) => value.as_u64().filter(|depth| *depth <= MAX_PATH_DEPTH).ok_or(Denied::Malformed)?,
    };
    match map.get("cdnistt").map(Value::as_u64) {
        None => Ok(None),
        // Section 3.2.1: both claims or none.
        Some(Some(0)) if seconds.is_none() => Err(Denied::Malformed),
        Some(Some(0)) => Ok(None),
        Some(Some(1)) => match seconds {
            Some(seconds) if (1..=MAX_RENEWAL_SECONDS).contains(&seconds) => Ok(Some(RenewalTerms {
                lifetime_seconds: seconds,
                path_depth: usize::try_from(depth).unwrap_or(usize::MAX),
            })),
            _ => Err(Denied::Malformed),
        },
        Some(Some(_)) => Err(Denied::UnsupportedClaim("cdnistt")),
        Some(None) => Err(Denied::Malformed),
    }
}

fn text(map: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Denied> {
    match map.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Denied::Malformed),
    }
}

fn session(map: &mut Map<String, Value>) -> Result<Option<String>, Denied> {
    match text(map, "jti")? {
        Some(session) if session.is_empty() => Err(Denied::Malformed),
        session => Ok(session),
    }
}

/// NumericDate (RFC 7519, section 2): seconds since the Unix epoch, rounded down.
fn date(map: &Map<String, Value>, name: &str) -> Result<Option<i64>, Denied> {
    // 2^53: up to here every JSON reader holds integers exactly, and no arithmetic overflows.
    const MAX_DATE_SECONDS: f64 = 9_007_199_254_740_992.0;
    match map.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match number.as_f64() {
            #[allow(clippy::cast_possible_truncation)]
            Some(seconds) if seconds.abs() <= MAX_DATE_SECONDS => Ok(Some(seconds.floor() as i64)),
            _ => Err(Denied::Malformed),
        },
        Some(_) => Err(Denied::Malformed),
    }
}

fn strings(value: Value) -> Result<Vec<String>, Denied> {
    let Value::Array(values) = value else {
        return Err(Denied::Malformed);
    };
    let mut out = Vec::with_capacity(values.len());
    for value in values {
        match value {
            Value::String(text) => out.push(text),
            _ => return Err(Denied::Malformed),
        }
    }
    Ok(out)
}

fn audiences(value: Option<Value>) -> Result<Vec<String>, Denied> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(many) => strings(many),
    }
}

fn paths(value: Option<Value>) -> Result<Vec<String>, Denied> {
    let paths = value.map(strings).transpose()?.unwrap_or_default();
    if paths.len() > MAX_PATHS || paths.iter().any(|p| !p.starts_with('/')) {
        return Err(Denied::Malformed);
    }
    Ok(paths)
}

fn max_height(value: Option<&Value>) -> Result<Option<u32>, Denied> {
    match value {
        None => Ok(None),
        Some(value) => match value.as_u64().and_then(|n| u32::try_from(n).ok()) {
            Some(height) if height > 0 => Ok(Some(height)),
            _ => Err(Denied::Malformed),
        },
    }
}

fn preview(value: Option<&Value>) -> Result<Option<u64>, Denied> {
    match value {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Some(seconds) if (0.0..=1e9).contains(&seconds) => Ok(Some((seconds * 1000.0) as u64)),
            _ => Err(Denied::Malformed),
        },
    }
}

//! The claims of a token: written by a signer, read back strictly by the verifier.

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::verify::Denied;

/// The most path prefixes of one token.
const MAX_PATHS: usize = 64;

/// What a signer is asked to put into a token; it adds `iss` and `aud` itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// When it ends, in seconds since the Unix epoch.
    pub exp: i64,
    /// Before when it is not valid, in seconds since the Unix epoch.
    pub nbf: Option<i64>,
    /// When it was made, in seconds since the Unix epoch.
    pub iat: Option<i64>,
    /// The session: what a revocation names.
    pub jti: Option<String>,
    /// The path prefixes it opens, each ending in `/`.
    pub paths: Vec<String>,
    /// The largest shorter side of a rendition that it opens, in pixels.
    pub max_height: Option<u32>,
    /// For how many seconds from the start it opens segments.
    pub preview: Option<f64>,
    /// Further claims, written as they are; they never replace one of the above.
    pub extra: Map<String, Value>,
}

impl Claims {
    /// The payload: registered claims first, `extra` behind.
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

/// The claims of a token as read, of a signature that may still turn out wrong.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) audiences: Vec<String>,
    pub(super) subject: Option<String>,
    pub(super) expires: i64,
    pub(super) not_before: Option<i64>,
    pub(super) session: Option<String>,
    pub(super) paths: Vec<String>,
    pub(super) max_height: Option<u32>,
    pub(super) preview_ms: Option<u64>,
    /// The first claim that must be understood and is not.
    pub(super) unsupported: Option<&'static str>,
}

/// Claims of RFC 9246 that narrow a token in ways that are not understood here: to pass over them would widen it.
const NARROWING: &[&str] = &["cdniip", "cdniuc", "cdniets", "cdnistt", "cdnistd"];

impl Parsed {
    /// Reads a payload. A known claim of the wrong type makes the whole token malformed.
    pub(super) fn read(mut map: Map<String, Value>) -> Result<Self, Denied> {
        let unsupported = unsupported(&map)?;
        Ok(Self {
            audiences: audiences(map.remove("aud"))?,
            subject: text(&mut map, "sub")?,
            expires: date(&map, "exp")?.ok_or(Denied::Malformed)?,
            not_before: date(&map, "nbf")?,
            session: session(&mut map)?,
            paths: paths(map.remove("paths"))?,
            max_height: max_height(map.get("max_height"))?,
            preview_ms: preview(map.get("preview"))?,
            unsupported,
        })
    }
}

/// RFC 9246, section 2.1: the version, the critical list, and the claims that narrow.
fn unsupported(map: &Map<String, Value>) -> Result<Option<&'static str>, Denied> {
    if let Some(version) = map.get("cdniv")
        && version.as_i64() != Some(1)
    {
        return Ok(Some("cdniv"));
    }
    // Nothing that the list may name (it may not name the RFC's own claims) is understood, so any entry refuses.
    match map.get("cdnicrit") {
        None => {}
        Some(Value::String(_)) => return Ok(Some("cdnicrit")),
        Some(_) => return Err(Denied::Malformed),
    }
    Ok(NARROWING.iter().find(|name| map.contains_key(**name)).copied())
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

/// NumericDate (RFC 7519, section 2): seconds, fractions allowed and cut off.
fn date(map: &Map<String, Value>, name: &str) -> Result<Option<i64>, Denied> {
    // 2^53: what a JSON number holds exactly everywhere, and far from any overflow.
    const MOST: f64 = 9_007_199_254_740_992.0;
    match map.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match number.as_f64() {
            #[allow(clippy::cast_possible_truncation)]
            Some(seconds) if seconds.abs() <= MOST => Ok(Some(seconds.floor() as i64)),
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

/// A JSON object out of a token.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Denied> {
    serde_json::from_slice(bytes).map(|StrictMap(map)| map).map_err(|_| Denied::Malformed)
}

/// A JSON object in which each name stands once (RFC 7519, section 4, lets a verifier refuse doubled names).
pub(super) struct StrictMap(pub(super) Map<String, Value>);

impl<'de> Deserialize<'de> for StrictMap {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = StrictMap;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<StrictMap, A::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if map.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name stands twice"));
                    }
                }
                Ok(StrictMap(map))
            }
        }
        from.deserialize_map(Once)
    }
}

//! Attribute lists of playlist tags (RFC 8216, section 4.2).

use std::collections::BTreeMap;
use std::time::Duration;

/// The most attributes of one tag.
const MAX_ATTRIBUTES: usize = 64;

/// The attributes of one tag, by name. Values keep their quotes off and their kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes(BTreeMap<String, Value>);

/// A value: what stood in quotes, or what did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `"…"`, without its quotes.
    Quoted(String),
    /// A number, resolution, hexadecimal sequence or enumerated string.
    Bare(String),
}

impl Attributes {
    /// Reads `NAME=value,NAME="value"`. A name that comes twice, an empty list and stray characters are errors.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        let mut rest = text;
        loop {
            let (name, after) = rest.split_once('=').ok_or_else(|| format!("an attribute without \"=\": {rest:?}"))?;
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-') {
                return Err(format!("{name:?} is no attribute name"));
            }
            let (value, after) = value(after).map_err(|what| format!("{name}: {what}"))?;
            if found.insert(name.to_owned(), value).is_some() {
                return Err(format!("the attribute {name} comes twice"));
            }
            if found.len() > MAX_ATTRIBUTES {
                return Err(format!("more than {MAX_ATTRIBUTES} attributes"));
            }
            match after {
                Some(more) => rest = more,
                None => return Ok(Self(found)),
            }
        }
    }

    /// A quoted string, if the attribute is there.
    pub fn quoted(&self, name: &str) -> Result<Option<String>, String> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Quoted(text)) => Ok(Some(text.clone())),
            Some(Value::Bare(text)) => Err(format!("{name}={text} has to stand in quotes")),
        }
    }

    /// An unquoted value, if the attribute is there.
    pub fn bare(&self, name: &str) -> Result<Option<&str>, String> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Bare(text)) => Ok(Some(text)),
            Some(Value::Quoted(text)) => Err(format!("{name}={text:?} must not stand in quotes")),
        }
    }

    /// A decimal integer of at most 20 digits.
    pub fn integer(&self, name: &str) -> Result<Option<u64>, String> {
        self.bare(name)?.map(|text| integer(text).map_err(|what| format!("{name}: {what}"))).transpose()
    }

    /// `YES` or `NO`; no when it is left out.
    pub fn flag(&self, name: &str) -> Result<bool, String> {
        match self.bare(name)? {
            None | Some("NO") => Ok(false),
            Some("YES") => Ok(true),
            Some(other) => Err(format!("{name}={other} is neither YES nor NO")),
        }
    }

    /// A decimal resolution, `1280x720`.
    pub fn resolution(&self, name: &str) -> Result<Option<(u32, u32)>, String> {
        let Some(text) = self.bare(name)? else {
            return Ok(None);
        };
        let sides = text.split_once('x').and_then(|(w, h)| Some((integer(w).ok()?, integer(h).ok()?)));
        match sides.and_then(|(w, h)| Some((u32::try_from(w).ok()?, u32::try_from(h).ok()?))) {
            Some((w, h)) if w > 0 && h > 0 => Ok(Some((w, h))),
            _ => Err(format!("{name}={text} is no resolution")),
        }
    }

    /// A decimal floating-point number, not negative, in thousandths (`FRAME-RATE=29.970` is 29970).
    pub fn thousandths(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.bare(name)? else {
            return Ok(None);
        };
        let value = seconds(text).map_err(|what| format!("{name}: {what}"))?;
        Ok(Some(u64::try_from(value.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The value at the start of `text`, and what follows the comma behind it.
fn value(text: &str) -> Result<(Value, Option<&str>), String> {
    if let Some(inside) = text.strip_prefix('"') {
        let (value, after) = inside.split_once('"').ok_or("a quote that does not end")?;
        return match after.strip_prefix(',') {
            Some(more) => Ok((Value::Quoted(value.into()), Some(more))),
            None if after.is_empty() => Ok((Value::Quoted(value.into()), None)),
            None => Err(format!("{after:?} behind a closing quote")),
        };
    }
    let (value, more) = match text.split_once(',') {
        Some((value, more)) => (value, Some(more)),
        None => (text, None),
    };
    if value.is_empty() || value.contains(['"', ' ', '\t']) {
        return Err(format!("{value:?} is no value"));
    }
    Ok((Value::Bare(value.into()), more))
}

/// A decimal-integer: digits alone, in the range of 64 bits.
pub fn integer(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{text:?} is no whole number"));
    }
    text.parse().map_err(|_| format!("{text} is more than 64 bits hold"))
}

/// A decimal-floating-point number of seconds, exact to the nanosecond (further digits are dropped).
pub fn seconds(text: &str) -> Result<Duration, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{text:?} is no number of seconds"));
    }
    let whole = integer(whole)?;
    if whole > u64::from(u32::MAX) {
        return Err(format!("{text} seconds is too long"));
    }
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9).fold(0u32, |n, b| n * 10 + u32::from(b - b'0'));
    Ok(Duration::new(whole, nanos))
}

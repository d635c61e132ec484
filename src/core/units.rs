//! The units of the configuration: sizes such as `512MiB`, times such as `2s`, and numbers with bounds.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A number of bytes, written `17B`, `64KiB`, `512MiB`, `20GiB` or `1TiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A length of time, written `150ms`, `2s`, `5m`, `12h` or `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// The text is not a size or a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

const SIZES: &[(&str, u64)] = &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIMES: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

fn scaled(text: &str, table: &[(&str, u64)], what: &str, example: &str) -> Result<u64, UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = table.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let value = number.parse::<u64>().ok().zip(scale).and_then(|(n, s)| n.checked_mul(s));
    value.ok_or_else(|| {
        let units = table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        UnitError(format!("\"{text}\" is no {what}: write a whole number and one of {units}, such as \"{example}\""))
    })
}

impl ByteSize {
    /// From mebibytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
    /// From kibibytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }
    /// The number as a `usize`, at most that type's largest.
    #[inline]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Span {
    /// From milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }
    /// From seconds.
    pub const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
    /// As a `Duration`.
    #[inline]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl std::str::FromStr for ByteSize {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        scaled(text, SIZES, "size", "512MiB").map(Self)
    }
}

impl std::str::FromStr for Span {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        scaled(text, TIMES, "time", "2s").map(Self::millis)
    }
}

fn unscaled(f: &mut fmt::Formatter<'_>, value: u64, table: &[(&str, u64)]) -> fmt::Result {
    let best = table.iter().filter(|(_, scale)| value.is_multiple_of(*scale)).max_by_key(|(_, scale)| *scale);
    let (unit, scale) = best.copied().unwrap_or(("", 1));
    write!(f, "{}{unit}", value / scale)
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("0B") } else { unscaled(f, self.0, SIZES) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 { f.write_str("0s") } else { unscaled(f, millis, TIMES) }
    }
}

macro_rules! text_serde {
    ($type:ty, $what:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                from.deserialize_str(Text)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    };
}
text_serde!(ByteSize, "a size as text, such as \"512MiB\"");
text_serde!(Span, "a time as text, such as \"2s\"");

/// For `#[serde(deserialize_with = "units::number::<_, MIN, MAX>")]`: a whole number within bounds, both included.
pub fn number<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(from: D) -> Result<u64, D::Error> {
    bounded(u64::deserialize(from)?, MIN, MAX, &|n| n.to_string())
}

/// For `deserialize_with`: a time within bounds given in milliseconds, both included.
pub fn span<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(from: D) -> Result<Span, D::Error> {
    let value = Span::deserialize(from)?;
    let millis = u64::try_from(value.0.as_millis()).unwrap_or(u64::MAX);
    bounded(millis, MIN, MAX, &|n| Span::millis(n).to_string()).map(Span::millis)
}

/// For `deserialize_with`: a size within bounds given in bytes, both included.
pub fn size<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(from: D) -> Result<ByteSize, D::Error> {
    bounded(ByteSize::deserialize(from)?.0, MIN, MAX, &|n| ByteSize(n).to_string()).map(ByteSize)
}

fn bounded<E: Error>(value: u64, min: u64, max: u64, show: &dyn Fn(u64) -> String) -> Result<u64, E> {
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(E::custom(format!("{} is out of bounds: from {} to {}", show(value), show(min), show(max))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_and_write() {
        assert_eq!("512MiB".parse(), Ok(ByteSize::mib(512)));
        assert_eq!("12h".parse(), Ok(Span::secs(43_200)));
        for text in ["17B", "64KiB", "20GiB", "0B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["150ms", "2s", "5m", "30d", "0s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_unit_says_what_would_be_right() {
        for bad in ["", "12", "MiB", "5MB", "5 MiB", "-1B", "99999999999999TiB"] {
            let error = bad.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains("such as \"512MiB\""), "{bad}: {error}");
        }
        assert!("2".parse::<Span>().is_err());
    }
}

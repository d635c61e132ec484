//! Points in time as requests name them: RFC 3339, or whole seconds since the Unix epoch.

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::rfc3339;

/// The last second of the year 9999: a greater number is no count of seconds but one of milliseconds.
const MAX_SECONDS: i64 = 253_402_300_799;

/// A point in time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instant(i64);

impl Instant {
    /// Milliseconds since the Unix epoch.
    pub(super) fn millis(self) -> i64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = Instant;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a time: RFC 3339, or whole seconds (not milliseconds) since 1970")
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<Instant, E> {
        let sane = (-MAX_SECONDS..=MAX_SECONDS).contains(&seconds);
        let millis = seconds.checked_mul(1000).filter(|_| sane);
        millis.map(Instant).ok_or_else(|| E::invalid_value(Unexpected::Signed(seconds), &self))
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<Instant, E> {
        let signed = i64::try_from(seconds).map_err(|_| E::invalid_value(Unexpected::Unsigned(seconds), &self))?;
        self.visit_i64(signed)
    }

    /// JSON has one kind of number: `1.7e9` is whole.
    fn visit_f64<E: Error>(self, seconds: f64) -> Result<Instant, E> {
        if seconds.fract() == 0.0 && seconds.abs() <= MAX_SECONDS as f64 {
            return self.visit_i64(seconds as i64);
        }
        Err(E::invalid_value(Unexpected::Float(seconds), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Instant, E> {
        rfc3339::parse(text).map(Instant).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<i64, String> {
        serde_json::from_str(json).map(Instant::millis).map_err(|error| error.to_string())
    }

    #[test]
    fn a_time_is_rfc_3339_or_whole_seconds() {
        for (good, millis) in [
            ("1700000000", 1_700_000_000_000),
            ("1.7e9", 1_700_000_000_000),
            ("-1", -1000),
            ("253402300799", 253_402_300_799_000),
            ("\"2026-11-22T19:30:00Z\"", 1_795_375_800_000),
        ] {
            assert_eq!(read(good), Ok(millis), "{good}");
        }
        for bad in
            ["1700000000000", "1700000000.5", "1e300", "18446744073709551615", "\"tomorrow\"", "true", "[1]", "{}"]
        {
            let error = read(bad).unwrap_err();
            assert!(error.contains("whole seconds (not milliseconds) since 1970"), "{bad}: {error}");
        }
    }
}

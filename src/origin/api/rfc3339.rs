//! Points in time as RFC 3339 writes them, in UTC; in the program they are milliseconds since the Unix epoch.

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};
use jiff::fmt::temporal::Pieces;

/// The Unix epoch.
const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// Milliseconds since the Unix epoch as `2026-01-31T12:00:00Z`, rounded down to seconds. What lies beyond the year 9999
/// is written as the last second of it.
pub(super) fn format(millis: i64) -> String {
    let time = EPOCH.saturating_add(SignedDuration::from_secs(millis.div_euclid(1000)));
    format!("{}Z", time.strftime("%Y-%m-%dT%H:%M:%S"))
}

/// Reads an RFC 3339 date and time (section 5.6) as milliseconds since the Unix epoch.
pub(super) fn parse(text: &str) -> Option<i64> {
    if !has_form(text.as_bytes()) {
        return None;
    }
    let pieces = Pieces::parse(text).ok()?;
    let local = pieces.date().to_datetime(pieces.time()?);
    let offset = i64::from(pieces.to_numeric_offset()?.seconds());
    let millis = local.duration_since(EPOCH).as_millis();
    i64::try_from(millis).ok()?.checked_sub(offset * 1000)
}

/// Whether all parts that RFC 3339 requires are there. `jiff` reads all of ISO 8601, which also leaves out seconds or
/// signs, and names time zones.
fn has_form(text: &[u8]) -> bool {
    let is = |at: usize, allowed: &[u8]| text.get(at).is_some_and(|byte| allowed.contains(byte));
    let date_time = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let zone = match text.last() {
        Some(b'Z' | b'z') => true,
        _ => text.len().checked_sub(6).is_some_and(|sign| is(sign, b"+-") && is(sign + 3, b":")),
    };
    date_time && is(19, b".Zz+-") && zone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_read_back_and_wrong_ones_are_refused() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799_000),
            ("2026-11-22T19:30:00Z", 1_795_375_800_000),
            ("1969-12-31T23:59:59Z", -1000),
        ] {
            assert_eq!(parse(text), Some(millis), "{text}");
            assert_eq!(format(millis), text);
        }
        assert_eq!(parse("2026-11-22T20:30:00.25+01:00"), Some(1_795_375_800_250));
        // The end of time, as shops write it.
        assert_eq!(parse("9999-12-31T23:59:59Z"), Some(253_402_300_799_000));
        assert_eq!(format(i64::MAX), "9999-12-31T23:59:59Z");
        for bad in [
            "",
            "2026-11-22",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T19:30:00",
            "2026-11-22T19:30:00.Z",
            "2026-11-22T19:30:00+1:00",
            "20x6-11-22T19:30:00Z",
            "2026-11-22T19:30:00é",
            "2026-11-22T19:30Z",
            "20261122T193000Z",
            "2026-11-22T19:30:00+01",
            "2026-11-22T19:30:00+01:00:00",
            "2026-11-22T19:30:00+01:00[Europe/Berlin]",
            "2026-11-22T19:30:00,5Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}

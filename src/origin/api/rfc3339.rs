//! Instants as RFC 3339 writes them, in UTC.

/// Milliseconds since the Unix epoch as `2026-01-31T12:00:00Z`, rounded down to seconds.
pub(super) fn write(millis: i64) -> String {
    let seconds = millis.div_euclid(1000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The proleptic Gregorian date of a day counted from 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Reads an RFC 3339 date and time (section 5.6) as milliseconds since the Unix epoch.
pub(super) fn read(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| {
        let part = text.get(from..to)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<i64>().ok()).flatten()
    };
    let is = |at: usize, wanted: &[u8]| text.as_bytes().get(at).is_some_and(|b| wanted.contains(b));
    let marks = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    let day_number = days(year, month, day);
    if !marks || !fits || civil(day_number) != (year, month, day) {
        return None;
    }
    let rest = text.get(19..)?;
    let fraction = rest.strip_prefix('.').map_or(0, |r| r.bytes().take_while(u8::is_ascii_digit).count());
    if rest.starts_with('.') && fraction == 0 {
        return None;
    }
    let zone = rest.get(if fraction > 0 { fraction + 1 } else { 0 }..)?;
    let millis: i64 = rest.get(1..=fraction.min(3)).filter(|_| fraction > 0).map_or(Some(0), |digits| {
        digits.parse::<i64>().ok().map(|n| n * 10_i64.pow(u32::try_from(3 - digits.len()).unwrap_or(0)))
    })?;
    let offset = offset_minutes(zone)?;
    Some((day_number * 86_400 + hour * 3600 + minute * 60 + second - offset * 60) * 1000 + millis)
}

fn offset_minutes(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes) = (hours.parse::<i64>().ok()?, minutes.parse::<i64>().ok()?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
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
            assert_eq!(read(text), Some(millis), "{text}");
            assert_eq!(write(millis), text);
        }
        assert_eq!(read("2026-11-22T20:30:00.25+01:00"), Some(1_795_375_800_250));
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
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}

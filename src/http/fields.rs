//! Field syntax shared by the parsers: lists with quoted strings (RFC 9110, section 5.6), dates, hop-by-hop names.

use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName};

/// Splits a list at its commas outside of quoted strings; members are trimmed, empty ones left out.
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    let mut rest = value;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let end = unquoted(rest, b',').unwrap_or(rest.len());
            let (member, tail) = rest.split_at_checked(end)?;
            rest = tail.get(1..).unwrap_or("");
            let member = member.trim_matches([' ', '\t']);
            if !member.is_empty() {
                return Some(member);
            }
        }
    })
}

/// The index of the first `sought` outside of a quoted string.
pub fn unquoted(text: &str, sought: u8) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    text.bytes().position(|byte| {
        let here = !quoted && byte == sought;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        here
    })
}

/// The content of a quoted string without escapes, or the text itself when it is not quoted.
#[inline]
pub fn unquote(text: &str) -> &str {
    text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text)
}

/// All values of a field as text; those with bytes outside of visible ASCII are left out.
#[inline]
pub fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
}

/// A field's single value; none where the field is missing or repeated.
#[inline]
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let value = all.next()?;
    if all.next().is_some() { None } else { value.to_str().ok() }
}

/// Fields whose values are case-insensitive (RFC 9110, sections 12.5.2 and 12.5.4). Their members keep their order:
/// many servers read it as a preference.
static CASELESS: [HeaderName; 2] = [header::ACCEPT_CHARSET, header::ACCEPT_LANGUAGE];

/// All values of a field as one text that is equal for equivalent requests (RFC 9111, section 4.1): members
/// trimmed, joined by commas; none where the field is missing.
pub fn normalised(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?;
    let members: Vec<String> = headers
        .get_all(name)
        .iter()
        .flat_map(|value| match value.to_str() {
            Ok(text) if CASELESS.contains(name) => list(text).map(caseless).collect(),
            Ok(text) => list(text).map(str::to_owned).collect(),
            // Not visible ASCII: compared byte by byte.
            Err(_) => vec![format!("{:?}", value.as_bytes())],
        })
        .collect();
    Some(members.join(","))
}

/// A member without blanks, in lower case.
fn caseless(member: &str) -> String {
    member.chars().filter(|c| !matches!(c, ' ' | '\t')).map(|c| c.to_ascii_lowercase()).collect()
}

/// Whether a request accepts a content coding: it names it, or has no `Accept-Encoding` (RFC 9110, section 12.5.3).
pub fn takes_coding(request: &HeaderMap, coding: &str) -> bool {
    if !request.contains_key(header::ACCEPT_ENCODING) || coding.eq_ignore_ascii_case("identity") {
        return true;
    }
    let mut any = false;
    for member in values(request, &header::ACCEPT_ENCODING).flat_map(list) {
        let mut parts = member.split(';').map(|part| part.trim_matches([' ', '\t']));
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let wanted = weight.is_none_or(|weight| weight.bytes().any(|digit| (b'1'..=b'9').contains(&digit)));
        if name.eq_ignore_ascii_case(coding) {
            return wanted;
        }
        any |= name == "*" && wanted;
    }
    any
}

/// Seconds since the epoch of an HTTP date in any of the three forms (RFC 9110, section 5.6.7).
pub fn date(text: &str) -> Option<i64> {
    let time = httpdate::parse_http_date(text.trim()).ok()?;
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).ok(),
        Err(before) => i64::try_from(before.duration().as_secs()).ok().map(|s| -s),
    }
}

/// The longest text that is tried as a date in another case, in bytes.
const MAX_DATE_BYTES: usize = 40;

/// The days of the week, in full.
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// A date with the wrong day of the week: the rest is used.
fn date_of_another_day(text: &str) -> Option<i64> {
    let (named, rest) = text.split_at_checked(text.find(|c: char| !c.is_ascii_alphabetic())?)?;
    let is_short = named.len() == 3;
    let mut days = DAYS.iter().map(|day| if is_short { day.get(..3).unwrap_or(day) } else { day });
    if !days.clone().any(|day| day == named) {
        return None;
    }
    days.find_map(|day| date(&format!("{day}{rest}")))
}

/// The same with letters in any case and any day of the week, as a cache reads the dates that determine freshness (RFC 9111, section 4.2; RFC 9110, section 5.6.7).
pub fn date_leniently(text: &str) -> Option<i64> {
    date(text).or_else(|| {
        let text = text.trim();
        if text.len() > MAX_DATE_BYTES {
            return None;
        }
        let mut cased = String::with_capacity(text.len());
        for word in text.split_inclusive(|c: char| !c.is_ascii_alphabetic()) {
            if word.eq_ignore_ascii_case("gmt") {
                cased.push_str("GMT");
                continue;
            }
            let mut letters = word.chars();
            cased.extend(letters.next().map(|first| first.to_ascii_uppercase()));
            cased.extend(letters.map(|letter| letter.to_ascii_lowercase()));
        }
        date(&cased).or_else(|| date_of_another_day(&cased))
    })
}

/// An HTTP date.
pub fn format_date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)
}

/// Fields for a single connection (RFC 9110, section 7.6.1) and are neither stored nor passed on.
pub static HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes the hop-by-hop fields and those that `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = values(headers, &header::CONNECTION)
        .flat_map(list)
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        // Connection must not remove fields that frame or protect the message.
        .filter(|name| {
            !matches!(*name, header::HOST | header::CONTENT_LENGTH | header::AUTHORIZATION | header::CACHE_CONTROL)
        })
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    #[test]
    fn lists_split_outside_of_quotes() {
        let members = |text| list(text).collect::<Vec<_>>();
        assert_eq!(members("a, b ,,\tc"), ["a", "b", "c"]);
        assert_eq!(members(r#"a="x, \" y", b"#), [r#"a="x, \" y""#, "b"]);
        assert_eq!(members(r#"a="open, b"#), [r#"a="open, b"#]);
        assert!(members(" , ").is_empty());
    }

    #[test]
    fn connection_removes_what_it_names() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("connection", "content-length"),
            ("x-private", "1"),
            ("content-length", "5"),
            ("te", "trailers"),
            ("etag", "\"a\""),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "etag"]);
    }

    #[test]
    fn codings_are_accepted_as_named() {
        let takes = |value: &'static str| {
            let request = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]);
            takes_coding(&request, "gzip")
        };
        assert!(takes("gzip") && takes("br, GZIP;q=0.5") && takes("*") && takes_coding(&HeaderMap::new(), "gzip"));
        assert!(!takes("identity") && !takes("gzip;q=0, *") && !takes("*;q=0.0") && !takes(""));
    }

    #[test]
    fn dates_in_three_forms() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(date(text), Some(784_111_777), "{text}");
        }
        assert_eq!(date("0"), None);
        for text in ["sUN, 06 nov 1994 08:49:37 gmt", "SUNDAY, 06-NOV-94 08:49:37 GMT", "sun nOV  6 08:49:37 1994"] {
            assert_eq!((date(text), date_leniently(text)), (None, Some(784_111_777)), "{text}");
        }
        for text in ["Mon, 06 Nov 1994 08:49:37 GMT", "Friday, 06-Nov-94 08:49:37 GMT", "Sat Nov  6 08:49:37 1994"] {
            assert_eq!((date(text), date_leniently(text)), (None, Some(784_111_777)), "{text}");
        }
        for text in
            ["sun, 06 nov 1994 08:49:37 utc", "sun, 06 nov 1994 08:49:37", "", "gmt", "Xyz, 06 Nov 1994 08:49:37 GMT"]
        {
            assert_eq!(date_leniently(text), None, "{text}");
        }
    }

    proptest! {
        /// Members come in their order out of the text, whatever it is; a text of plain members comes back whole.
        #[test]
        fn members_stand_in_the_text(text in "[ -~\t]{0,60}", plain in prop::collection::vec("[a-z=0-9]{1,6}", 0..6)) {
            let mut rest = text.as_str();
            for member in list(&text) {
                prop_assert!(!member.is_empty());
                let at = rest.find(member);
                prop_assert!(at.is_some(), "{member:?} in {rest:?}");
                rest = &rest[at.unwrap_or(0) + member.len()..];
            }
            let written = plain.join(" ,\t");
            prop_assert_eq!(list(&written).collect::<Vec<_>>(), plain);
            let _ = date_leniently(&text);
        }
    }
}

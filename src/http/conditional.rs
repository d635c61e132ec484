//! Conditional requests (RFC 9110, section 13), as a cache answers them from what it has stored.

use http::header::{self, HeaderMap};

use crate::fields;

/// An entity tag (RFC 9110, section 8.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ETag<'a> {
    /// Whether it is weak.
    pub weak: bool,
    /// The opaque part, with its quotes.
    pub opaque: &'a str,
}

impl<'a> ETag<'a> {
    /// Reads one entity tag.
    pub fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim_matches([' ', '\t']);
        let (weak, opaque) = text.strip_prefix("W/").map_or((false, text), |rest| (true, rest));
        let inner = opaque.strip_prefix('"')?.strip_suffix('"')?;
        let plain = opaque.len() >= 2 && inner.bytes().all(|b| b == b'!' || (0x23..=0x7e).contains(&b) || b >= 0x80);
        plain.then_some(Self { weak, opaque })
    }

    /// Strong comparison: neither is weak.
    #[inline]
    pub fn strong_eq(self, other: Self) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Weak comparison.
    #[inline]
    pub fn weak_eq(self, other: Self) -> bool {
        self.opaque == other.opaque
    }
}

/// The validators of a stored response.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validators<'a> {
    /// `ETag`.
    pub etag: Option<ETag<'a>>,
    /// `Last-Modified`, in seconds since the epoch.
    pub modified: Option<i64>,
    /// `Date`, in seconds since the epoch.
    pub date: Option<i64>,
}

impl<'a> Validators<'a> {
    /// Reads them from a response's fields.
    pub fn of(headers: &'a HeaderMap) -> Self {
        let date = |name| fields::single(headers, name).and_then(fields::date);
        Self {
            etag: fields::single(headers, &header::ETAG).and_then(ETag::parse),
            modified: date(&header::LAST_MODIFIED),
            date: date(&header::DATE),
        }
    }

    /// Whether `Last-Modified` is strong: earlier than `Date` (section 8.8.2.2).
    fn modified_is_strong(&self) -> bool {
        matches!((self.modified, self.date), (Some(modified), Some(date)) if modified < date)
    }
}

/// The result of a conditional request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionResult {
    /// Answer as if there were no condition.
    Go,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Whether any condition (not `If-Range`) is in a request; most have none.
#[inline]
pub fn is_conditional(request: &HeaderMap) -> bool {
    let conditions = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_MATCH, header::IF_UNMODIFIED_SINCE];
    // Scanning the names costs less than looking each of them up.
    request.keys().any(|name| name.as_str().starts_with("if-") && conditions.contains(name))
}

/// Judges a GET or HEAD in the order of section 13.2.2.
pub fn judge(request: &HeaderMap, stored: &Validators<'_>) -> ConditionResult {
    let since = |name| fields::single(request, name).and_then(fields::date);
    if request.contains_key(header::IF_MATCH) {
        if !matches(request, &header::IF_MATCH, |tag| stored.etag.is_some_and(|own| own.strong_eq(tag))) {
            return ConditionResult::Failed;
        }
    } else if let (Some(since), Some(modified)) = (since(&header::IF_UNMODIFIED_SINCE), stored.modified)
        && modified > since
    {
        return ConditionResult::Failed;
    }
    if request.contains_key(header::IF_NONE_MATCH) {
        if matches(request, &header::IF_NONE_MATCH, |tag| stored.etag.is_some_and(|own| own.weak_eq(tag))) {
            return ConditionResult::NotModified;
        }
    } else if let Some(since) = since(&header::IF_MODIFIED_SINCE)
        // Without Last-Modified a cache uses Date (RFC 9111, section 4.3.2).
        && stored.modified.or(stored.date).is_some_and(|modified| modified <= since)
    {
        return ConditionResult::NotModified;
    }
    ConditionResult::Go
}

fn matches(request: &HeaderMap, name: &header::HeaderName, same: impl Fn(ETag<'_>) -> bool) -> bool {
    fields::values(request, name)
        .flat_map(fields::list)
        .any(|member| member == "*" || ETag::parse(member).is_some_and(&same))
}

/// Whether `Range` applies: there is no `If-Range`, or it matches what is stored (section 13.1.5).
#[inline]
pub fn range_applies(request: &HeaderMap, stored: &Validators<'_>) -> bool {
    let Some(condition) = request.get(header::IF_RANGE) else { return true };
    let Ok(condition) = condition.to_str() else { return false };
    match ETag::parse(condition) {
        Some(tag) => stored.etag.is_some_and(|own| own.strong_eq(tag)),
        None => {
            let same = fields::date(condition).is_some_and(|date| stored.modified == Some(date));
            same && stored.modified_is_strong()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEW: &str = "Sun, 06 Nov 1994 08:50:37 GMT";

    #[test]
    fn conditions_are_evaluated_in_order() {
        use ConditionResult::*;
        let stored = map(&[("etag", "\"a\""), ("last-modified", OLD), ("date", NEW)]);
        for (request, expected) in [
            (vec![], Go),
            (vec![("if-none-match", "\"a\"")], NotModified),
            (vec![("if-none-match", "W/\"a\"")], NotModified),
            (vec![("if-none-match", "\"b\", \"a\"")], NotModified),
            (vec![("if-none-match", "\"b\""), ("if-none-match", "\"a\"")], NotModified),
            (vec![("if-none-match", "*")], NotModified),
            (vec![("if-none-match", "\"b\"")], Go),
            (vec![("if-none-match", "a")], Go),
            (vec![("if-none-match", "\"b\""), ("if-modified-since", NEW)], Go),
            (vec![("if-modified-since", OLD)], NotModified),
            (vec![("if-modified-since", "Sat, 05 Nov 1994 08:49:37 GMT")], Go),
            (vec![("if-modified-since", "never")], Go),
            (vec![("if-match", "\"a\"")], Go),
            (vec![("if-match", "W/\"a\"")], Failed),
            (vec![("if-match", "\"b\"")], Failed),
            (vec![("if-match", "*")], Go),
            (vec![("if-unmodified-since", "Sat, 05 Nov 1994 08:49:37 GMT")], Failed),
            (vec![("if-unmodified-since", NEW)], Go),
            (vec![("if-match", "\"b\""), ("if-none-match", "\"a\"")], Failed),
        ] {
            let request_map = map(&request);
            assert_eq!(judge(&request_map, &Validators::of(&stored)), expected, "{request:?}");
            assert_eq!(is_conditional(&request_map), !request.is_empty());
        }
    }

    #[test]
    fn a_range_applies_only_to_what_is_stored() {
        let stored = map(&[("etag", "\"a\""), ("last-modified", OLD), ("date", NEW)]);
        let weak = map(&[("etag", "W/\"a\""), ("last-modified", OLD), ("date", OLD)]);
        let applies =
            |request: &[(&str, &str)], stored: &HeaderMap| range_applies(&map(request), &Validators::of(stored));
        assert!(applies(&[], &stored));
        assert!(applies(&[("if-range", "\"a\"")], &stored));
        assert!(applies(&[("if-range", OLD)], &stored));
        assert!(!applies(&[("if-range", "\"b\"")], &stored));
        assert!(!applies(&[("if-range", "W/\"a\"")], &weak));
        assert!(!applies(&[("if-range", OLD)], &weak), "modified in the second it was sent: weak");
        assert!(!applies(&[("if-range", NEW)], &stored));
        assert!(!applies(&[("if-range", "x")], &stored));
    }
}

//! `Range` (RFC 9110, section 14).

/// The most ranges of one request; more are answered with the whole representation, as section 14.2 allows.
const MAX_RANGES: usize = 16;

/// The part of a representation of known length that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedRange {
    /// All of it: no range, or one that a server may ignore.
    Whole,
    /// These spans, in the order asked for; at least one, none empty, all inside.
    Spans(Vec<ByteRange>),
    /// No range overlaps it: 416.
    Unsatisfiable,
}

/// Bytes from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub first: u64,
    /// The last byte, not before `first`.
    pub last: u64,
}

impl ByteRange {
    /// How many bytes.
    #[inline]
    pub fn length(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// The value of `Content-Range`.
    pub fn content_range(self, length: u64) -> String {
        format!("bytes {}-{}/{length}", self.first, self.last)
    }
}

/// Reads a `Range` field for a representation of `length` bytes.
pub fn wanted(field: &str, length: u64) -> RequestedRange {
    // Unknown units and malformed ranges are ignored (section 14.2).
    let Some((unit, set)) = field.split_once('=') else { return RequestedRange::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return RequestedRange::Whole;
    }
    let mut spans = Vec::new();
    let mut specs = 0_usize;
    for spec in set.split(',').map(|s| s.trim_matches([' ', '\t'])).filter(|s| !s.is_empty()) {
        specs += 1;
        if specs > MAX_RANGES {
            return RequestedRange::Whole;
        }
        match span(spec, length) {
            Ok(Some(span)) => spans.push(span),
            Ok(None) => {}
            Err(Malformed) => return RequestedRange::Whole,
        }
    }
    if specs == 0 {
        return RequestedRange::Whole;
    }
    if spans.is_empty() {
        return RequestedRange::Unsatisfiable;
    }
    if overlaps(&spans) {
        // Sections 15.3.7.2 and 17.15: overlapping ranges are usually an attack.
        return RequestedRange::Whole;
    }
    RequestedRange::Spans(spans)
}

/// The first byte that a `Range` field asks for, as far as it is known without a length: a suffix begins at 0. None
/// where the field is to be ignored.
pub fn first_byte(field: &str) -> Option<u64> {
    let (unit, set) = field.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let specs = set.split(',').map(|s| s.trim_matches([' ', '\t'])).filter(|s| !s.is_empty());
    let firsts: Result<Vec<u64>, Malformed> = specs
        .map(|spec| {
            let (first, last) = spec.split_once('-').ok_or(Malformed)?;
            match (first.is_empty(), last.is_empty()) {
                (true, _) => position(last).map(|_| 0),
                (false, true) => position(first),
                (false, false) => position(last).and_then(|_| position(first)),
            }
        })
        .collect();
    firsts.ok()?.into_iter().min()
}

/// Reads a `Content-Range` of bytes whose whole length is known (section 14.4).
pub fn content_range(field: &str) -> Option<(ByteRange, u64)> {
    let (unit, rest) = field.split_once(' ')?;
    let (range, total) = rest.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let (span, total) = (ByteRange { first: digits(first)?, last: digits(last)? }, digits(total)?);
    let sound = unit.eq_ignore_ascii_case("bytes") && span.first <= span.last && span.last < total;
    sound.then_some((span, total))
}

/// Whether a part with this `Content-Range` can answer a request with this `Range`: well formed, and within the one range
/// that was requested. Several ranges are answered with `multipart/byteranges`, whose body holds each `Content-Range`.
pub fn is_part_of(content_range_field: &str, range_field: &str) -> bool {
    let known = content_range(content_range_field);
    // Where the whole's length is not known, it is beyond the part's end (section 14.4).
    let part = known.or_else(|| {
        let open = content_range_field.strip_suffix("/*")?;
        content_range(&format!("{open}/{}", u64::MAX))
    });
    let Some((span, total)) = part else { return false };
    match wanted(range_field, total) {
        RequestedRange::Whole => true,
        RequestedRange::Spans(spans) => match spans.as_slice() {
            [requested] => requested.first <= span.first && span.last <= requested.last,
            _ => true,
        },
        RequestedRange::Unsatisfiable => false,
    }
}

struct Malformed;

fn span(spec: &str, length: u64) -> Result<Option<ByteRange>, Malformed> {
    let (first, last) = spec.split_once('-').ok_or(Malformed)?;
    if first.is_empty() {
        let suffix = position(last)?;
        return Ok((suffix > 0 && length > 0)
            .then(|| ByteRange { first: length.saturating_sub(suffix), last: length.saturating_sub(1) }));
    }
    let first = position(first)?;
    let last = if last.is_empty() { u64::MAX } else { position(last)? };
    if last < first {
        return Err(Malformed);
    }
    Ok((first < length).then(|| ByteRange { first, last: last.min(length.saturating_sub(1)) }))
}

/// Digits only; a number too large counts as the largest.
fn position(digits: &str) -> Result<u64, Malformed> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Malformed);
    }
    Ok(digits.parse().unwrap_or(u64::MAX))
}

fn overlaps(spans: &[ByteRange]) -> bool {
    let mut sorted: Vec<ByteRange> = spans.to_vec();
    sorted.sort_unstable_by_key(|s| s.first);
    sorted.windows(2).any(|pair| matches!(pair, [a, b] if b.first <= a.last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(first: u64, last: u64) -> RequestedRange {
        RequestedRange::Spans(vec![ByteRange { first, last }])
    }

    #[test]
    fn ranges_of_ten_bytes() {
        for (field, expected) in [
            ("bytes=0-0", one(0, 0)),
            ("bytes=2-5", one(2, 5)),
            ("Bytes = 2-5", one(2, 5)),
            ("bytes=2-", one(2, 9)),
            ("bytes=2-99", one(2, 9)),
            ("bytes=2-99999999999999999999999", one(2, 9)),
            ("bytes=-3", one(7, 9)),
            ("bytes=-99", one(0, 9)),
            (
                "bytes=0-1, 4-5",
                RequestedRange::Spans(vec![ByteRange { first: 0, last: 1 }, ByteRange { first: 4, last: 5 }]),
            ),
            ("bytes=8-9,20-30", one(8, 9)),
            ("bytes=10-", RequestedRange::Unsatisfiable),
            ("bytes=-0", RequestedRange::Unsatisfiable),
            ("bytes=99999999999999999999999-", RequestedRange::Unsatisfiable),
            ("bytes=0-5,3-8", RequestedRange::Whole),
            ("bytes=5-2", RequestedRange::Whole),
            ("bytes=a-b", RequestedRange::Whole),
            ("bytes=+1-2", RequestedRange::Whole),
            ("bytes=", RequestedRange::Whole),
            ("bytes", RequestedRange::Whole),
            ("seconds=1-2", RequestedRange::Whole),
            ("bytes=1-2,x", RequestedRange::Whole),
        ] {
            assert_eq!(wanted(field, 10), expected, "{field}");
        }
        assert_eq!(wanted("bytes=0-", 0), RequestedRange::Unsatisfiable);
        assert_eq!(wanted("bytes=-1", 0), RequestedRange::Unsatisfiable);
        let many = (0..17).map(|n| format!("{}-{}", n * 2, n * 2)).collect::<Vec<_>>().join(",");
        assert_eq!(wanted(&format!("bytes={many}"), 100), RequestedRange::Whole);
    }

    #[test]
    fn what_a_part_says_of_itself() {
        assert_eq!(content_range("bytes 0-9/100"), Some((ByteRange { first: 0, last: 9 }, 100)));
        for bad in [
            "bytes 0-9/*",
            "bytes */100",
            "bytes 9-0/100",
            "bytes 0-100/100",
            "items 0-9/100",
            "bytes 0-9",
            "bytes +0-9/100",
            "",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
        for (field, first) in [
            ("bytes=5-9", Some(5)),
            ("bytes=5-", Some(5)),
            ("bytes=-5", Some(0)),
            ("bytes=50-60, 5-9", Some(5)),
            ("bytes=x-9", None),
            ("bytes=", None),
            ("lines=5-9", None),
        ] {
            assert_eq!(first_byte(field), first, "{field}");
        }
    }

    #[test]
    fn a_part_lies_in_what_was_asked_for() {
        for (told, asked, may) in [
            ("bytes 0-9/100", "bytes=0-9", true),
            ("bytes 0-4/100", "bytes=0-9", true),
            ("bytes 5-9/*", "bytes=0-9", true),
            ("bytes 90-99/100", "bytes=-10", true),
            ("bytes 0-99/100", "bytes=0-", true),
            ("bytes 40-49/100", "bytes=0-9,40-49", true),
            ("bytes 0-9/100", "bytes=5-2", true),
            ("bytes 0-10/100", "bytes=0-9", false),
            ("bytes 5-14/100", "bytes=0-9", false),
            ("bytes 80-99/100", "bytes=-10", false),
            ("bytes 0-9/100", "bytes=100-", false),
            ("bytes */100", "bytes=0-9", false),
            ("bytes 9-5/*", "bytes=0-9", false),
            ("", "bytes=0-9", false),
        ] {
            assert_eq!(is_part_of(told, asked), may, "{told} for {asked}");
        }
    }

    proptest! {
        #[test]
        fn spans_lie_inside(field in "(bytes=)?[0-9,x-]{0,20}", length in 0_u64..50) {
            if let RequestedRange::Spans(spans) = wanted(&field, length) {
                prop_assert!(!spans.is_empty());
                prop_assert!(spans.iter().all(|s| s.first <= s.last && s.last < length));
            }
        }
    }
}

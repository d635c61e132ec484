//! A request path with only one interpretation.
//!
//! Access checks are bypassed where two parties interpret one path differently. So a path that RFC 3986 (section 6.2.2)
//! or some server would normalise is refused, not repaired: the string that was checked is the one that is routed on, keys
//! the cache and goes upstream.

use std::fmt;

use crate::byte_set::ByteSet;

/// The longest path that is accepted, in bytes.
pub const MAX_PATH_BYTES: usize = 16_384;

/// An absolute path without a query, with only one interpretation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CleanPath<'a>(&'a str);

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmbiguousPath {
    /// It does not begin with a slash.
    #[error("the path is not absolute")]
    NotAbsolute,
    /// Longer than [`MAX_PATH_BYTES`].
    #[error("the path is too long")]
    TooLong,
    /// `//`.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` or `..` as a segment, also with parameters behind it.
    #[error("the path has a dot segment")]
    DotSegment,
    /// A backslash, a control character, or a byte outside of ASCII.
    #[error("the path has a character that must be encoded")]
    RawCharacter,
    /// A percent sign without two hexadecimal digits behind it.
    #[error("the path has a broken percent-encoding")]
    BrokenEncoding,
    /// An encoded slash, backslash, dot, control or unreserved character, an overlong UTF-8 form of one, or a double
    /// encoding.
    #[error("the path encodes a character that it must not")]
    NeedlessEncoding,
}

impl<'a> CleanPath<'a> {
    /// Checks `path`. One pass; most paths have no percent sign at all.
    pub fn check(path: &'a str) -> Result<Self, AmbiguousPath> {
        let bytes = path.as_bytes();
        if bytes.first() != Some(&b'/') {
            return Err(AmbiguousPath::NotAbsolute);
        }
        if bytes.len() > MAX_PATH_BYTES {
            return Err(AmbiguousPath::TooLong);
        }
        let mut segment = Segment::Start;
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            segment = match byte {
                b'/' if std::ptr::eq(tail.as_ptr(), bytes.as_ptr().wrapping_add(1)) => Segment::Start,
                b'/' => segment.closed()?,
                b'.' => segment.dot(),
                b';' => segment.parameter()?,
                b'%' => {
                    rest = check_encoding(tail)?;
                    match tail {
                        [b'3', b'b' | b'B', ..] => segment.parameter()?,
                        _ => Segment::Plain,
                    }
                }
                b'\\' | b'?' | b'#' | 0..=0x20 | 0x7f..=0xff => return Err(AmbiguousPath::RawCharacter),
                _ => {
                    // Most of a path: runs of letters and digits do not change the state.
                    rest = skip_plain(tail);
                    Segment::Plain
                }
            };
        }
        match segment {
            Segment::Dot | Segment::DotDot => Err(AmbiguousPath::DotSegment),
            Segment::Start | Segment::Plain => Ok(Self(path)),
        }
    }

    /// The path as received.
    #[inline]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether the path is `prefix` or lies under it, comparing whole segments: `/v/a` holds `/v/a` and `/v/a/b`,
    /// not `/v/ab`.
    #[inline]
    pub fn is_under(self, prefix: &str) -> bool {
        if !prefix.starts_with('/') {
            return false;
        }
        match self.0.strip_prefix(prefix) {
            Some(rest) => prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    /// The segments, without the leading slash; a trailing slash gives an empty last one.
    #[inline]
    pub fn segments(self) -> std::str::Split<'a, char> {
        self.0.strip_prefix('/').unwrap_or(self.0).split('/')
    }
}

impl fmt::Display for CleanPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The state of the segment being read.
#[derive(Clone, Copy)]
enum Segment {
    Start,
    Dot,
    DotDot,
    Plain,
}

impl Segment {
    fn dot(self) -> Self {
        match self {
            Self::Start => Self::Dot,
            Self::Dot => Self::DotDot,
            Self::DotDot | Self::Plain => Self::Plain,
        }
    }

    /// Some servers remove a segment's parameters before they resolve dots and empty segments.
    fn parameter(self) -> Result<Self, AmbiguousPath> {
        self.closed().map(|_| Self::Plain)
    }

    fn closed(self) -> Result<Self, AmbiguousPath> {
        match self {
            Self::Start => Err(AmbiguousPath::EmptySegment),
            Self::Dot | Self::DotDot => Err(AmbiguousPath::DotSegment),
            Self::Plain => Ok(Self::Start),
        }
    }
}

/// Letters, digits, hyphens and underscores.
static PLAIN: ByteSet = ByteSet::alphanumeric_and(b"-_");

/// The rest after the leading plain characters.
fn skip_plain(tail: &[u8]) -> &[u8] {
    let plain = tail.iter().take_while(|byte| PLAIN.contains(**byte)).count();
    tail.get(plain..).unwrap_or_default()
}

/// Checks what follows a percent sign; returns the rest after its two digits.
fn check_encoding(tail: &[u8]) -> Result<&[u8], AmbiguousPath> {
    let [high, low, rest @ ..] = tail else {
        return Err(AmbiguousPath::BrokenEncoding);
    };
    let (Some(high), Some(low)) = (hex(*high), hex(*low)) else {
        return Err(AmbiguousPath::BrokenEncoding);
    };
    let value = high << 4 | low;
    let unreserved = value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~');
    let encoded_again = value == b'%' && matches!(rest, [a, b, ..] if hex(*a).is_some() && hex(*b).is_some());
    let refused = unreserved || encoded_again || matches!(value, b'/' | b'\\' | 0..=0x1f | 0x7f);
    if refused || is_overlong(value, rest) {
        return Err(AmbiguousPath::NeedlessEncoding);
    }
    Ok(rest)
}

/// Whether `first` and the encoding after it are an overlong form of a character (RFC 3629, section 3): lenient decoders
/// read it as a dot or a slash.
fn is_overlong(first: u8, rest: &[u8]) -> bool {
    let most = match first {
        0xc0 | 0xc1 => 0xbf,
        0xe0 => 0x9f,
        0xf0 => 0x8f,
        _ => return false,
    };
    let [b'%', high, low, ..] = rest else { return false };
    let second = hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low);
    second.is_some_and(|second| (0x80..=most).contains(&second))
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_paths_pass() {
        for path in [
            "/",
            "/v/a/master.m3u8",
            "/v/a/1/v720/00000-0.m4s",
            "/v/a/",
            "/...",
            "/a/.well-known/x",
            "/a/..b",
            "/caf%C3%A9",
            "/100%25",
            "/a%20b",
            "/a;b=c,d@e:f$g&h+i!(*)'",
            "/...;a/b..;/c%3b",
            "/%e0%a4%85/%F0%9F%8E%AC",
            "/%c0/%c0x/%e9%e0",
        ] {
            assert_eq!(CleanPath::check(path).map(CleanPath::as_str), Ok(path), "{path}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        use AmbiguousPath::*;
        for (path, why) in [
            ("", NotAbsolute),
            ("v/a", NotAbsolute),
            ("*", NotAbsolute),
            ("//v/a", EmptySegment),
            ("/v//a", EmptySegment),
            ("/v/a//", EmptySegment),
            ("/v/../a", DotSegment),
            ("/v/./a", DotSegment),
            ("/v/..", DotSegment),
            ("/.", DotSegment),
            ("/v/..;/a", DotSegment),
            ("/v/.;x=1/a", DotSegment),
            ("/v/..%3b/a", DotSegment),
            ("/v/;/a", EmptySegment),
            ("/;", EmptySegment),
            ("/v/%c0%ae%c0%ae/a", NeedlessEncoding),
            ("/v/a%C0%AFb", NeedlessEncoding),
            ("/v/a%c1%9cb", NeedlessEncoding),
            ("/v/%e0%80%ae/a", NeedlessEncoding),
            ("/v/%f0%80%80%af", NeedlessEncoding),
            ("/v\\a", RawCharacter),
            ("/v/\u{e9}", RawCharacter),
            ("/v/a b", RawCharacter),
            ("/v/a\u{0}", RawCharacter),
            ("/v/a#b", RawCharacter),
            ("/v/%2e%2e/a", NeedlessEncoding),
            ("/v/%2E/a", NeedlessEncoding),
            ("/v/a%2fb", NeedlessEncoding),
            ("/v/a%2Fb", NeedlessEncoding),
            ("/v/a%5cb", NeedlessEncoding),
            ("/%76/a", NeedlessEncoding),
            ("/v/%252e%252e/a", NeedlessEncoding),
            ("/v/a%00", NeedlessEncoding),
            ("/v/a%0d%0a", NeedlessEncoding),
            ("/v/a%7f", NeedlessEncoding),
            ("/v/a%", BrokenEncoding),
            ("/v/a%2", BrokenEncoding),
            ("/v/a%zz", BrokenEncoding),
        ] {
            assert_eq!(CleanPath::check(path), Err(why), "{path}");
        }
        assert_eq!(CleanPath::check(&format!("/{}", "a".repeat(MAX_PATH_BYTES))), Err(TooLong));
    }

    #[test]
    fn prefixes_match_whole_segments() {
        let path = CleanPath::check("/v/lesson1/master.m3u8").unwrap();
        for prefix in ["/", "/v/", "/v", "/v/lesson1/", "/v/lesson1", "/v/lesson1/master.m3u8"] {
            assert!(path.is_under(prefix), "{prefix}");
        }
        for prefix in ["", "v/", "/v/lesson", "/v/lesson11/", "/v/lesson1/master.m3u8/", "/V/"] {
            assert!(!path.is_under(prefix), "{prefix}");
        }
    }

    proptest! {
        /// Whatever passes says the same to a server that decodes once or twice and then resolves dots and slashes.
        #[test]
        fn what_passes_reads_the_same_decoded(path in "/[a-z./%\\\\0-9A-F]{0,24}") {
            if CleanPath::check(&path).is_ok() {
                let decode = |p: &[u8]| percent_encoding::percent_decode(p).collect::<Vec<u8>>();
                let structure = |p: &[u8]| p.iter().filter(|b| matches!(b, b'/' | b'\\' | b'.')).count();
                let once = decode(path.as_bytes());
                prop_assert_eq!(structure(&once), structure(path.as_bytes()));
                prop_assert_eq!(structure(&decode(&once)), structure(path.as_bytes()));
                prop_assert!(!once.split(|b| *b == b'/').any(|s| s == b"." || s == b".."));
            }
        }

        #[test]
        fn any_text_is_checked(path in "\\PC{0,64}") {
            let _ = CleanPath::check(&path);
        }
    }
}

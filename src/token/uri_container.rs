//! The URI container (`cdniuc`; RFC 9246, section 2.1.15): `hash:` and `regex:`.
//!
//! It is compared with the whole URI without the token, in the normal form of RFC 3986, section 6.2.2. A pattern is a POSIX
//! extended regular expression that has to match all of it: one that may match a part would allow every URI that can carry
//! the text in its query. The engine's time is linear in the URI; constructs that it reads otherwise than POSIX are
//! refused.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regex::bytes::{Regex, RegexBuilder};
use sha2::{Digest as _, Sha256};

use crate::denied::Denied;
use lyceum_http::path::CleanPath;

/// The longest pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1024;
/// The most memory that a compiled pattern may take, in bytes.
const MAX_COMPILED_BYTES: usize = 256 << 10;
/// How many compiled patterns are cached: the tokens of one course share theirs.
const MAX_CACHED_PATTERNS: u64 = 1024;

/// The requested URI without its path.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestUri<'a> {
    /// Whether the scheme is `https`.
    pub secure: bool,
    /// Host and port.
    pub host: &'a str,
    /// The query without the token.
    pub query: Option<&'a str>,
}

impl RequestUri<'_> {
    /// The normal form (RFC 3986, section 6.2.2 and 6.2.3; RFC 9110, section 4.2.3) with `path`.
    fn normal(&self, path: CleanPath<'_>) -> String {
        let (scheme, default) = if self.secure { ("https", ":443") } else { ("http", ":80") };
        let host = self.host.strip_suffix(default).unwrap_or(self.host);
        let host = host.strip_suffix(':').unwrap_or(host);
        let mut uri = String::with_capacity(16 + host.len() + path.as_str().len() + self.query.map_or(0, str::len));
        uri.push_str(scheme);
        uri.push_str("://");
        uri.extend(host.chars().map(|c| c.to_ascii_lowercase()));
        normalise(path.as_str(), &mut uri);
        if let Some(query) = self.query {
            uri.push('?');
            normalise(query, &mut uri);
        }
        uri
    }
}

/// Writes percent-encodings in upper case and decodes those of unreserved characters.
fn normalise(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let value = after.get(..2).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match value.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
                if unreserved {
                    out.push(char::from(byte));
                } else {
                    // Writing to a String does not fail.
                    let _ = write!(out, "%{byte:02X}");
                }
                rest = after.get(2..).unwrap_or("");
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
}

/// The container of a token.
#[derive(Debug, PartialEq)]
pub(super) enum UriContainer {
    /// The SHA-256 of the URI, or its first bytes.
    Hash(Box<[u8]>),
    /// A pattern that the URI has to match.
    Pattern(Box<str>),
}

impl UriContainer {
    /// Reads the claim. One of another form is an unsupported claim.
    pub(super) fn read(text: &str) -> Result<Self, Denied> {
        if let Some(hash) = text.strip_prefix("hash:") {
            // RFC 6920, section 5: the suite, a semicolon, the value. Shorter ones can be found by trial.
            let (suite, value) = hash.split_once(';').ok_or(Denied::Malformed)?;
            let length = match suite {
                "sha-256" => 32,
                "sha-256-128" => 16,
                _ => return Err(Denied::UnsupportedClaim("cdniuc")),
            };
            let value = URL_SAFE_NO_PAD.decode(value).map_err(|_| Denied::Malformed)?;
            if value.len() != length {
                return Err(Denied::Malformed);
            }
            return Ok(Self::Hash(value.into_boxed_slice()));
        }
        let Some(pattern) = text.strip_prefix("regex:") else { return Err(Denied::UnsupportedClaim("cdniuc")) };
        compile(pattern)?;
        Ok(Self::Pattern(pattern.into()))
    }

    /// Whether the container allows the URI of `path` and `uri`.
    pub(super) fn holds(&self, path: CleanPath<'_>, uri: &RequestUri<'_>, patterns: &PatternCache) -> bool {
        let uri = uri.normal(path);
        match self {
            Self::Hash(wanted) => Sha256::digest(uri.as_bytes()).starts_with(wanted),
            Self::Pattern(pattern) => patterns.get(pattern).is_some_and(|regex| regex.is_match(uri.as_bytes())),
        }
    }
}

/// A bounded number of compiled patterns.
#[derive(Debug)]
pub(super) struct PatternCache(moka::sync::Cache<Box<str>, Arc<Regex>>);

impl PatternCache {
    pub(super) fn new() -> Self {
        Self(moka::sync::Cache::new(MAX_CACHED_PATTERNS))
    }

    fn get(&self, pattern: &str) -> Option<Arc<Regex>> {
        if let Some(regex) = self.0.get(pattern) {
            return Some(regex);
        }
        let regex = Arc::new(compile(pattern).ok()?);
        self.0.insert(pattern.into(), Arc::clone(&regex));
        Some(regex)
    }
}

fn compile(pattern: &str) -> Result<Regex, Denied> {
    if pattern.is_empty() || pattern.len() > MAX_PATTERN_BYTES || !pattern.is_ascii() {
        return Err(Denied::Malformed);
    }
    if !reads_as_posix(pattern) {
        return Err(Denied::UnsupportedClaim("cdniuc"));
    }
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .unicode(false)
        .dot_matches_new_line(true)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .nest_limit(50)
        .build()
        .map_err(|_| Denied::Malformed)
}

/// Whether a pattern means the same in POSIX (section 9.4) and to the engine. False for what POSIX leaves undefined, such
/// as `\d`, `(?`, `*?` or a repetition of a repetition.
fn reads_as_posix(pattern: &str) -> bool {
    let mut rest = pattern.as_bytes();
    let mut before = b'(';
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'\\' => match rest {
                [escaped, tail @ ..] if !escaped.is_ascii_alphanumeric() => rest = tail,
                _ => return false,
            },
            b'[' => match bracket(rest) {
                Some(tail) => rest = tail,
                None => return false,
            },
            b'*' | b'+' | b'?' | b'{' if matches!(before, b'(' | b'|' | b'*' | b'+' | b'?' | b'}' | b'^') => {
                return false;
            }
            _ => {}
        }
        before = match byte {
            b'\\' | b'[' => b'a',
            byte => *byte,
        };
    }
    true
}

/// What follows a bracket expression, of which `inside` follows the `[`; none where the engine reads it otherwise.
fn bracket(inside: &[u8]) -> Option<&[u8]> {
    let mut rest = inside.strip_prefix(b"^").unwrap_or(inside);
    // A `]` that comes first is a member.
    rest = rest.strip_prefix(b"]").unwrap_or(rest);
    loop {
        match rest {
            [b']', tail @ ..] => return Some(tail),
            [b'[', b':', tail @ ..] => {
                let end = tail.windows(2).position(|pair| pair == b":]")?;
                let (name, behind) = tail.split_at_checked(end)?;
                let known = [
                    "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper",
                    "xdigit",
                ];
                if !known.iter().any(|class| class.as_bytes() == name) {
                    return None;
                }
                rest = behind.get(2..)?;
            }
            // POSIX takes a backslash and these pairs literally here; the engine does not.
            [b'[' | b'\\', ..] | [b'&', b'&', ..] | [b'~', b'~', ..] | [b'-', b'-', ..] | [] => return None,
            [_, tail @ ..] => rest = tail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holds(container: &str, secure: bool, host: &str, path: &str, query: Option<&str>) -> bool {
        let container = UriContainer::read(container).unwrap();
        let uri = RequestUri { secure, host, query };
        container.holds(CleanPath::check(path).unwrap(), &uri, &PatternCache::new())
    }

    #[test]
    fn the_example_of_the_rfc_allows_its_segments() {
        let pattern = r"regex:[^:]*\://[^/]*/dir/content/quality_[^/]*/segment.{3}\.mp4(\?.*)?";
        assert!(holds(pattern, true, "cdn.example", "/dir/content/quality_hi/segment001.mp4", None));
        assert!(holds(pattern, false, "cdn.example:8080", "/dir/content/quality_hi/segment001.mp4", Some("a=b")));
        assert!(!holds(pattern, true, "cdn.example", "/dir/content/quality_hi/x/segment001.mp4", None));
        assert!(!holds(pattern, true, "cdn.example", "/dir/content/quality_hi/segment0001.mp4", None));
    }

    #[test]
    fn a_pattern_has_to_match_the_whole_uri() {
        let pattern = r"regex:https://h\.example/v/a/.*";
        assert!(holds(pattern, true, "H.example:443", "/v/a/x", None), "the normal form is what counts");
        assert!(!holds(pattern, false, "h.example", "/v/a/x", None));
        assert!(!holds(pattern, true, "h.example", "/v/b/x", Some("u=https://h.example/v/a/")));
        assert!(
            !holds(r"regex:https://h\.example/v/a/x|z", true, "h.example", "/v/a/xz", None),
            "each alternative has to match the whole URI"
        );
        assert!(holds("regex:.*/caf%C3%A9~.*", true, "h", "/caf%c3%a9~", Some("%7e=%2f")));
    }

    #[test]
    fn a_hash_allows_one_uri() {
        let of = |uri: &str| URL_SAFE_NO_PAD.encode(Sha256::digest(uri));
        let whole = format!("hash:sha-256;{}", of("https://h/v/a/x?b=c"));
        assert!(holds(&whole, true, "h", "/v/a/x", Some("b=c")));
        assert!(!holds(&whole, true, "h", "/v/a/x", None) && !holds(&whole, true, "h", "/v/a/y", Some("b=c")));
        let half = format!("hash:sha-256-128;{}", URL_SAFE_NO_PAD.encode(&Sha256::digest("http://h/v")[..16]));
        assert!(holds(&half, false, "h", "/v", None) && !holds(&half, false, "h", "/w", None));
    }

    #[test]
    fn ambiguous_or_expensive_patterns_are_refused() {
        use Denied::{Malformed, UnsupportedClaim};
        for (container, why) in [
            ("glob:*", UnsupportedClaim("cdniuc")),
            ("", UnsupportedClaim("cdniuc")),
            ("hash:sha-256-32;AAAAAA", UnsupportedClaim("cdniuc")),
            ("hash:sha-256", Malformed),
            ("hash:sha-256;AAAA", Malformed),
            ("regex:", Malformed),
            ("regex:(", Malformed),
            ("regex:\u{e9}", Malformed),
            ("regex:((a{1000}){1000}){1000}", Malformed),
            (r"regex:\d+", UnsupportedClaim("cdniuc")),
            (r"regex:(?i)a", UnsupportedClaim("cdniuc")),
            (r"regex:a*?", UnsupportedClaim("cdniuc")),
            (r"regex:[\w]", UnsupportedClaim("cdniuc")),
            (r"regex:[a&&b]", UnsupportedClaim("cdniuc")),
            (r"regex:[[.a.]]", UnsupportedClaim("cdniuc")),
            (r"regex:[a", UnsupportedClaim("cdniuc")),
        ] {
            assert_eq!(UriContainer::read(container), Err(why), "{container}");
        }
        assert_eq!(UriContainer::read(&format!("regex:{}", "a".repeat(MAX_PATTERN_BYTES + 1))), Err(Malformed));
        for good in
            ["regex:[]a]", "regex:[^]a]", "regex:[[:alnum:]_-]+", r"regex:a\.b\*", "regex:a{2,3}", "regex:(a|b)*c"]
        {
            assert!(UriContainer::read(good).is_ok(), "{good}");
        }
    }

    proptest! {
        #[test]
        fn no_container_panics(text in "(regex:|hash:sha-256;)?[ -~]{0,40}", path in "/[a-z%0-9]{0,8}") {
            if let (Ok(container), Ok(path)) = (UriContainer::read(&text), CleanPath::check(&path)) {
                let _ = container.holds(path, &RequestUri { secure: true, host: "h", query: Some("%") }, &PatternCache::new());
            }
        }
    }
}

//! Extracts the token of a request from the path (`/t/{token}/…`), the query (`?token=`), `Authorization: Bearer` (RFC 6750,
//! section 2.1) or the cookie `lyceum_token`; the first of these that has one decides. The query parameter and the cookie
//! may have a second name (RFC 9246, section 2).
//!
//! The token is not verified here: it may be any text.

use http::header::{self, HeaderMap};
use serde::Deserialize;

use lyceum_http::fields;

/// The query parameter of a token.
pub const QUERY_PARAMETER: &str = "token";
/// The cookie of a token.
pub const COOKIE_NAME: &str = "lyceum_token";
/// The longest second name, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// The prefix of a path with a token.
pub const PATH_PREFIX: &str = "/t/";

/// The names of the query parameter and the cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TokenNames {
    /// The second name of both.
    attribute: Option<Box<str>>,
}

impl TryFrom<String> for TokenNames {
    type Error = &'static str;

    /// The default names, and `attribute` as the second one.
    fn try_from(attribute: String) -> Result<Self, Self::Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if attribute.is_empty() || attribute.len() > MAX_NAME_BYTES || !attribute.bytes().all(plain) {
            return Err("a name is 1 to 64 letters, digits, - and _");
        }
        Ok(Self { attribute: Some(attribute.into()) })
    }
}

/// Where in a request the token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPlacement {
    /// In front of the path, behind `/t/`.
    Path,
    /// A parameter of the query.
    Query,
    /// `Authorization`.
    Header,
    /// `Cookie`.
    Cookie,
}

/// Splits `/t/{token}/rest` into token and `/rest`. The prefix is no part of what is routed or forwarded.
#[inline]
pub fn in_path(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(PATH_PREFIX)?;
    // memchr: a token is long, and this runs on each request.
    rest.split_at_checked(memchr::memchr(b'/', rest.as_bytes())?)
}

/// The shortest signature of a token, in characters of base64url: that of HS256.
const MIN_SIGNATURE_CHARS: usize = 43;

/// Whether a segment has the form of a signed token (RFC 7515, section 7.1).
pub fn looks_signed(segment: &str) -> bool {
    let mut parts = segment.split('.');
    let (Some(header), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let is_base64url = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'='))
    };
    signature.len() >= MIN_SIGNATURE_CHARS && [header, claims, signature].into_iter().all(is_base64url)
}

/// Whether a path begins with `/t/` and what has the form of a signed token.
pub fn leads_with_token(path: &str) -> bool {
    let segment = path.strip_prefix(PATH_PREFIX).and_then(|rest| rest.split('/').next());
    segment.is_some_and(looks_signed)
}

/// The credentials of `Authorization: Bearer`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, credentials) = fields::single(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim())
}

impl TokenNames {
    /// The first token outside of the path.
    pub fn outside_path<'a>(
        &self,
        query: Option<&'a str>,
        headers: &'a HeaderMap,
    ) -> Option<(TokenPlacement, &'a str)> {
        let in_query =
            || query?.split('&').find_map(|pair| self.of_parameter(pair)).map(|token| (TokenPlacement::Query, token));
        in_query()
            .or_else(|| bearer(headers).map(|token| (TokenPlacement::Header, token)))
            .or_else(|| self.cookie(headers).map(|token| (TokenPlacement::Cookie, token)))
    }

    /// `query` without its tokens; none where nothing else is left.
    pub fn query_without_token(&self, query: &str) -> Option<String> {
        let others: Vec<&str> = query.split('&').filter(|pair| self.of_parameter(pair).is_none()).collect();
        let others = others.join("&");
        (!others.is_empty()).then_some(others)
    }

    /// The token in the cookie: of several the first, whose path is the longest (RFC 6265, section 5.4).
    pub fn cookie<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        fields::values(headers, &header::COOKIE)
            .flat_map(|value| value.split(';'))
            .find_map(|pair| self.of_cookie(pair))
            .map(fields::unquote)
    }

    /// A `Cookie` field without its tokens; none where nothing else is left.
    pub fn cookie_without_token(&self, value: &str) -> Option<String> {
        let is_other = |pair: &&str| !pair.is_empty() && self.of_cookie(pair).is_none();
        let others: Vec<&str> = value.split(';').map(str::trim).filter(is_other).collect();
        (!others.is_empty()).then(|| others.join("; "))
    }

    /// The name of the cookie in `Set-Cookie`.
    pub fn cookie_name(&self) -> &str {
        self.attribute.as_deref().unwrap_or(COOKIE_NAME)
    }

    fn of_parameter<'a>(&self, pair: &'a str) -> Option<&'a str> {
        self.named(QUERY_PARAMETER, pair)
    }

    fn of_cookie<'a>(&self, pair: &'a str) -> Option<&'a str> {
        self.named(COOKIE_NAME, pair.trim())
    }

    fn named<'a>(&self, own: &str, pair: &'a str) -> Option<&'a str> {
        let (name, value) = pair.split_once('=')?;
        (name == own || self.attribute.as_deref() == Some(name)).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use lyceum_http::path::CleanPath;
    use proptest::prelude::*;

    #[test]
    fn the_first_placement_counts() {
        let names = TokenNames::default();
        let mut headers = HeaderMap::new();
        assert_eq!(in_path("/t/a.b.c/v/x"), Some(("a.b.c", "/v/x")));
        assert_eq!((in_path("/t/a.b.c"), in_path("/v/t/a/x"), in_path("/t//v")), (None, None, Some(("", "/v"))));
        headers.insert("cookie", HeaderValue::from_static("a=1; lyceum_token=\"c1\"; lyceum_token=c2"));
        assert_eq!(names.outside_path(None, &headers), Some((TokenPlacement::Cookie, "c1")));
        headers.insert("authorization", HeaderValue::from_static("bearer b"));
        assert_eq!(names.outside_path(Some("x=1"), &headers), Some((TokenPlacement::Header, "b")));
        assert_eq!(names.outside_path(Some("x=1&token=q&token=r"), &headers), Some((TokenPlacement::Query, "q")));
        assert_eq!(
            (names.query_without_token("token=q&x=1&token=r&y"), names.query_without_token("token=q")),
            (Some("x=1&y".into()), None)
        );
        assert_eq!(names.outside_path(Some("tokens=q&xtoken=r"), &HeaderMap::new()), None);
    }

    #[test]
    fn the_second_name_counts_like_the_first() {
        let names = TokenNames::try_from("URISigningPackage".to_owned()).unwrap();
        let no_fields = HeaderMap::new();
        let found = |query| names.outside_path(Some(query), &no_fields).map(|(_, token)| token);
        assert_eq!(
            (found("a=1&URISigningPackage=u&token=t"), found("token=t&URISigningPackage=u")),
            (Some("u"), Some("t"))
        );
        assert_eq!((found("urisigningpackage=u"), found("URISigningPackage")), (None, None));
        assert_eq!(names.query_without_token("a=1&URISigningPackage=u&token=t&b=2").as_deref(), Some("a=1&b=2"));
        let cookies = HeaderMap::from_iter([(
            header::COOKIE,
            HeaderValue::from_static("a=1; URISigningPackage=u; lyceum_token=t"),
        )]);
        assert_eq!((names.cookie(&cookies), TokenNames::default().cookie(&cookies)), (Some("u"), Some("t")));
        assert_eq!(names.cookie_without_token("a=1; URISigningPackage=u; lyceum_token=t").as_deref(), Some("a=1"));
        assert_eq!((names.cookie_name(), TokenNames::default().cookie_name()), ("URISigningPackage", "lyceum_token"));
        for wrong in ["", "a=b", "a b", "ä", "a;b", "a&b", "a.b", &"a".repeat(65)] {
            assert!(TokenNames::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_signed_token_is_known_by_its_form() {
        let signature = "s".repeat(43);
        let token = format!("eyJh.eyJp.{signature}");
        assert!(looks_signed(&token) && leads_with_token(&format!("/t/{token}")));
        assert!(leads_with_token(&format!("/t/{token}/v/x")) && !leads_with_token(&format!("/x/t/{token}/v/x")));
        for other in ["v1.2.3", "jquery.min.js", "", "..", "a.b", &format!("{token}.x"), &format!("a.b/{signature}")] {
            assert!(!looks_signed(other) && !leads_with_token(&format!("/t/{other}/x")), "{other}");
        }
    }

    #[test]
    fn a_cookie_field_loses_its_tokens_and_nothing_else() {
        for (value, left) in [
            ("a=1; lyceum_token=x; b=\"2\"", Some("a=1; b=\"2\"")),
            ("lyceum_token=x;lyceum_token=y", None),
            ("lyceum_tokens=x", Some("lyceum_tokens=x")),
            ("a;", Some("a")),
        ] {
            assert_eq!(TokenNames::default().cookie_without_token(value).as_deref(), left, "{value}");
        }
    }

    proptest! {
        /// Taking a token out of a path leaves the rest as it was, and what is left of a query never holds one.
        #[test]
        fn extraction_leaves_the_rest_as_it_was(path in "/t?/?[a-z.%/]{0,20}", query in "([tokenx]{1,6}=?[a-z]{0,3}&?){0,5}") {
            let names = TokenNames::default();
            if let Some((token, rest)) = in_path(&path) {
                prop_assert!(!token.contains('/') && rest.starts_with('/'));
                prop_assert_eq!(&format!("/t/{token}{rest}"), &path);
                if let Ok(clean) = CleanPath::check(rest) {
                    prop_assert!(clean.segments().all(|segment| segment != ".." && segment != "."));
                }
            }
            if let Some(left) = names.query_without_token(&query) {
                prop_assert!(names.outside_path(Some(&left), &HeaderMap::new()).is_none());
            }
        }
    }
}

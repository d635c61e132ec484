//! `Cache-Control` (RFC 9111, section 5.2; RFC 5861; RFC 8246) and `CDN-Cache-Control` (RFC 9213).
//!
//! An unclear field is interpreted so that less is stored and served.

use http::header::{self, HeaderMap, HeaderName};

use crate::fields;

/// `CDN-Cache-Control`.
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// Times are limited to this many seconds (RFC 9111, section 1.2.2).
pub const MAX_DELTA_SECONDS: u32 = 1 << 31;

/// What a message's directives say, for a shared cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// Nothing of the exchange may be stored.
    pub no_store: bool,
    /// To be validated before each use; also when only some fields are named.
    pub no_cache: bool,
    /// For one user alone; also when only some fields are named.
    pub private: bool,
    /// May be stored although the request was authorized.
    pub public: bool,
    /// Once stale, never without validation.
    pub must_revalidate: bool,
    /// The same, for shared caches.
    pub proxy_revalidate: bool,
    /// Store only when the status code is understood; then `no-store` is ignored.
    pub must_understand: bool,
    /// Does not change while fresh (RFC 8246).
    pub immutable: bool,
    /// Intermediaries must not transform the content.
    pub no_transform: bool,
    /// Request: answer from the cache or with 504.
    pub only_if_cached: bool,
    /// Freshness lifetime in seconds.
    pub max_age: Option<u32>,
    /// Freshness lifetime in a shared cache, in seconds.
    pub s_maxage: Option<u32>,
    /// Seconds after expiry in which it may be used while it is validated (RFC 5861, section 3).
    pub stale_while_revalidate: Option<u32>,
    /// Seconds after expiry in which it may be used when the origin fails (RFC 5861, section 4).
    pub stale_if_error: Option<u32>,
    /// Request: seconds that it must stay fresh for.
    pub min_fresh: Option<u32>,
    /// Request: seconds that it may be stale; [`MAX_DELTA_SECONDS`] without a value.
    pub max_stale: Option<u32>,
}

impl Directives {
    /// Reads all `Cache-Control` fields.
    pub fn of(headers: &HeaderMap) -> Self {
        Self::read(headers, &header::CACHE_CONTROL)
    }

    /// Reads all `CDN-Cache-Control` fields, if there are any and they are well formed.
    pub fn targeted(headers: &HeaderMap) -> Option<Self> {
        headers.get(&CDN_CACHE_CONTROL)?;
        let well_formed = headers
            .get_all(&CDN_CACHE_CONTROL)
            .iter()
            .all(|value| value.to_str().is_ok_and(|text| fields::list(text).all(is_dictionary_member)));
        // One that is empty or malformed is ignored (RFC 9213, section 2.1).
        let says_something = fields::values(headers, &CDN_CACHE_CONTROL).flat_map(fields::list).next().is_some();
        (well_formed && says_something).then(|| Self::read(headers, &CDN_CACHE_CONTROL))
    }

    fn read(headers: &HeaderMap, name: &HeaderName) -> Self {
        let mut directives = Self::default();
        // Of two values the smaller (RFC 9111, section 4.2.1); in a dictionary the last (RFC 8941, section 3.2).
        let choose = if *name == CDN_CACHE_CONTROL { |_, last| last } else { u32::min };
        for value in headers.get_all(name) {
            match value.to_str() {
                Ok(text) => fields::list(text).for_each(|member| {
                    // Members of a dictionary may have parameters, which have no meaning here (RFC 9213, section 2.1).
                    let end = if *name == CDN_CACHE_CONTROL { fields::unquoted(member, b';') } else { None };
                    directives.add(end.and_then(|end| member.get(..end)).unwrap_or(member), choose);
                }),
                // Bytes that no directive may contain: their meaning is unknown.
                Err(_) => directives.no_store = true,
            }
        }
        directives
    }

    fn add(&mut self, member: &str, choose: fn(u32, u32) -> u32) {
        let (name, value) = match member.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
            None => (member, None),
        };
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let flags = [
            ("no-store", &mut self.no_store),
            ("no-cache", &mut self.no_cache),
            ("private", &mut self.private),
            ("public", &mut self.public),
            ("must-revalidate", &mut self.must_revalidate),
            ("proxy-revalidate", &mut self.proxy_revalidate),
            ("must-understand", &mut self.must_understand),
            ("immutable", &mut self.immutable),
            ("no-transform", &mut self.no_transform),
            ("only-if-cached", &mut self.only_if_cached),
        ];
        for (known, flag) in flags {
            if is(known) {
                *flag = true;
                return;
            }
        }
        if is("max-stale") {
            self.max_stale = Some(value.map_or(MAX_DELTA_SECONDS, seconds));
            return;
        }
        let times = [
            ("max-age", &mut self.max_age),
            ("s-maxage", &mut self.s_maxage),
            ("stale-while-revalidate", &mut self.stale_while_revalidate),
            ("stale-if-error", &mut self.stale_if_error),
            ("min-fresh", &mut self.min_fresh),
        ];
        for (known, time) in times {
            if is(known) {
                // A missing or malformed value counts as 0.
                let new = value.map_or(0, seconds);
                *time = Some(time.map_or(new, |old| choose(old, new)));
                return;
            }
        }
    }
}

/// delta-seconds (RFC 9111, section 1.2.2), quoted or not; anything else is no time at all.
fn seconds(value: &str) -> u32 {
    let digits = fields::unquote(value);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return 0;
    }
    digits.parse::<u32>().map_or(MAX_DELTA_SECONDS, |n| n.min(MAX_DELTA_SECONDS))
}

/// A member of a Structured Fields dictionary (RFC 9651, section 3.2) as far as directives need it: a lower-case key,
/// alone or with an integer, boolean, token or string; parameters are ignored.
fn is_dictionary_member(member: &str) -> bool {
    let (key, value) = member.split_once('=').map_or((member, None), |(k, v)| (k, Some(v)));
    let key = key.split(';').next().unwrap_or_default();
    let mut bytes = key.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'*');
    let goes_on = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.' | b'*'));
    // A value of the wrong type is malformed too.
    let is_time = ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"].contains(&key);
    let value_fits = value.map_or(!is_time, |v| {
        let bare = v.split(';').next().unwrap_or_default();
        let typed = !is_time || (bare.len() <= 15 && bare.bytes().all(|b| b.is_ascii_digit()));
        !bare.is_empty() && !bare.contains([' ', '\t']) && typed
    });
    starts && goes_on && value_fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn of(values: &[&str]) -> Directives {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CACHE_CONTROL, HeaderValue::from_str(value).unwrap());
        }
        Directives::of(&headers)
    }

    #[test]
    fn directives_are_read_in_any_case_and_form() {
        let d = of(&["Public, MAX-AGE=60", "s-maxage=\"120\", stale-if-error = 6, immutable"]);
        assert!(d.public && d.immutable && !d.private);
        assert_eq!((d.max_age, d.s_maxage, d.stale_if_error), (Some(60), Some(120), Some(6)));
    }

    #[test]
    fn what_is_unclear_is_read_the_careful_way() {
        assert_eq!(of(&["max-age=60, max-age=10"]).max_age, Some(10));
        assert_eq!(of(&["max-age=10", "max-age=60"]).max_age, Some(10));
        for bad in ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=x", "max-age=\"1"] {
            assert_eq!(of(&[bad]).max_age, Some(0), "{bad}");
        }
        assert_eq!(of(&["max-age=99999999999999999999"]).max_age, Some(MAX_DELTA_SECONDS));
        assert!(of(&["private=\"set-cookie\""]).private);
        assert!(of(&["no-cache=\"set-cookie, x\", max-age=1"]).no_cache);
        assert_eq!(of(&["x=\"max-age=5\""]).max_age, None, "inside of a quoted string");
        assert_eq!(of(&["max-stale"]).max_stale, Some(MAX_DELTA_SECONDS));
    }

    #[test]
    fn the_targeted_field_counts_only_when_well_formed() {
        let targeted = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CDN_CACHE_CONTROL, HeaderValue::from_str(value).unwrap());
            Directives::targeted(&headers)
        };
        assert_eq!(targeted("max-age=60").unwrap().max_age, Some(60));
        assert!(targeted("no-store").unwrap().no_store);
        assert_eq!(targeted("max-age=60, max-age=10").unwrap().max_age, Some(10));
        assert_eq!(targeted("max-age=10, max-age=60").unwrap().max_age, Some(60), "the last of a dictionary's");
        for bad in
            ["max-age=\"60\"", "max-age=-1", "max-age", "Max-Age=60", "max-age = 60", "max-age=", "=5", "ä", "", " , "]
        {
            assert_eq!(targeted(bad), None, "{bad}");
        }
        assert_eq!(Directives::targeted(&HeaderMap::new()), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[ -~]{0,100}") {
            let _ = of(&[&text]);
        }
    }
}

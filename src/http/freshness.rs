//! Whether a response may be stored, how long it is fresh and how old it is (RFC 9111, sections 3 and 4; RFC 5861; RFC 9213).

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::cache_control::{Directives, MAX_DELTA_SECONDS};
use crate::fields;

/// Why a response is not stored. The name is a log field and a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStored {
    /// Responses to this method are not stored.
    Method,
    /// The status can't be stored, or `must-understand` names one that is not understood.
    Status,
    /// `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// The request was authorized and the response does not allow shared storing.
    Authorized,
    /// No explicit freshness lifetime.
    NoFreshness,
    /// `Vary: *`, more than [`MAX_VARY`] fields, or something that is not a field name.
    VaryAny,
    /// It sets a cookie, so it is for one user.
    SetCookie,
    /// Its content coding was not asked for.
    Coding,
    /// It ends with its connection, so it may be incomplete.
    Length,
}

impl NotStored {
    /// The label.
    #[inline]
    pub fn name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::NoStore => "no_store",
            Self::Private => "private",
            Self::Authorized => "authorized",
            Self::NoFreshness => "no_freshness",
            Self::VaryAny => "vary_any",
            Self::SetCookie => "set_cookie",
            Self::Coding => "content_coding",
            Self::Length => "no_length",
        }
    }
}

/// The parts of a request and its response that decide about storing.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// Whether the request that went upstream carried a client's `Authorization`.
    pub authorized: bool,
    /// The response's status.
    pub status: StatusCode,
    /// The response's fields.
    pub headers: &'a HeaderMap,
    /// When the request was sent, in milliseconds of the steady clock.
    pub requested_ms: i64,
    /// When the response's header was received, in milliseconds of the steady clock.
    pub received_ms: i64,
    /// The same by the wall clock, in milliseconds since the epoch, to compare `Date` with.
    pub received_unix_ms: i64,
    /// How far the origin's wall clock may be behind this one, in seconds: a `Date` within it does not age a response.
    pub clock_skew: u32,
    /// Freshness lifetime in seconds of a response without an explicit one; none: it is not stored.
    pub default_life: Option<u32>,
}

/// How long a stored response may be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// Freshness lifetime in seconds, from its generation at the origin.
    pub life: u32,
    /// Its age when it was received, in seconds.
    pub initial_age: u32,
    /// When it was received, in milliseconds of the steady clock, as is every `now_ms` here; in a file that outlives the
    /// process, since the epoch.
    pub received_ms: i64,
    /// `no-cache`: to be validated before each use.
    pub always_validate: bool,
    /// Never to be used once stale.
    pub must_revalidate: bool,
    /// Seconds after expiry in which it is used while it is validated.
    pub while_revalidate: u32,
    /// Seconds after expiry in which it is used when the origin fails.
    pub if_error: u32,
    /// It was purged softly: it is never fresh again, whatever the clock says.
    #[serde(default)]
    pub ended: bool,
}

/// What may be done with a stored response now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreshnessState {
    /// Use it.
    Fresh,
    /// Use it and validate it in the background (RFC 5861, section 3).
    StaleWhileRevalidate,
    /// Validate it first; it may be used if the origin fails (RFC 5861, section 4).
    StaleIfError,
    /// Validate it first.
    Stale,
}

impl Freshness {
    /// Fresh for `life` seconds from its receipt, with no use after that.
    pub fn lasting(life: u32, received_ms: i64) -> Self {
        Self {
            life,
            initial_age: 0,
            received_ms,
            always_validate: false,
            must_revalidate: false,
            while_revalidate: 0,
            if_error: 0,
            ended: false,
        }
    }

    /// Whether a response may be stored by a shared cache, and for how long it is fresh.
    pub fn judge(exchange: &Exchange<'_>) -> Result<Self, NotStored> {
        let headers = exchange.headers;
        let targeted = Directives::targeted(headers);
        let is_targeted = targeted.is_some();
        let directives = targeted.unwrap_or_else(|| Directives::of(headers));
        may_store(exchange, &directives)?;
        let expires = || if is_targeted { None } else { expires_life(headers, exchange.received_unix_ms) };
        let life = directives
            .s_maxage
            .or(directives.max_age)
            .or_else(expires)
            .or(exchange.default_life.filter(|_| may_be_guessed(exchange.status)))
            // To be validated before each use: worth storing where it can be validated.
            .or(directives
                .no_cache
                .then_some(0)
                .filter(|_| may_be_guessed(exchange.status) && may_be_validated(headers)))
            .ok_or(NotStored::NoFreshness)?;
        Ok(Self {
            life,
            initial_age: initial_age(exchange),
            received_ms: exchange.received_ms,
            always_validate: directives.no_cache,
            // s-maxage implies proxy-revalidate (RFC 9111, section 5.2.2.10).
            must_revalidate: directives.must_revalidate || directives.proxy_revalidate || directives.s_maxage.is_some(),
            while_revalidate: directives.stale_while_revalidate.unwrap_or(0),
            if_error: directives.stale_if_error.unwrap_or(0),
            ended: false,
        })
    }

    /// The current age in seconds (RFC 9111, section 4.2.3).
    #[inline]
    pub fn age(&self, now_ms: i64) -> u32 {
        let resident = now_ms.saturating_sub(self.received_ms).max(0) / 1000;
        self.initial_age.saturating_add(u32::try_from(resident).unwrap_or(MAX_DELTA_SECONDS)).min(MAX_DELTA_SECONDS)
    }

    /// Remaining freshness lifetime in seconds; negative once stale.
    #[inline]
    pub fn left(&self, now_ms: i64) -> i64 {
        let left = i64::from(self.life) - i64::from(self.age(now_ms));
        if self.ended { left.min(0) } else { left }
    }

    /// What may be done with it now.
    #[inline]
    pub fn standing(&self, now_ms: i64) -> FreshnessState {
        let left = self.left(now_ms);
        if left > 0 && !self.always_validate {
            return FreshnessState::Fresh;
        }
        if self.must_revalidate || self.always_validate {
            return FreshnessState::Stale;
        }
        let stale_for = -left;
        if stale_for < i64::from(self.while_revalidate) {
            FreshnessState::StaleWhileRevalidate
        } else if stale_for < i64::from(self.if_error) {
            FreshnessState::StaleIfError
        } else {
            FreshnessState::Stale
        }
    }

    /// Whether it may be used for a request with these directives (RFC 9111, section 5.2.1).
    pub fn meets(&self, demands: &Directives, now_ms: i64) -> bool {
        let (age, left) = (i64::from(self.age(now_ms)), self.left(now_ms));
        let young = demands.max_age.is_none_or(|most| age <= i64::from(most));
        let lasting = demands.min_fresh.is_none_or(|least| left >= i64::from(least));
        if demands.no_cache || !young || !lasting {
            return false;
        }
        match self.standing(now_ms) {
            FreshnessState::Fresh => true,
            FreshnessState::StaleWhileRevalidate if demands.min_fresh.is_none() => true,
            _ => {
                let forbidden = self.must_revalidate || self.always_validate;
                !forbidden && demands.max_stale.is_some_and(|most| -left <= i64::from(most))
            }
        }
    }

    /// Whether it may be used now because the origin failed.
    pub fn usable_on_error(&self, now_ms: i64) -> bool {
        match self.standing(now_ms) {
            FreshnessState::Fresh => true,
            FreshnessState::Stale => false,
            FreshnessState::StaleWhileRevalidate | FreshnessState::StaleIfError => {
                -self.left(now_ms) < i64::from(self.if_error)
            }
        }
    }

    /// A copy with another time of receipt: the same by another clock.
    pub fn received_at(&self, received_ms: i64) -> Self {
        Self { received_ms, ..self.clone() }
    }

    /// A copy that is stale from `at_ms` at the latest (a soft purge). The times of RFC 5861 count from then.
    pub fn ended_at(&self, at_ms: i64) -> Self {
        Self { life: self.life.min(self.age(at_ms)), ended: true, ..self.clone() }
    }

    /// A copy that has been stale for an unknown time: it can only be validated.
    pub fn ended_long_ago(&self) -> Self {
        Self { life: 0, while_revalidate: 0, if_error: 0, ended: true, ..self.clone() }
    }
}

/// RFC 9111, section 3.
fn may_store(exchange: &Exchange<'_>, directives: &Directives) -> Result<(), NotStored> {
    if *exchange.method != Method::GET {
        return Err(NotStored::Method);
    }
    let status = exchange.status;
    if status.is_informational() || matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED) {
        return Err(NotStored::Status);
    }
    if directives.must_understand {
        if !understood(status) {
            return Err(NotStored::Status);
        }
    } else if directives.no_store {
        return Err(NotStored::NoStore);
    }
    if directives.private {
        return Err(NotStored::Private);
    }
    let for_all = directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if exchange.authorized && !for_all {
        return Err(NotStored::Authorized);
    }
    if !varies_by_fields(exchange.headers) {
        return Err(NotStored::VaryAny);
    }
    if exchange.headers.contains_key(header::SET_COOKIE) {
        return Err(NotStored::SetCookie);
    }
    Ok(())
}

/// The most fields that `Vary` may name for a response to be stored.
pub const MAX_VARY: usize = 16;

/// Whether `Vary` names only fields, at most [`MAX_VARY`].
fn varies_by_fields(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::VARY).iter();
    let is_name = |name: &str| name != "*" && HeaderName::from_bytes(name.as_bytes()).is_ok();
    let all_names = values.all(|value| value.to_str().is_ok_and(|text| fields::list(text).all(is_name)));
    all_names && fields::values(headers, &header::VARY).flat_map(fields::list).count() <= MAX_VARY
}

/// Status codes whose caching this cache knows (RFC 9110, section 15).
fn understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 302 | 303 | 307 | 308 | 400..=410 | 414 | 416 | 421 | 451 | 500..=504
    )
}

fn may_be_validated(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ETAG) || headers.contains_key(header::LAST_MODIFIED)
}

/// Status codes whose responses may be fresh without saying so (RFC 9110, section 15.1).
fn may_be_guessed(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// `Expires` − `Date` (RFC 9111, section 4.2.1). An invalid or repeated `Expires` is in
/// the past (section 5.3).
fn expires_life(headers: &HeaderMap, received_unix_ms: i64) -> Option<u32> {
    headers.get(header::EXPIRES)?;
    let expires = fields::single(headers, &header::EXPIRES).and_then(fields::date_leniently);
    let life = expires.map_or(0, |expires| expires.saturating_sub(date(headers, received_unix_ms)));
    Some(u32::try_from(life.max(0)).unwrap_or(MAX_DELTA_SECONDS).min(MAX_DELTA_SECONDS))
}

/// `Date`, or when the response was received.
fn date(headers: &HeaderMap, received_unix_ms: i64) -> i64 {
    let received = received_unix_ms.div_euclid(1000);
    fields::single(headers, &header::DATE).and_then(fields::date_leniently).unwrap_or(received)
}

/// The age on receipt (RFC 9111, section 4.2.3), from `Age`, `Date` and the response delay.
///
/// That section lets a cache take `Age` alone where all that it passed speaks HTTP/1.1: such a response is as old as
/// it says, and a `Date` a little in the past tells of an origin's clock. Much in the past it tells of a cache that gives
/// no `Age`.
fn initial_age(exchange: &Exchange<'_>) -> u32 {
    let received = exchange.received_unix_ms.div_euclid(1000);
    let apparent = received.saturating_sub(date(exchange.headers, exchange.received_unix_ms)).max(0);
    let is_skew = apparent <= i64::from(exchange.clock_skew) && !passed_old_cache(exchange.headers);
    let apparent = if is_skew { 0 } else { apparent };
    // A list is read by its first member, anything but a number is ignored (section 5.1).
    let stated = fields::values(exchange.headers, &header::AGE)
        .flat_map(fields::list)
        .next()
        .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        .map_or(0, |digits| digits.parse().unwrap_or(i64::from(MAX_DELTA_SECONDS)));
    let delay = exchange.received_ms.saturating_sub(exchange.requested_ms).max(0) / 1000;
    let age = apparent.max(stated.saturating_add(delay));
    u32::try_from(age).unwrap_or(MAX_DELTA_SECONDS).min(MAX_DELTA_SECONDS)
}

/// Whether `Via` names a hop of HTTP/1.0, which gives no `Age`.
fn passed_old_cache(headers: &HeaderMap) -> bool {
    let is_old = |hop: &str| matches!(hop.split([' ', '\t']).next(), Some("1.0" | "HTTP/1.0" | "0.9"));
    fields::values(headers, &header::VIA).flat_map(fields::list).any(is_old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const NOW: i64 = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT

    fn judge_full(status: u16, authorized: bool, fields: &[(&str, &str)]) -> Result<Freshness, NotStored> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        Freshness::judge(&Exchange {
            method: &Method::GET,
            authorized,
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers,
            requested_ms: NOW,
            received_ms: NOW,
            received_unix_ms: NOW,
            clock_skew: 3,
            default_life: None,
        })
    }

    fn judge(fields: &[(&str, &str)]) -> Result<Freshness, NotStored> {
        judge_full(200, false, fields)
    }

    const CC: &str = "cache-control";

    #[test]
    fn the_most_specific_life_counts() {
        let life = |fields: &[(&str, &str)]| judge(fields).map(|f| f.life);
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let in_a_minute = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        assert_eq!(life(&[(CC, "max-age=10, s-maxage=20"), in_a_minute]), Ok(20));
        assert_eq!(life(&[(CC, "max-age=10"), in_a_minute]), Ok(10));
        assert_eq!(life(&[date, in_a_minute]), Ok(60));
        assert_eq!(life(&[in_a_minute]), Ok(60), "without Date the time of receipt");
        assert_eq!(life(&[date, ("expires", "0")]), Ok(0));
        assert_eq!(life(&[date, in_a_minute, ("expires", "Sun, 06 Nov 1994 08:51:37 GMT")]), Ok(0));
        assert_eq!(life(&[("cdn-cache-control", "max-age=5"), (CC, "s-maxage=20"), in_a_minute]), Ok(5));
        assert_eq!(life(&[("cdn-cache-control", "max-age=5"), (CC, "no-store")]), Ok(5));
        assert_eq!(life(&[("cdn-cache-control", "max-age=5, s-maxage=7"), (CC, "max-age=9")]), Ok(7));
        assert_eq!(life(&[("cdn-cache-control", "no-store"), (CC, "max-age=5")]), Err(NotStored::NoStore));
        assert_eq!(life(&[]), Err(NotStored::NoFreshness));
    }

    #[test]
    fn what_may_not_be_stored() {
        let fresh = "max-age=60";
        assert_eq!(judge(&[(CC, "max-age=60, no-store")]), Err(NotStored::NoStore));
        assert_eq!(judge(&[(CC, "max-age=60, private")]), Err(NotStored::Private));
        assert_eq!(judge(&[(CC, fresh), ("vary", "a, *")]), Err(NotStored::VaryAny));
        assert_eq!(judge(&[(CC, fresh), ("set-cookie", "a=b")]), Err(NotStored::SetCookie));
        assert_eq!(judge_full(206, false, &[(CC, fresh)]), Err(NotStored::Status));
        assert_eq!(judge_full(200, true, &[(CC, fresh)]), Err(NotStored::Authorized));
        for allowed in ["public, max-age=60", "s-maxage=60", "must-revalidate, max-age=60"] {
            assert!(judge_full(200, true, &[(CC, allowed)]).is_ok(), "{allowed}");
        }
        assert!(judge_full(404, false, &[(CC, fresh)]).is_ok());
        assert!(judge_full(299, false, &[(CC, fresh)]).is_ok());
        assert_eq!(judge_full(299, false, &[(CC, "max-age=60, must-understand")]), Err(NotStored::Status));
        assert!(judge(&[(CC, "max-age=60, must-understand, no-store")]).is_ok());
    }

    #[test]
    fn age_counts_the_way_and_the_stay() {
        let age = |fields: &[(&str, &str)]| judge(fields).unwrap().age(NOW + 5_000);
        assert_eq!(age(&[(CC, "max-age=60")]), 5);
        assert_eq!(age(&[(CC, "max-age=60"), ("age", "10")]), 15);
        assert_eq!(age(&[(CC, "max-age=60"), ("date", "Sun, 06 Nov 1994 08:49:17 GMT")]), 25);
        assert_eq!(age(&[(CC, "max-age=60"), ("date", "Sun, 06 Nov 1994 08:49:17 GMT"), ("age", "10")]), 25);
        assert_eq!(age(&[(CC, "max-age=60"), ("date", "Sun, 06 Nov 1994 09:49:37 GMT")]), 5, "a clock ahead");
        assert_eq!(age(&[(CC, "max-age=60"), ("age", "x")]), 5);
        assert_eq!(age(&[(CC, "max-age=60"), ("age", "7, 9")]), 12);
    }

    #[test]
    fn standing_runs_through_its_stages() {
        let at = |control: &str, seconds: i64| judge(&[(CC, control)]).unwrap().standing(NOW + seconds * 1000);
        let stages = "max-age=10, stale-while-revalidate=5, stale-if-error=20";
        assert_eq!(at(stages, 9), FreshnessState::Fresh);
        assert_eq!(at(stages, 10), FreshnessState::StaleWhileRevalidate);
        assert_eq!(at(stages, 15), FreshnessState::StaleIfError);
        assert_eq!(at(stages, 30), FreshnessState::Stale);
        assert_eq!(at("max-age=10, no-cache", 1), FreshnessState::Stale);
        assert_eq!(at("max-age=10, must-revalidate, stale-if-error=20", 11), FreshnessState::Stale);
        assert_eq!(at("s-maxage=10, stale-if-error=20", 11), FreshnessState::Stale);
        let on_error = |seconds: i64| judge(&[(CC, stages)]).unwrap().usable_on_error(NOW + seconds * 1000);
        assert!(on_error(1) && on_error(12) && on_error(29) && !on_error(30));
    }

    proptest! {
        /// Nothing grows younger, and once stale nothing is fresh again.
        #[test]
        fn time_goes_one_way(life in 0_u32..100, age in 0_u32..100, a in 0_i64..300, b in 0_i64..300) {
            let f = judge(&[(CC, &format!("max-age={life}")), ("age", &age.to_string())]).unwrap();
            let (early, late) = (NOW + a.min(b) * 1000, NOW + a.max(b) * 1000);
            prop_assert!(f.age(early) <= f.age(late));
            if f.standing(early) != FreshnessState::Fresh {
                prop_assert!(f.standing(late) != FreshnessState::Fresh);
            }
            prop_assert_eq!(f.standing(late) == FreshnessState::Fresh, i64::from(age) + a.max(b) < i64::from(life));
        }

        /// A life that was ended is over from then on, or from its own end where that came first, and what may be done
        /// with a stale response counts from there; ending it again changes nothing.
        #[test]
        fn an_ended_life_counts_from_its_end(
            life in 0_u32..100, age in 0_u32..50, beside in 0_u32..50, on_error in 0_u32..50,
            end in 0_i64..150, again in 0_i64..50, at in -50_i64..300,
        ) {
            let control = format!("max-age={life}, stale-while-revalidate={beside}, stale-if-error={on_error}");
            let whole = judge(&[(CC, &control), ("age", &age.to_string())]).unwrap();
            let ended = whole.ended_at(NOW + end * 1000);
            let stale_since = end.min(i64::from(life) - i64::from(age)).max(0);
            let (now, stale_for) = (NOW + at * 1000, at.max(0) - stale_since);
            prop_assert_eq!(ended.age(now), whole.age(now));
            prop_assert!(ended.standing(now) != FreshnessState::Fresh, "whatever the clock says");
            if stale_for >= 0 && age <= life {
                prop_assert_eq!(ended.standing(now) == FreshnessState::StaleWhileRevalidate, stale_for < i64::from(beside));
                prop_assert_eq!(ended.usable_on_error(now), stale_for < i64::from(on_error));
            }
            prop_assert_eq!(&ended.ended_at(NOW + (end + again) * 1000), &ended);
            let lost = whole.ended_long_ago();
            prop_assert!(lost.standing(now) == FreshnessState::Stale && !lost.usable_on_error(now));
        }
    }
}

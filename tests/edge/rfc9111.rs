//! RFC 9111 (and 5861, 8246, 9110, 9213) as a table: one line a case.
//!
//! Each case asks twice for a path of its own with some time between, before a plain shared cache. `Hit`: the second
//! was answered without the origin. `Miss`: it was fetched whole. `Check`: the origin was asked with a condition.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;

use super::harness::*;
use crate::support::until_async;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Second {
    Hit,
    Miss,
    Check,
}
use Second::*;

/// What, status and fields of the answer, fields of the first request, seconds between, fields of the second, outcome.
/// Fields are parted by `|`. `{now}` and `{now+60}` are HTTP dates.
type Case = (&'static str, u16, &'static str, &'static str, u64, &'static str, Second);

#[rustfmt::skip]
const CASES: &[Case] = &[
    // 3: storing.
    ("no freshness is stored unless configured", 200, "", "", 0, "", Miss),
    ("max-age is stored", 200, "cache-control: max-age=60", "", 10, "", Hit),
    ("no-store is not", 200, "cache-control: max-age=60, no-store", "", 0, "", Miss),
    ("no-store in a second field is not", 200, "cache-control: max-age=60 | cache-control: no-store", "", 0, "", Miss),
    ("private is not", 200, "cache-control: private, max-age=60", "", 0, "", Miss),
    ("private with field names is not", 200, "cache-control: private=\"x\", max-age=60", "", 0, "", Miss),
    ("directives are read in any case", 200, "cache-control: MAX-AGE=60, PRIVATE", "", 0, "", Miss),
    ("a response to Authorization is not", 200, "cache-control: max-age=60", "authorization: x", 0, "authorization: x", Miss),
    ("public allows it", 200, "cache-control: max-age=60, public", "authorization: x", 0, "", Hit),
    ("s-maxage allows it", 200, "cache-control: s-maxage=60", "authorization: x", 0, "", Hit),
    ("must-revalidate allows it", 200, "cache-control: max-age=60, must-revalidate", "authorization: x", 0, "", Hit),
    ("a stored response serves requests with Authorization", 200, "cache-control: max-age=60", "", 0, "authorization: x", Hit),
    ("404 with freshness is stored", 404, "cache-control: max-age=60", "", 0, "", Hit),
    ("a status unheard of with freshness is stored", 299, "cache-control: max-age=60", "", 0, "", Hit),
    ("must-understand: not one unheard of", 299, "cache-control: max-age=60, must-understand", "", 0, "", Miss),
    ("must-understand overrides no-store", 200, "cache-control: max-age=60, must-understand, no-store", "", 0, "", Hit),
    ("500 with freshness is stored", 500, "cache-control: max-age=60", "", 0, "", Hit),
    ("Set-Cookie is not stored", 200, "cache-control: max-age=60 | set-cookie: a=b", "", 0, "", Miss),
    ("request no-store: nothing is stored", 200, "cache-control: max-age=60", "cache-control: no-store", 0, "", Miss),
    ("no-store with a value is no-store", 200, "cache-control: max-age=60, no-store=\"x\"", "", 0, "", Miss),
    ("a directive inside of another's quotes is none", 200, "cache-control: max-age=60, ext=\"a, no-store\"", "", 10, "", Hit),
    ("an extension that is not known is passed over", 200, "cache-control: ext=1, max-age=60, other", "", 10, "", Hit),
    ("203 is stored", 203, "cache-control: max-age=60", "", 0, "", Hit),
    ("300 is stored", 300, "cache-control: max-age=60", "", 0, "", Hit),
    ("301 is stored", 301, "cache-control: max-age=60 | location: /y", "", 0, "", Hit),
    ("302 with freshness is stored", 302, "cache-control: max-age=60 | location: /y", "", 0, "", Hit),
    ("307 with freshness is stored", 307, "cache-control: max-age=60 | location: /y", "", 0, "", Hit),
    ("308 is stored", 308, "cache-control: max-age=60 | location: /y", "", 0, "", Hit),
    ("403 with freshness is stored", 403, "cache-control: max-age=60", "", 0, "", Hit),
    ("405 is stored", 405, "cache-control: max-age=60", "", 0, "", Hit),
    ("410 is stored", 410, "cache-control: max-age=60", "", 0, "", Hit),
    ("414 is stored", 414, "cache-control: max-age=60", "", 0, "", Hit),
    ("501 is stored", 501, "cache-control: max-age=60", "", 0, "", Hit),
    ("206 that no one asked for is not", 206, "cache-control: max-age=60 | content-range: bytes 0-3/8", "", 0, "", Miss),
    ("must-understand with no-store: not one unheard of", 299, "cache-control: max-age=60, must-understand, no-store", "", 0, "", Miss),
    ("no-store beats s-maxage and public", 200, "cache-control: no-store, public, s-maxage=60", "authorization: x", 0, "", Miss),
    ("a redirect without freshness is not", 301, "location: /y", "", 0, "", Miss),
    ("Last-Modified alone is no freshness", 200, "last-modified: {now-60}", "", 0, "", Miss),
    ("must-understand: one that is known", 200, "cache-control: max-age=60, must-understand", "", 0, "", Hit),
    ("proxy-revalidate does not allow Authorization", 200, "cache-control: max-age=60, proxy-revalidate", "authorization: x", 0, "authorization: x", Miss),
    ("private beats public", 200, "cache-control: public, max-age=60, private", "", 0, "", Miss),
    ("a request's cookies don't matter", 200, "cache-control: max-age=60", "cookie: a=1", 0, "cookie: a=2", Hit),
    // 4.1: Vary.
    ("Vary on more fields than are kept is not stored", 200, "cache-control: max-age=60 | vary: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "q: 1", 0, "q: 1", Miss),
    ("Vary on something that is no field is not stored", 200, "cache-control: max-age=60 | vary: a b", "", 0, "", Miss),
    ("Vary: * beside a name never matches", 200, "cache-control: max-age=60 | vary: x-a, *", "", 0, "", Miss),
    ("Vary on three fields, all the same", 200, "cache-control: max-age=60 | vary: x-a, x-b, x-c", "x-a: 1 | x-b: 2", 0, "x-b: 2 | x-a: 1", Hit),
    ("Vary on Accept-Encoding: one coding is asked for", 200, "cache-control: max-age=60 | vary: accept-encoding", "accept-encoding: gzip", 0, "accept-encoding: br", Hit),
    ("Vary on Accept-Language in another case matches", 200, "cache-control: max-age=60 | vary: accept-language", "accept-language: de-DE, en;q=0.5", 0, "accept-language: de-de,EN; q=0.5", Hit),
    ("Vary on Accept-Language in another order does not", 200, "cache-control: max-age=60 | vary: accept-language", "accept-language: de, en", 0, "accept-language: en, de", Miss),
    ("Vary on a field that is not known keeps its case", 200, "cache-control: max-age=60 | vary: x-a", "x-a: A", 0, "x-a: a", Miss),
    ("Vary in any case", 200, "cache-control: max-age=60 | vary: X-A", "x-a: 1", 0, "x-a: 1", Hit),
    ("Vary: * never matches", 200, "cache-control: max-age=60 | vary: *", "", 0, "", Miss),
    ("Vary with the same value matches", 200, "cache-control: max-age=60 | vary: x-a", "x-a: 1", 0, "x-a: 1", Hit),
    ("Vary with another value does not", 200, "cache-control: max-age=60 | vary: x-a", "x-a: 1", 0, "x-a: 2", Miss),
    ("Vary with a missing field does not", 200, "cache-control: max-age=60 | vary: x-a", "x-a: 1", 0, "", Miss),
    ("Vary with the field missing both times matches", 200, "cache-control: max-age=60 | vary: x-a", "", 0, "", Hit),
    ("Vary ignores blanks around members", 200, "cache-control: max-age=60 | vary: x-a", "x-a: 1, 2", 0, "x-a: 1,2", Hit),
    ("Vary sees joined fields as one", 200, "cache-control: max-age=60 | vary: x-a", "x-a: 1 | x-a: 2", 0, "x-a: 1, 2", Hit),
    ("Vary in two fields counts as both", 200, "cache-control: max-age=60 | vary: x-a | vary: x-b", "x-a: 1 | x-b: 1", 0, "x-a: 1 | x-b: 2", Miss),
    ("other fields don't matter", 200, "cache-control: max-age=60 | vary: x-a", "x-a: 1 | x-c: 1", 0, "x-a: 1 | x-c: 2", Hit),
    // 4.2: freshness.
    ("max-age that has passed", 200, "cache-control: max-age=60", "", 60, "", Miss),
    ("s-maxage counts before max-age", 200, "cache-control: max-age=10, s-maxage=60", "", 30, "", Hit),
    ("s-maxage=0 with max-age", 200, "cache-control: max-age=60, s-maxage=0", "", 1, "", Miss),
    ("max-age counts before Expires", 200, "cache-control: max-age=10 | expires: {now+60}", "", 30, "", Miss),
    ("Expires counts", 200, "expires: {now+60} | date: {now}", "", 30, "", Hit),
    ("Expires that has passed", 200, "expires: {now+60} | date: {now}", "", 60, "", Miss),
    ("Expires that is no date is past", 200, "expires: 0", "", 0, "", Miss),
    ("Expires twice is past", 200, "expires: {now+60} | expires: {now+60}", "", 0, "", Miss),
    ("max-age quoted", 200, "cache-control: max-age=\"60\"", "", 10, "", Hit),
    ("max-age that is no number is stale", 200, "cache-control: max-age=x", "", 0, "", Miss),
    ("max-age negative is stale", 200, "cache-control: max-age=-60", "", 0, "", Miss),
    ("max-age beyond every number is long", 200, "cache-control: max-age=99999999999999999999", "", 1000, "", Hit),
    ("of two max-age the shorter", 200, "cache-control: max-age=60, max-age=10", "", 30, "", Miss),
    ("max-age inside of a quoted string is none", 200, "cache-control: x=\"max-age=60\"", "", 0, "", Miss),
    ("Age is counted", 200, "cache-control: max-age=60 | age: 50", "", 10, "", Miss),
    ("Age leaves the rest", 200, "cache-control: max-age=60 | age: 50", "", 9, "", Hit),
    ("Age that is no number is none", 200, "cache-control: max-age=60 | age: x", "", 9, "", Hit),
    ("Date in the past is age", 200, "cache-control: max-age=60 | date: {now-50}", "", 10, "", Miss),
    ("Date a little in the past is the origin's clock", 200, "cache-control: max-age=2 | date: {now-3}", "", 1, "", Hit),
    ("Date a little in the past is age behind a hop of HTTP/1.0", 200, "cache-control: max-age=2 | date: {now-3} | via: 1.0 old", "", 1, "", Miss),
    ("Age counts whatever the origin's clock says", 200, "cache-control: max-age=20 | date: {now} | age: 15", "", 10, "", Miss),
    ("Date in the future is none", 200, "cache-control: max-age=60 | date: {now+50}", "", 30, "", Hit),
    ("Age beyond every number is stale", 200, "cache-control: max-age=60 | age: 99999999999999999999", "", 0, "", Miss),
    ("Age as a list counts by its first", 200, "cache-control: max-age=60 | age: 50, 0", "", 10, "", Miss),
    ("Date that is none is when it came", 200, "cache-control: max-age=60 | date: yesterday", "", 59, "", Hit),
    ("Expires by Date and not by this clock", 200, "expires: {now+60} | date: {now+50}", "", 10, "", Miss),
    ("Expires before Date is past", 200, "expires: {now-60} | date: {now}", "", 0, "", Miss),
    ("s-maxage quoted", 200, "cache-control: s-maxage=\"60\", max-age=0", "", 10, "", Hit),
    ("max-age with a fraction is stale", 200, "cache-control: max-age=60.5", "", 0, "", Miss),
    ("of two s-maxage the shorter", 200, "cache-control: s-maxage=60 | cache-control: s-maxage=10", "", 30, "", Miss),
    ("response Pragma is passed over", 200, "cache-control: max-age=60 | pragma: no-cache", "", 10, "", Hit),
    ("immutable is not checked while fresh", 200, "cache-control: max-age=60, immutable | etag: \"1\"", "", 10, "", Hit),
    ("no-cache is checked", 200, "cache-control: max-age=60, no-cache | etag: \"1\"", "", 0, "", Check),
    ("no-cache without a life is checked", 200, "cache-control: no-cache | etag: \"1\"", "", 0, "", Check),
    ("no-cache that can't be checked is not stored", 200, "cache-control: no-cache", "", 0, "", Miss),
    ("no-cache with field names is checked", 200, "cache-control: max-age=60, no-cache=\"x\" | etag: \"1\"", "", 0, "", Check),
    ("immutable is fresh no longer than its life", 200, "cache-control: max-age=60, immutable", "", 60, "", Miss),
    ("Age negative is none", 200, "cache-control: max-age=60 | age: -50", "", 10, "", Hit),
    ("Age with a fraction is none", 200, "cache-control: max-age=60 | age: 50.5", "", 10, "", Hit),
    ("Age twice counts by its first", 200, "cache-control: max-age=60 | age: 50 | age: 0", "", 10, "", Miss),
    ("Age with nonsense behind the first counts by its first", 200, "cache-control: max-age=60 | age: 0, x", "", 10, "", Hit),
    ("Expires in the form of RFC 850", 200, "expires: Monday, 15-Jan-29 08:00:00 GMT | date: {now}", "", 10, "", Hit),
    ("Expires in the form of asctime", 200, "expires: Mon Jan 15 08:00:00 2029 | date: {now}", "", 10, "", Hit),
    ("Expires in the form of asctime, by another day of the week", 200, "expires: Thu Aug  8 02:01:18 2050 | date: {now}", "", 10, "", Hit),
    ("Expires beyond 32 bits", 200, "expires: Fri, 01 Jan 2140 08:00:00 GMT | date: {now}", "", 10, "", Hit),
    ("Expires in UTC is past", 200, "expires: Mon, 15 Jan 2029 08:00:00 UTC | date: {now}", "", 0, "", Miss),
    ("Expires in another zone is past", 200, "expires: Mon, 15 Jan 2029 08:00:00 +0100 | date: {now}", "", 0, "", Miss),
    ("Expires with a year of two digits is past", 200, "expires: Mon, 15 Jan 29 08:00:00 GMT | date: {now}", "", 0, "", Miss),
    ("Expires without its comma is past", 200, "expires: Mon 15 Jan 2029 08:00:00 GMT | date: {now}", "", 0, "", Miss),
    ("Expires with dashes is past", 200, "expires: Mon, 15-Jan-2029 08:00:00 GMT | date: {now}", "", 0, "", Miss),
    ("Expires with periods is past", 200, "expires: Mon, 15 Jan 2029 08.00.00 GMT | date: {now}", "", 0, "", Miss),
    ("Expires with an hour of one digit is past", 200, "expires: Mon, 15 Jan 2029 8:00:00 GMT | date: {now}", "", 0, "", Miss),
    ("Expires with several blanks is past", 200, "expires: Mon,  15  Jan  2029  08:00:00  GMT | date: {now}", "", 0, "", Miss),
    ("Expires in capitals", 200, "expires: MON, 15 JAN 2029 08:00:00 GMT | date: {now}", "", 10, "", Hit),
    ("Expires in small letters", 200, "expires: mon, 15 jan 2029 08:00:00 gmt | date: {now}", "", 10, "", Hit),
    ("Date in small letters is age", 200, "cache-control: max-age=60 | date: fri, 15 jan 2027 07:59:10 gmt", "", 10, "", Miss),
    ("max-age=0 counts before Expires", 200, "cache-control: max-age=0 | expires: {now+60}", "", 0, "", Miss),
    ("max-age counts before Expires that is no date", 200, "cache-control: max-age=60 | expires: 0", "", 10, "", Hit),
    ("max-age before one in quotes", 200, "cache-control: max-age=10, x=\"max-age=60\"", "", 30, "", Miss),
    ("max-age behind one in quotes", 200, "cache-control: x=\"max-age=60\", max-age=10", "", 30, "", Miss),
    ("max-age of 31 bits with an Age of as many is stale", 200, "cache-control: max-age=2147483648 | age: 2147483648", "", 0, "", Miss),
    ("max-age and Age of 31 bits leave a second", 200, "cache-control: max-age=2147483648 | age: 2147483647", "", 0, "", Hit),
    ("Date far in the past is stale", 200, "cache-control: max-age=60 | date: Thu, 01 Jan 1970 00:00:00 GMT", "", 0, "", Miss),
    ("Date far in the future is no age", 200, "cache-control: max-age=60 | date: Fri, 31 Dec 9999 23:59:59 GMT", "", 59, "", Hit),
    ("Date twice is when it came", 200, "cache-control: max-age=60 | date: {now-50} | date: {now}", "", 59, "", Hit),
    ("Warning is passed over", 200, "cache-control: max-age=60 | warning: 110 - \"stale\"", "", 10, "", Hit),
    ("max-age in single quotes is stale", 200, "cache-control: max-age='60'", "", 0, "", Miss),
    ("max-age of 31 bits and one", 200, "cache-control: max-age=2147483649", "", 1000, "", Hit),
    ("s-maxage behind max-age in fields of their own", 200, "cache-control: max-age=60 | cache-control: s-maxage=10", "", 30, "", Miss),
    ("s-maxage counts before Expires", 200, "cache-control: s-maxage=60, max-age=0 | expires: {now-60}", "", 10, "", Hit),
    // 4.3: validation.
    ("stale with an ETag is checked", 200, "cache-control: max-age=10 | etag: \"1\"", "", 20, "", Check),
    ("stale with a weak ETag is checked", 200, "cache-control: max-age=10 | etag: W/\"1\"", "", 20, "", Check),
    ("stale without a validator is fetched whole", 200, "cache-control: max-age=10", "", 20, "", Miss),
    ("stale with an ETag and Last-Modified is checked", 200, "cache-control: max-age=10 | etag: \"1\" | last-modified: {now-60}", "", 20, "", Check),
    ("stale with Last-Modified is checked", 200, "cache-control: max-age=10 | last-modified: {now-60}", "", 20, "", Check),
    ("a client's condition does not reach the origin", 200, "cache-control: max-age=60 | etag: \"1\"", "if-none-match: \"9\"", 1, "", Hit),
    // 5.2.1: what requests demand.
    ("request no-cache is checked", 200, "cache-control: max-age=60 | etag: \"1\"", "", 0, "cache-control: no-cache", Check),
    ("request Pragma counts alone", 200, "cache-control: max-age=60 | etag: \"1\"", "", 0, "pragma: no-cache", Check),
    ("request Pragma counts in a list and in any case", 200, "cache-control: max-age=60 | etag: \"1\"", "", 0, "pragma: x, No-Cache", Check),
    ("request Pragma does not beside Cache-Control", 200, "cache-control: max-age=60", "", 0, "pragma: no-cache | cache-control: max-age=50", Hit),
    ("request max-age=0 is checked", 200, "cache-control: max-age=60 | etag: \"1\"", "", 1, "cache-control: max-age=0", Check),
    ("request max-age above the age", 200, "cache-control: max-age=60", "", 10, "cache-control: max-age=20", Hit),
    ("request min-fresh that is left", 200, "cache-control: max-age=60", "", 10, "cache-control: min-fresh=50", Hit),
    ("request min-fresh that is not left", 200, "cache-control: max-age=60", "", 10, "cache-control: min-fresh=51", Miss),
    ("request max-stale takes what is stale", 200, "cache-control: max-age=10", "", 20, "cache-control: max-stale=10", Hit),
    ("request max-stale without a value takes anything", 200, "cache-control: max-age=10", "", 2000, "cache-control: max-stale", Hit),
    ("request max-stale below", 200, "cache-control: max-age=10", "", 21, "cache-control: max-stale=10", Miss),
    ("must-revalidate is above max-stale", 200, "cache-control: max-age=10, must-revalidate", "", 20, "cache-control: max-stale", Miss),
    ("proxy-revalidate is above max-stale", 200, "cache-control: max-age=10, proxy-revalidate", "", 20, "cache-control: max-stale", Miss),
    ("s-maxage is above max-stale", 200, "cache-control: s-maxage=10", "", 20, "cache-control: max-stale", Miss),
    ("request no-store takes what is stored", 200, "cache-control: max-age=60", "", 10, "cache-control: no-store", Hit),
    ("request Pragma that says something else", 200, "cache-control: max-age=60", "", 10, "pragma: x", Hit),
    ("request max-stale counts from the stated age", 200, "cache-control: max-age=60 | age: 55", "", 10, "cache-control: max-stale=4", Miss),
    // RFC 5861.
    ("stale-while-revalidate serves meanwhile", 200, "cache-control: max-age=10, stale-while-revalidate=60 | etag: \"1\"", "", 20, "", Check),
    ("stale-while-revalidate gives way to must-revalidate", 200, "cache-control: max-age=10, stale-while-revalidate=60, must-revalidate", "", 20, "", Miss),
    ("stale-while-revalidate gives way to min-fresh", 200, "cache-control: max-age=10, stale-while-revalidate=60", "", 20, "cache-control: min-fresh=1", Miss),
    ("stale-while-revalidate ends", 200, "cache-control: max-age=10, stale-while-revalidate=5", "", 20, "", Miss),
    // RFC 9213.
    ("CDN-Cache-Control counts before Cache-Control", 200, "cdn-cache-control: max-age=60 | cache-control: no-store", "", 30, "", Hit),
    ("CDN-Cache-Control no-store", 200, "cdn-cache-control: no-store | cache-control: max-age=60", "", 0, "", Miss),
    ("CDN-Cache-Control hides Expires", 200, "cdn-cache-control: public | expires: {now+60}", "", 0, "", Miss),
    ("CDN-Cache-Control that is malformed is passed over", 200, "cdn-cache-control: Max-Age = 60 | cache-control: max-age=10", "", 30, "", Miss),
    ("CDN-Cache-Control of the wrong type is passed over", 200, "cdn-cache-control: max-age=\"60\" | cache-control: no-store", "", 0, "", Miss),
    ("CDN-Cache-Control that is empty is passed over", 200, "cdn-cache-control: | cache-control: max-age=60", "", 30, "", Hit),
    ("CDN-Cache-Control max-age is a shared cache's own", 200, "cdn-cache-control: max-age=60 | cache-control: private", "", 30, "", Hit),
    ("CDN-Cache-Control private", 200, "cdn-cache-control: max-age=60, private | cache-control: max-age=60", "", 0, "", Miss),
    ("CDN-Cache-Control s-maxage counts before its max-age", 200, "cdn-cache-control: s-maxage=60, max-age=10", "", 30, "", Hit),
    ("CDN-Cache-Control counts by the last of two", 200, "cdn-cache-control: max-age=10, max-age=60", "", 30, "", Hit),
    ("CDN-Cache-Control must-revalidate allows Authorization", 200, "cdn-cache-control: max-age=60, must-revalidate", "authorization: x", 0, "", Hit),
    ("Cache-Control public does not beside CDN-Cache-Control", 200, "cdn-cache-control: max-age=60 | cache-control: public", "authorization: x", 0, "", Miss),
    ("CDN-Cache-Control no-cache is checked", 200, "cdn-cache-control: max-age=60, no-cache | cache-control: max-age=60 | etag: \"1\"", "", 0, "", Check),
    ("another cache's targeted field is passed over", 200, "surrogate-control: max-age=60 | akamai-cache-control: max-age=60", "", 0, "", Miss),
    ("CDN-Cache-Control with parameters", 200, "cdn-cache-control: max-age=60;x=1", "", 0, "", Hit),
    // Keys.
    ("ranges are taken out of what is stored whole", 200, "cache-control: max-age=60", "range: bytes=0-1", 0, "range: bytes=1-2", Hit),
];

fn dates(text: &str, now: i64) -> String {
    let at = |offset: i64| httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs((now + offset) as u64));
    [("{now}", 0), ("{now+60}", 60), ("{now+50}", 50), ("{now-3}", -3), ("{now-50}", -50), ("{now-60}", -60)]
        .iter()
        .fold(text.to_owned(), |text, (name, offset)| text.replace(name, &at(*offset)))
}

fn split(text: &str) -> Vec<(String, String)> {
    let fields = text.split('|').filter_map(|field| field.trim().split_once(':'));
    fields.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

fn borrowed(fields: &[(String, String)]) -> Vec<(&str, &str)> {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[tokio::test]
async fn every_case_of_the_table() {
    let answer = Arc::new(Mutex::new((200, Vec::<(String, String)>::new())));
    let told = Arc::clone(&answer);
    let origin = Origin::start(move |seen: &Seen| {
        let (status, fields) = told.lock().unwrap().clone();
        let conditional = seen.field("if-none-match").is_some() || seen.field("if-modified-since").is_some();
        if conditional {
            Reply::new(304, &borrowed(&fields), "")
        } else {
            Reply::new(status, &borrowed(&fields), "body")
        }
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    let mut wrong = Vec::new();
    for (n, (what, status, response, first, seconds, second, expected)) in CASES.iter().enumerate() {
        let now = edge.clock.unix_seconds();
        *answer.lock().unwrap() = (*status, split(&dates(response, now)));
        let path = format!("/case/{n}");
        edge.send(Method::GET, &path, &borrowed(&split(first))).await;
        edge.clock.advance(Duration::from_secs(*seconds));
        edge.send(Method::GET, &path, &borrowed(&split(second))).await;
        if what.starts_with("stale-while-revalidate serves") {
            // The check comes beside the answer.
            until_async("the check", Duration::from_secs(5), async || (origin.count(&path) == 2).then_some(())).await;
        }
        let asked: Vec<Seen> = origin.seen().into_iter().filter(|seen| seen.target == path).collect();
        let outcome = match asked.get(1) {
            None => Hit,
            Some(seen) if seen.field("if-none-match").is_some() || seen.field("if-modified-since").is_some() => Check,
            Some(_) => Miss,
        };
        if outcome != *expected {
            wrong.push(format!("{what}: {outcome:?} in place of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}

#[tokio::test]
async fn age_is_told_and_dates_are_made() {
    let origin = Origin::start(|_| Reply::new(200, &[("cache-control", "max-age=60"), ("age", "7")], "x")).await;
    let edge = TestEdge::open(&[&origin]).await;
    let first = edge.get("/x").await;
    assert_eq!((first.field("age"), first.field("date").is_empty()), ("7", false));
    edge.clock.advance(Duration::from_secs(5));
    let second = edge.get("/x").await;
    assert_eq!((second.field("age"), second.field("date")), ("12", first.field("date")));
}

#[tokio::test]
async fn a_304_updates_fields_and_freshness() {
    let origin = Origin::start(|seen: &Seen| match seen.field("if-none-match") {
        None => Reply::new(
            200,
            &[("cache-control", "max-age=10"), ("etag", "\"1\""), ("x-a", "old"), ("x-b", "kept")],
            "body",
        ),
        Some(_) => Reply::new(
            304,
            &[("cache-control", "max-age=100"), ("etag", "\"1\""), ("x-a", "new"), ("content-length", "9")],
            "",
        ),
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    edge.get("/x").await;
    edge.clock.advance(Duration::from_secs(20));
    for _ in 0..2 {
        let answer = edge.get("/x").await;
        assert_eq!((answer.text().as_str(), answer.field("x-a"), answer.field("x-b")), ("body", "new", "kept"));
        assert_eq!((answer.field("content-length"), answer.field("cache-control")), ("4", "max-age=100"));
        edge.clock.advance(Duration::from_secs(50));
    }
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn a_changed_representation_replaces_the_stored_one() {
    let origin = Origin::start(|seen: &Seen| {
        let fields = |tag| [("cache-control", "max-age=10"), ("etag", tag)];
        if seen.field("if-none-match").is_none() {
            Reply::new(200, &fields("\"1\""), "one")
        } else {
            Reply::new(200, &fields("\"2\""), "two")
        }
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    assert_eq!(edge.get("/x").await.text(), "one");
    edge.clock.advance(Duration::from_secs(20));
    assert_eq!(edge.get("/x").await.text(), "two");
    assert_eq!(edge.get("/x").await.field("cache-status"), "lyceum; hit");
}

#[tokio::test]
async fn unsafe_methods_invalidate_when_they_succeed() {
    let origin = Origin::start(|seen: &Seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("GET", _) => Reply::new(200, &[("cache-control", "max-age=60")], "x"),
        (_, "/fails") => Reply::new(500, &[], "no"),
        _ => Reply::new(204, &[], ""),
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    for (method, path, fetches) in [
        (Method::POST, "/post", 2),
        (Method::PUT, "/put", 2),
        (Method::DELETE, "/delete", 2),
        (Method::PATCH, "/patch", 2),
        (Method::POST, "/fails", 1),
        (Method::OPTIONS, "/options", 1),
        (Method::POST, "/query?a=1", 2),
        (Method::from_bytes(b"M-SEARCH").unwrap(), "/unheard-of", 2),
    ] {
        edge.get(path).await;
        edge.send(method.clone(), path, &[]).await;
        edge.get(path).await;
        let gets = origin.seen().iter().filter(|seen| seen.target == path && seen.method == "GET").count();
        assert_eq!(gets, fetches, "{method} {path}");
    }
}

#[tokio::test]
async fn what_an_unsafe_answer_names_on_the_same_host_goes_too() {
    let named = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&named);
    let origin = Origin::start(move |seen: &Seen| match seen.method.as_str() {
        "GET" => Reply::new(200, &[("cache-control", "max-age=60")], "x"),
        _ => Reply::new(201, &[("location", &told.lock().unwrap()), ("content-location", "relative")], ""),
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    let host = edge.url.strip_prefix("http://").unwrap().to_owned();
    for (n, (location, fetches)) in [
        ("/made/N".to_owned(), 2),
        (format!("http://{host}/made/N"), 2),
        (format!("https://{host}/made/N"), 2),
        ("http://elsewhere.example/made/N".to_owned(), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let (made, relative) = (format!("/made/{n}"), format!("/form/{n}/relative"));
        *named.lock().unwrap() = location.replace('N', &n.to_string());
        edge.get(&made).await;
        edge.get(&relative).await;
        let answer = edge.send(Method::POST, &format!("/form/{n}/x"), &[]).await;
        assert_eq!(answer.field("cache-status"), "lyceum; fwd=method; fwd-status=201");
        edge.get(&made).await;
        edge.get(&relative).await;
        assert_eq!((origin.count(&made), origin.count(&relative)), (fetches, 2), "{location}");
    }
}

#[tokio::test]
async fn a_304_that_speaks_of_another_representation_updates_nothing() {
    let origin = Origin::start(|seen: &Seen| match seen.field("if-none-match") {
        Some(_) => Reply::new(304, &[("cache-control", "max-age=100"), ("etag", "\"2\""), ("x-a", "new")], ""),
        None => Reply::new(200, &[("cache-control", "max-age=10"), ("etag", "\"1\""), ("x-a", "old")], "one"),
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    edge.get("/x").await;
    edge.clock.advance(Duration::from_secs(20));
    origin.now(|seen: &Seen| match seen.field("if-none-match") {
        Some(_) => Reply::new(304, &[("cache-control", "max-age=100"), ("etag", "\"2\"")], ""),
        None => Reply::new(200, &[("cache-control", "max-age=100"), ("etag", "\"2\"")], "two"),
    });
    let answer = edge.get("/x").await;
    assert_eq!((answer.text().as_str(), answer.field("etag")), ("two", "\"2\""), "asked again without a condition");
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test]
async fn what_forbids_stale_answers_forbids_them_when_the_origin_fails() {
    let told = Arc::new(Mutex::new(String::new()));
    let control = Arc::clone(&told);
    let fails = Arc::new(std::sync::atomic::AtomicU8::new(0));
    let failing = Arc::clone(&fails);
    let origin = Origin::start(move |_| match failing.load(std::sync::atomic::Ordering::SeqCst) {
        0 => Reply::new(200, &[("cache-control", &control.lock().unwrap()), ("etag", "\"1\"")], "x"),
        1 => Reply(vec![Step::Break]),
        _ => Reply::new(503, &[], "down"),
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    for (n, (directive, may)) in [
        ("max-age=10, stale-if-error=60", true),
        ("max-age=10, stale-while-revalidate=60, stale-if-error=60", true),
        ("max-age=10", false),
        ("max-age=10, stale-if-error=60, must-revalidate", false),
        ("max-age=10, stale-if-error=60, proxy-revalidate", false),
        ("max-age=10, stale-if-error=60, no-cache", false),
        ("max-age=10, stale-if-error=60, s-maxage=10", false),
        ("max-age=10, stale-if-error=5", false),
    ]
    .into_iter()
    .enumerate()
    {
        for failure in [1, 2] {
            *told.lock().unwrap() = directive.to_owned();
            fails.store(0, std::sync::atomic::Ordering::SeqCst);
            let path = format!("/{n}/{failure}");
            edge.get(&path).await;
            fails.store(failure, std::sync::atomic::Ordering::SeqCst);
            edge.clock.advance(Duration::from_secs(20));
            let answer = edge.get(&path).await;
            let stale = answer.status == 200 && answer.text() == "x";
            assert_eq!(stale, may, "{directive}: {answer:?}");
            assert!(stale || answer.status.is_server_error());
        }
    }
}

#[tokio::test]
async fn a_204_is_stored_and_the_targeted_field_goes_on_to_other_caches() {
    let origin = Origin::start(|_| {
        let text = "HTTP/1.1 204 X\r\ncache-control: no-store\r\ncdn-cache-control: max-age=60\r\n\r\n";
        Reply(vec![Step::Bytes(text.into())])
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    for _ in 0..2 {
        let answer = edge.get("/x").await;
        assert_eq!((answer.status.as_u16(), answer.field("cdn-cache-control")), (204, "max-age=60"));
        assert!(answer.headers.get("content-length").is_none(), "{answer:?}");
    }
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn decisions_are_explained() {
    let origin = Origin::start(|seen: &Seen| match seen.target.as_str() {
        "/private" => Reply::new(200, &[("cache-control", "private, max-age=60")], "x"),
        "/cookie" => Reply::new(200, &[("cache-control", "max-age=60"), ("set-cookie", "a=b")], "x"),
        "/vary" => Reply::new(200, &[("cache-control", "max-age=60"), ("vary", "x-a")], "x"),
        "/none" => Reply::new(200, &[], "x"),
        _ => Reply::new(200, &[("cache-control", "max-age=60, stale-while-revalidate=60")], "x"),
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    let stored = "lyceum; fwd=uri-miss; fwd-status=200; stored; ttl=60";
    for (path, fields, seconds, expected) in [
        ("/x", None, 0, stored),
        ("/x", None, 20, "lyceum; hit"),
        ("/x", Some(("cache-control", "no-cache")), 0, "lyceum; fwd=request; fwd-status=200; stored; ttl=60"),
        ("/x", None, 70, "lyceum; hit; ttl=-10; detail=stale-while-revalidate"),
        ("/private", None, 0, "lyceum; fwd=uri-miss; fwd-status=200; detail=private"),
        ("/cookie", None, 0, "lyceum; fwd=uri-miss; fwd-status=200; detail=set_cookie"),
        ("/none", None, 0, "lyceum; fwd=uri-miss; fwd-status=200; detail=no_freshness"),
        ("/bypass", Some(("cache-control", "no-store")), 0, "lyceum; fwd=bypass; fwd-status=200; detail=apart"),
        ("/vary", Some(("x-a", "1")), 0, stored),
        ("/vary", Some(("x-a", "2")), 0, "lyceum; fwd=vary-miss; fwd-status=200; stored; ttl=60"),
    ] {
        edge.clock.advance(Duration::from_secs(seconds));
        let fields: Vec<_> = fields.into_iter().collect();
        assert_eq!(edge.send(Method::GET, path, &fields).await.field("cache-status"), expected, "{path} {fields:?}");
    }
}

#[tokio::test]
async fn errors_live_as_long_as_is_configured() {
    let origin =
        Origin::start(|seen: &Seen| Reply::new(if seen.target == "/found" { 200 } else { 404 }, &[], "x")).await;
    let route = "[[route]]\nprefix = \"/\"\npool = \"origin\"\nauth = \"none\"\nerror_freshness = \"3s\"\n";
    let edge = TestEdge::start(&format!("{}\n{route}", pool(&[&origin], ""))).await;
    for path in ["/missing", "/missing", "/found", "/found"] {
        edge.get(path).await;
    }
    assert_eq!((origin.count("/missing"), origin.count("/found")), (1, 2), "errors alone");
    edge.clock.advance(Duration::from_secs(3));
    edge.get("/missing").await;
    assert_eq!(origin.count("/missing"), 2);
}

#[tokio::test]
async fn variants_several_ranges_and_only_if_cached() {
    let origin = Origin::start(|seen: &Seen| {
        let language = seen.field("accept-language").unwrap_or("none").to_owned();
        Reply::new(
            200,
            &[("cache-control", "max-age=60"), ("vary", "Accept-Language"), ("content-type", "text/plain")],
            language,
        )
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    for _ in 0..2 {
        for language in ["de-DE", "en-GB"] {
            assert_eq!(edge.send(Method::GET, "/x", &[("accept-language", language)]).await.text(), language);
        }
    }
    assert_eq!(origin.seen().len(), 2, "both are stored");
    let answer = edge.send(Method::GET, "/x", &[("accept-language", "de-DE"), ("range", "bytes=0-1,3-4")]).await;
    let boundary = answer.field("content-type").split("boundary=").nth(1).unwrap().to_owned();
    assert_eq!(
        answer.text(),
        format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/5\r\n\r\nde\r\n\
             --{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 3-4/5\r\n\r\nDE\r\n--{boundary}--\r\n"
        )
    );
    let only = ("cache-control", "only-if-cached");
    assert_eq!(edge.send(Method::GET, "/x", &[("accept-language", "en-GB"), only]).await.text(), "en-GB");
    let answer = edge.send(Method::GET, "/x", &[("accept-language", "fr"), only]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (504, "not_cached"));
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn nothing_without_freshness_is_stored_unless_configured() {
    let origin =
        Origin::start(|seen: &Seen| Reply::new(if seen.target == "/gone" { 403 } else { 404 }, &[], "x")).await;
    let toml = format!(
        "{}\n[[route]]\nprefix = \"/\"\npool = \"origin\"\nauth = \"none\"\ndefault_freshness = \"5s\"\n",
        pool(&[&origin], "")
    );
    let edge = TestEdge::start(&toml).await;
    for path in ["/missing", "/missing", "/gone", "/gone"] {
        edge.get(path).await;
    }
    assert_eq!((origin.count("/missing"), origin.count("/gone")), (1, 2), "403 may not be guessed fresh");
    edge.clock.advance(Duration::from_secs(5));
    edge.get("/missing").await;
    assert_eq!(origin.count("/missing"), 2);
}

/// What a machine stored while its clock was an hour ahead, after time was synchronised.
#[tokio::test]
async fn a_clock_put_right_keeps_nothing_fresh_and_makes_nothing_old() {
    for (ahead_ms, dated) in [(3_600_000, false), (3_600_000, true), (-3_600_000, false), (-3_600_000, true)] {
        let origin = Origin::start(|_| Reply::new(200, &[("cache-control", "max-age=2")], "v1")).await;
        let edge = TestEdge::open(&[&origin]).await;
        edge.clock.put_right(ahead_ms);
        let of = |body: &'static str, now: i64| {
            let date = dates("{now}", now);
            move |_: &Seen| {
                let fields = [("cache-control", "max-age=2"), ("date", date.as_str())];
                Reply::new(200, if dated { &fields } else { &fields[..1] }, body)
            }
        };
        origin.now(of("v1", edge.clock.unix_seconds()));
        edge.get("/index.m3u8").await;
        edge.clock.put_right(-ahead_ms);
        origin.now(of("v2", edge.clock.unix_seconds()));
        edge.clock.advance(Duration::from_secs(1));
        let still = edge.get("/index.m3u8").await;
        assert_eq!((still.text().as_str(), still.field("age")), ("v1", "1"), "{ahead_ms} {dated}");
        edge.clock.advance(Duration::from_secs(2));
        assert_eq!(edge.get("/index.m3u8").await.text(), "v2", "{ahead_ms} {dated}");
    }
}

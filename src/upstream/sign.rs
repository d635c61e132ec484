//! Requests to S3 buckets, signed (AWS Signature Version 4).
//!
//! What is signed is the host, the range and the time. Bodies are not: an edge sends none to a bucket.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Request, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;

use super::UpstreamError;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const CONTENT: HeaderName = HeaderName::from_static("x-amz-content-sha256");
/// Unreserved characters stand as they are.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// `auth.s3` of a pool: its origins are buckets.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// The region that requests are signed for; `us-east-1` for most look-alikes.
    pub region: String,
    /// The key's name.
    pub access_key: String,
    /// The key.
    pub secret_key: String,
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3").field("region", &self.region).finish_non_exhaustive()
    }
}

impl S3 {
    /// Whether all of it can stand in a header.
    pub(super) fn check(&self) -> Result<(), UpstreamError> {
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"/,".contains(&b));
        if plain(&self.region) && plain(&self.access_key) && !self.secret_key.is_empty() {
            Ok(())
        } else {
            Err(UpstreamError::S3)
        }
    }

    /// Signs a request as of `now`, seconds since the epoch. What can't be signed goes as it is and is refused there.
    pub(super) fn sign<B>(&self, request: &mut Request<B>, now: i64) {
        let (day, time) = stamp(now);
        let Some(host) = request.uri().authority().and_then(|authority| host_of(request.uri(), authority)) else {
            return;
        };
        let Ok(date) = HeaderValue::try_from(format!("{day}T{time}Z")) else { return };
        let payload = hex(digest(&SHA256, b"").as_ref());
        let Ok(content) = HeaderValue::try_from(payload.as_str()) else { return };
        let method = request.method().as_str().to_owned();
        let target = request.uri().path_and_query().cloned();
        let headers = request.headers_mut();
        headers.insert(header::HOST, host);
        headers.insert(DATE, date);
        headers.insert(CONTENT, content);
        let (names, fields) = signed_fields(headers);
        let (path, query) =
            target.as_ref().map_or(("/", ""), |target| (target.path(), PathAndQuery::query(target).unwrap_or("")));
        let canonical =
            format!("{method}\n{}\n{}\n{fields}\n{names}\n{payload}", canonical_path(path), canonical_query(query));
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let text = format!(
            "AWS4-HMAC-SHA256\n{day}T{time}Z\n{scope}\n{}",
            hex(digest(&SHA256, canonical.as_bytes()).as_ref())
        );
        let key = [day.as_str(), &self.region, "s3", "aws4_request"]
            .iter()
            .fold(format!("AWS4{}", self.secret_key).into_bytes(), |key, part| mac(&key, part));
        let signature = hex(&mac(&key, &text));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
            self.access_key
        );
        if let Ok(mut value) = HeaderValue::try_from(authorization) {
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
    }
}

/// `Host` as the connection will send it: without the scheme's own port.
fn host_of(uri: &Uri, authority: &Authority) -> Option<HeaderValue> {
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let text = match authority.port_u16() {
        Some(port) if port != default => format!("{}:{port}", authority.host()),
        _ => authority.host().to_owned(),
    };
    HeaderValue::try_from(text).ok()
}

/// The names of the fields that are signed, and the fields, one a line.
fn signed_fields(headers: &HeaderMap) -> (String, String) {
    let present = [header::HOST, header::RANGE, CONTENT, DATE].into_iter().filter_map(|name| {
        let value = headers.get(&name)?.to_str().ok()?.trim().to_owned();
        Some((name, value))
    });
    let (mut names, mut fields) = (String::new(), String::new());
    for (name, value) in present {
        if !names.is_empty() {
            names.push(';');
        }
        names.push_str(name.as_str());
        let _ = writeln!(fields, "{name}:{value}");
    }
    (names, fields)
}

fn canonical_path(path: &str) -> String {
    let encode = |segment: &str| {
        let decoded: Vec<u8> = percent_decode_str(segment).collect();
        percent_encoding::percent_encode(&decoded, SEGMENT).to_string()
    };
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

fn canonical_query(query: &str) -> String {
    let encode = |text: &str| utf8_percent_encode(&percent_decode_str(text).decode_utf8_lossy(), SEGMENT).to_string();
    let mut pairs: Vec<String> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            format!("{}={}", encode(name), encode(value))
        })
        .collect();
    pairs.sort_unstable();
    pairs.join("&")
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `20130524` and `000000` of seconds since the epoch, in the proleptic Gregorian calendar.
fn stamp(now: i64) -> (String, String) {
    let (days, seconds) = (now.div_euclid(86_400), now.rem_euclid(86_400));
    // Days from 1 March of year 0, so that the leap day is a year's last: eras of 400 years.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let time = format!("{:02}{:02}{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    (format!("{year:04}{month:02}{day:02}"), time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_s_example_is_signed_as_it_says() {
        let key = S3 {
            region: "us-east-1".into(),
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        };
        key.check().unwrap();
        let mut request = Request::get("https://examplebucket.s3.amazonaws.com/test.txt")
            .header("range", "bytes=0-9")
            .body(())
            .unwrap();
        // 24 May 2013, 00:00:00 GMT.
        key.sign(&mut request, 1_369_353_600);
        let value = request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned();
        assert_eq!(
            value,
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        assert!(!format!("{key:?}{request:?}").contains("wJalr"));
    }

    #[test]
    fn days_and_characters() {
        assert_eq!(stamp(951_782_399), ("20000228".into(), "235959".into()));
        assert_eq!(stamp(951_782_400).0, "20000229");
        assert_eq!(stamp(1_709_164_800).0, "20240229");
        assert_eq!(stamp(1_798_761_599), ("20261231".into(), "235959".into()));
        assert_eq!(canonical_path("/v/a b%2Bc/~x"), "/v/a%20b%2Bc/~x");
        assert_eq!(canonical_query("b=2&a=1&c"), "a=1&b=2&c=");
    }
}

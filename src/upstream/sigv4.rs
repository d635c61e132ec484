//! Signs requests to S3 buckets (AWS Signature Version 4).
//!
//! Signed are the host, the range and the time. Bodies are not: an edge sends none to a bucket.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4::SigningParams;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Request, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode, utf8_percent_encode};
use serde::Deserialize;

use crate::error::{BoxError, PoolError};

/// All but unreserved characters are encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// `auth.s3` of a pool whose origins are buckets.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// The region that requests are signed for; `us-east-1` for most compatible stores.
    pub region: String,
    /// The id of the access key.
    pub access_key: String,
    /// The secret of the access key.
    pub secret_key: String,
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3").field("region", &self.region).finish_non_exhaustive()
    }
}

/// Signs requests with one key.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    region: String,
    credentials: Credentials,
}

impl Signer {
    /// A signer for `s3`; an error if a part of it can't stand in a header.
    pub(crate) fn new(s3: &S3) -> Result<Self, PoolError> {
        let is_plain =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"/,".contains(&b));
        if !is_plain(&s3.region) || !is_plain(&s3.access_key) || s3.secret_key.is_empty() {
            return Err(PoolError::S3);
        }
        let credentials = Credentials::builder()
            .access_key_id(s3.access_key.as_str())
            .secret_access_key(s3.secret_key.as_str())
            .provider_name("auth.s3")
            .build();
        Ok(Self { region: s3.region.clone(), credentials })
    }

    /// Signs a request as of `now`. A request that can't be signed is sent unsigned, and the bucket refuses it.
    pub(crate) fn sign<B>(&self, request: &mut Request<B>, now: SystemTime) {
        if let Err(cause) = self.try_sign(request, now) {
            tracing::debug!(cause, "a request to a bucket could not be signed");
        }
    }

    fn try_sign<B>(&self, request: &mut Request<B>, now: SystemTime) -> Result<(), BoxError> {
        let uri = request.uri();
        let authority = uri.authority().ok_or("it has no host")?;
        let host = host(uri, authority);
        request.headers_mut().insert(header::HOST, HeaderValue::try_from(host.as_str())?);
        let canonical = canonical_uri(request.uri(), &host);
        let range = request.headers().get(header::RANGE).map(HeaderValue::to_str).transpose()?;
        let signed_fields = [Some(("host", host.as_str())), range.map(|range| ("range", range))];
        let signable = SignableRequest::new(
            request.method().as_str(),
            canonical,
            signed_fields.into_iter().flatten(),
            SignableBody::Bytes(b""),
        )?;
        // S3 compares paths as they are, encoded once.
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let identity = self.credentials.clone().into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(now)
            .settings(settings)
            .build()?
            .into();
        let (headers, _) = sign(signable, &params)?.into_parts().0.into_parts();
        for field in headers {
            let mut value = HeaderValue::try_from(field.value())?;
            let name = HeaderName::try_from(field.name())?;
            value.set_sensitive(name == header::AUTHORIZATION);
            request.headers_mut().insert(name, value);
        }
        Ok(())
    }
}

/// `Host` as the connection sends it: without the scheme's default port.
fn host(uri: &Uri, authority: &Authority) -> String {
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    match authority.port_u16() {
        Some(port) if port != default => format!("{}:{port}", authority.host()),
        _ => authority.host().to_owned(),
    }
}

/// The URI with exactly those characters encoded that S3 encodes when it checks a signature.
fn canonical_uri(uri: &Uri, host: &str) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    let target = uri.path_and_query();
    let path = canonical_path(target.map_or("/", PathAndQuery::path));
    match target.and_then(PathAndQuery::query) {
        Some(query) => format!("{scheme}://{host}{path}?{}", canonical_query(query)),
        None => format!("{scheme}://{host}{path}"),
    }
}

fn canonical_path(path: &str) -> String {
    let encode = |segment: &str| {
        let decoded: Vec<u8> = percent_decode_str(segment).collect();
        percent_encode(&decoded, ENCODED).to_string()
    };
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

fn canonical_query(query: &str) -> String {
    let encode = |text: &str| utf8_percent_encode(&percent_decode_str(text).decode_utf8_lossy(), ENCODED).to_string();
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn signer() -> Signer {
        let key = S3 {
            region: "us-east-1".into(),
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        };
        assert!(!format!("{key:?}").contains("wJalr"));
        Signer::new(&key).unwrap()
    }

    fn at(unix_seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(unix_seconds)
    }

    #[test]
    fn the_documentation_s_example_is_signed_as_it_says() {
        let signer = signer();
        let mut request = Request::get("https://examplebucket.s3.amazonaws.com/test.txt")
            .header("range", "bytes=0-9")
            .header("accept-encoding", "identity")
            .body(())
            .unwrap();
        // 24 May 2013, 00:00:00 GMT.
        signer.sign(&mut request, at(1_369_353_600));
        let value = request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned();
        assert_eq!(
            value,
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, \
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        assert!(!format!("{signer:?}{request:?}").contains("wJalr"));
        assert!(!format!("{request:?}").contains("f0e8bdb8"), "credentials are not logged");
    }

    #[test]
    fn days_and_characters() {
        let date = |unix_seconds: u64| {
            let mut request = Request::get("http://bucket/x").body(()).unwrap();
            signer().sign(&mut request, at(unix_seconds));
            request.headers()["x-amz-date"].to_str().unwrap().to_owned()
        };
        assert_eq!(date(951_782_399), "20000228T235959Z");
        assert_eq!(date(951_782_400), "20000229T000000Z");
        assert_eq!(date(1_709_164_800), "20240229T000000Z");
        assert_eq!(date(1_798_761_599), "20261231T235959Z");
        assert_eq!(canonical_path("/v/a b%2Bc/~x"), "/v/a%20b%2Bc/~x");
        assert_eq!(canonical_query("b=2&a=1&c"), "a=1&b=2&c=");
    }

    #[test]
    fn characters_are_signed_as_s3_encodes_them() {
        let mut request = Request::get("http://127.0.0.1:9000/v/a%20b%2bc/(1)~x?b=2&a=1%2F2&c&d=x+y").body(()).unwrap();
        // 31 December 2028, 23:59:59 GMT.
        signer().sign(&mut request, at(1_861_919_999));
        let value = request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned();
        assert!(
            value.ends_with("Signature=5c6dcc8903b9c88f3b0b978395cf175e92a3ef749b088ddb7a09049001d74ae3"),
            "{value}"
        );
        assert_eq!(request.uri().path(), "/v/a%20b%2bc/(1)~x", "sent as it was");
    }
}

//! The header fields of tus 1.0: read from requests, set in responses.

use axum::body::Body;
use axum::response::IntoResponse;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::answer::ApiResult;
use super::refusal::Refusal;
use lyceum_storage::upload::headers::{self, HeaderError};
use lyceum_storage::upload::{AppendRequest, Upload, UploadState};

pub(super) const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
pub(super) const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
pub(super) const LENGTH: HeaderName = HeaderName::from_static("upload-length");
pub(super) const DEFER: HeaderName = HeaderName::from_static("upload-defer-length");
pub(super) const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
pub(super) const CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
pub(super) const CONCAT: HeaderName = HeaderName::from_static("upload-concat");
pub(super) const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");

pub(super) fn check_version(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(RESUMABLE) {
        Some(version) if version == headers::VERSION => Ok(()),
        _ => Err(Refusal::TusVersion),
    }
}

pub(super) fn text<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    display_name: &'static str,
) -> Result<Option<&'h str>, HeaderError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(HeaderError::Malformed(display_name));
    }
    value.map(|value| value.to_str().map_err(|_| HeaderError::Malformed(display_name))).transpose()
}

pub(super) fn number(
    headers: &HeaderMap,
    name: &HeaderName,
    display_name: &'static str,
) -> Result<Option<u64>, HeaderError> {
    text(headers, name, display_name)?.map(|text| headers::number(display_name, text)).transpose()
}

pub(super) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, HeaderError> {
    number(headers, &header::CONTENT_LENGTH, "Content-Length")
}

pub(super) fn is_offset_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(headers::CONTENT_TYPE)
}

pub(super) fn set_protocol_headers(headers: &mut HeaderMap) {
    headers.insert(RESUMABLE, HeaderValue::from_static(headers::VERSION));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Every response of tus carries its version, refusals too.
pub(super) fn protocol(answer: ApiResult) -> ApiResult {
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    set_protocol_headers(response.headers_mut());
    Ok(response)
}

pub(super) fn incoming(head: &HeaderMap, offset: u64, body: Body) -> Result<AppendRequest, Refusal> {
    let checksum = text(head, &CHECKSUM, "Upload-Checksum")?.map(headers::checksum).transpose()?;
    Ok(AppendRequest {
        offset,
        content_length: content_length(head)?,
        length: number(head, &LENGTH, "Upload-Length")?,
        max_length: None,
        checksum,
        body: body.into_data_stream().map(|chunk| chunk.map_err(|error| error.to_string())).boxed(),
    })
}

pub(super) fn describe(upload: &Upload, to: &mut HeaderMap) {
    to.insert(OFFSET, HeaderValue::from(upload.received));
    if upload.state == UploadState::Open && !upload.is_whole() {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(u64::try_from(upload.expires).unwrap_or(0));
        if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(at)) {
            to.insert(EXPIRES, date);
        }
    }
}

/// What proxies add to requests (RFC 7239; RFC 9110, section 7.6.3).
const PROXY_FIELDS: &[&str] = &["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "via"];

/// What an upload's `Location` begins with. A relative one is right for whoever came straight here, under any name of this
/// origin. Behind a proxy, which may change host, scheme and path, clients get the public URL; but not a page that was
/// opened under another name, because to its browser that would be another site.
pub(super) fn location_base<'u>(public_url: &'u str, head: &HeaderMap) -> &'u str {
    let proxied = PROXY_FIELDS.iter().any(|name| head.contains_key(*name));
    let prefixed = public_url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    let elsewhere = head.get(header::ORIGIN).is_some_and(|page| {
        let rest = public_url.as_bytes().strip_prefix(page.as_bytes());
        rest.is_none_or(|rest| !matches!(rest.first(), None | Some(b'/')))
    });
    if (proxied || prefixed) && !elsewhere { public_url } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_absolute_behind_a_proxy() {
        let public = "https://school.example";
        let base = |url: &'static str, fields: &[(&'static str, &'static str)]| {
            let fields =
                fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            location_base(url, &fields.collect()).to_owned()
        };
        assert_eq!(base(public, &[("host", "10.0.0.1:8080")]), "");
        assert_eq!(base(public, &[("host", "10.0.0.1:8080"), ("via", "1.1 proxy")]), public);
        assert_eq!(base(public, &[("x-forwarded-proto", "https")]), public);
        assert_eq!(base(public, &[("forwarded", "proto=https"), ("origin", "https://school.example")]), public);
        // A page that was opened as https://www.school.example.
        assert_eq!(base(public, &[("via", "1.1 proxy"), ("origin", "https://www.school.example")]), "");
        // A proxy that serves a folder as this origin.
        assert_eq!(base("https://school.example/video", &[]), "https://school.example/video");
    }
}

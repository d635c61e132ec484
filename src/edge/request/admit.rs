//! Admit: whether a message is well formed enough to be answered at all.

use http::header::{self, HeaderMap};
use http::uri::Scheme;
use http::{Version, request};

use crate::error::Refusal;
use lyceum_http::byte_set::ByteSet;

/// Checks that there is one valid host, the same in the URI and in `Host` (RFC 9112, section 3.2), and no scheme but
/// `http` and `https`. Returns the host.
pub(crate) fn check_host(head: &request::Parts) -> Result<&str, Refusal> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let in_field = match first {
        Some(value) if is_authority(value.as_bytes()) => Some(value.as_bytes()),
        Some(_) => return Err(Refusal::Host),
        None => None,
    };
    let in_uri = head.uri.authority();
    let agree = match (in_field, in_uri) {
        (Some(field), Some(uri)) => field.eq_ignore_ascii_case(uri.as_str().as_bytes()),
        (None, None) => head.version == Version::HTTP_10,
        (Some(_), None) => true,
        (None, Some(_)) => head.version != Version::HTTP_11,
    };
    let of_http = head.uri.scheme().is_none_or(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
    let of_field = || first.and_then(|value| value.to_str().ok());
    let host = in_uri.map(http::uri::Authority::as_str).or_else(of_field).unwrap_or("");
    if second.is_none() && agree && of_http { Ok(host) } else { Err(Refusal::Host) }
}

/// Refuses transfer codings other than a single `chunked`. hyper accepts any list that ends in it, and one that repeats it
/// is framed differently by other parties (RFC 9112, section 6.1: request smuggling).
pub(crate) fn check_framing(request: &HeaderMap) -> Result<(), Refusal> {
    if !request.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    let mut codings = request.get_all(header::TRANSFER_ENCODING).iter();
    let plain = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(one), None) => one.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    if plain { Ok(()) } else { Err(Refusal::Framing) }
}

/// Characters of a host and its port (RFC 3986, section 3.2.2).
static HOST_CHARACTERS: ByteSet = ByteSet::alphanumeric_and(b"-._~%!$&'()*+,;=[]:");

/// Whether it has the form `host [":" port]` (RFC 3986, section 3.2), without user information.
fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', ..] => match text.iter().position(|b| *b == b']').and_then(|end| text.split_at_checked(end + 1)) {
            Some((host, rest)) => (host, rest.strip_prefix(b":").or_else(|| rest.is_empty().then_some(b"".as_slice()))),
            None => return false,
        },
        _ => match text.iter().position(|b| *b == b':').and_then(|colon| text.split_at_checked(colon)) {
            Some((host, rest)) => (host, rest.get(1..)),
            None => (text, Some(b"".as_slice())),
        },
    };
    !host.is_empty()
        && host.iter().all(|byte| HOST_CHARACTERS.contains(*byte))
        && port.is_some_and(|port| port.iter().all(u8::is_ascii_digit))
}

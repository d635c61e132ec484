//! The client of a proxied request: `Forwarded` (RFC 7239) and its predecessor `X-Forwarded-For`.
//!
//! Anyone can send these fields. They are read from the right, and an element counts only if the hop that wrote it is
//! trusted, so that elements forged by a client are never reached.

use core::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName};

use crate::fields;
use crate::ip_network::Network;

/// The most elements that are read, from the right.
const MAX_HOPS: usize = 32;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What one proxy reports of the request that it received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// The sender's address; none where missing, obfuscated or `unknown`.
    pub address: Option<IpAddr>,
    /// Whether it was encrypted, where given.
    pub secure: Option<bool>,
}

/// The elements of `Forwarded`, in order.
pub fn forwarded(headers: &HeaderMap) -> Vec<Hop> {
    let mut hops: Vec<Hop> = fields::values(headers, &header::FORWARDED).flat_map(fields::list).map(element).collect();
    hops.drain(..hops.len().saturating_sub(MAX_HOPS));
    hops
}

/// The elements of `X-Forwarded-For`; `X-Forwarded-Proto` applies to all of them.
pub fn x_forwarded_for(headers: &HeaderMap) -> Vec<Hop> {
    let secure = fields::single(headers, &X_FORWARDED_PROTO).and_then(scheme);
    let mut hops: Vec<Hop> = fields::values(headers, &X_FORWARDED_FOR)
        .flat_map(fields::list)
        .map(|text| Hop { address: node(text), secure })
        .collect();
    hops.drain(..hops.len().saturating_sub(MAX_HOPS));
    hops
}

/// The client on whose behalf `peer` sent the request, and whether it was encrypted, where given.
pub fn client(peer: IpAddr, hops: &[Hop], trusted: &[Network]) -> Hop {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = Hop { address: Some(peer), secure: None };
    for hop in hops.iter().rev() {
        if !client.address.is_some_and(is_trusted) {
            break;
        }
        let Some(address) = hop.address else { break };
        client = Hop { address: Some(address.to_canonical()), secure: hop.secure };
    }
    client
}

/// `for=192.0.2.60;proto=http;by=203.0.113.43` (RFC 7239, section 4).
fn element(text: &str) -> Hop {
    let mut hop = Hop::default();
    let mut rest = text;
    while !rest.is_empty() {
        let end = fields::unquoted(rest, b';').unwrap_or(rest.len());
        let (pair, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
        rest = tail.get(1..).unwrap_or("");
        let Some((name, value)) = pair.split_once('=') else { continue };
        let value = fields::unquote(value.trim());
        match name.trim() {
            name if name.eq_ignore_ascii_case("for") => hop.address = node(value),
            name if name.eq_ignore_ascii_case("proto") => hop.secure = scheme(value),
            _ => {}
        }
    }
    hop
}

/// An address with or without a port (RFC 7239, section 6). `unknown` and `_hidden` give none.
fn node(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let alone = || bracketed.unwrap_or(text).parse().ok();
    alone().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

fn scheme(text: &str) -> Option<bool> {
    match text {
        text if text.eq_ignore_ascii_case("https") => Some(true),
        text if text.eq_ignore_ascii_case("http") => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn asked(peer: &str, hops: &[Hop]) -> (String, Option<bool>) {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        let client = client(peer.parse().unwrap(), hops, &trusted);
        (client.address.unwrap().to_string(), client.secure)
    }

    #[test]
    fn elements_of_trusted_proxies_count_from_the_right() {
        let hops = forwarded(&headers(&[
            ("forwarded", "for=6.6.6.6, For=\"[2001:db8::1]:4711\";Proto=https;by=x"),
            ("forwarded", "for=10.0.0.2;proto=http"),
        ]));
        assert_eq!(asked("10.0.0.1", &hops), ("2001:db8::1".into(), Some(true)), "what is left of it is not reached");
        assert_eq!(asked("192.0.2.1", &hops), ("192.0.2.1".into(), None), "a stranger speaks for itself");
        let hidden = forwarded(&headers(&[("forwarded", "for=6.6.6.6, for=unknown")]));
        assert_eq!(asked("10.0.0.1", &hidden), ("10.0.0.1".into(), None));
        let old = x_forwarded_for(&headers(&[
            ("x-forwarded-for", "6.6.6.6, 192.0.2.7:80, 10.1.1.1"),
            ("x-forwarded-proto", "https"),
        ]));
        assert_eq!(asked("::1", &old), ("192.0.2.7".into(), Some(true)));
        assert_eq!(asked("10.0.0.1", &[]), ("10.0.0.1".into(), None));
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_a_stranger_stays_one(text in "[ -~]{0,80}") {
            for name in ["forwarded", "x-forwarded-for"] {
                let headers = headers(&[(name, text.as_str())]);
                prop_assert_eq!(asked("192.0.2.1", &forwarded(&headers)).0, "192.0.2.1");
                let _ = asked("10.0.0.1", &x_forwarded_for(&headers));
            }
        }
    }
}

//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): the header that a load balancer
//! sends before a connection's data to name its client.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str::FromStr;

/// The first bytes of a version 2 header.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1 with its line end, in bytes.
const MAX_LINE_BYTES: usize = 107;
/// The longest block of addresses and extensions of version 2 that is accepted, in bytes.
const MAX_BLOCK_BYTES: usize = 2048;

/// What the bytes read so far contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An incomplete header: it has at least this many bytes.
    Needs(usize),
    /// A complete header.
    Whole {
        /// The client; none for the balancer's own connections (health checks) and for families without an address.
        client: Option<SocketAddr>,
    },
}

/// The bytes are not a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY header")]
pub struct NotProxy;

/// Reads a header from its first bytes. Called with as many bytes as [`Parsed::Needs`] asked for, until it is complete,
/// so that no byte after it is read.
pub fn parse(bytes: &[u8]) -> Result<Parsed, NotProxy> {
    const TEXT: &[u8] = b"PROXY ";
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if bytes.len() < SIGNATURE.len() && (begins(SIGNATURE) || begins(TEXT)) {
        // No header of either version is shorter.
        return Ok(Parsed::Needs(SIGNATURE.len()));
    }
    if begins(SIGNATURE) {
        return if bytes.len() < 16 { Ok(Parsed::Needs(16)) } else { version_2(bytes) };
    }
    if !begins(TEXT) {
        return Err(NotProxy);
    }
    if bytes.ends_with(b"\r\n") {
        return version_1(bytes);
    }
    // A line is read byte by byte: its length is not known in advance.
    if bytes.len() >= MAX_LINE_BYTES { Err(NotProxy) } else { Ok(Parsed::Needs(bytes.len() + 1)) }
}

fn version_1(line: &[u8]) -> Result<Parsed, NotProxy> {
    let line = core::str::from_utf8(line).map_err(|_| NotProxy)?.strip_suffix("\r\n").ok_or(NotProxy)?;
    let words: Vec<&str> = line.split(' ').collect();
    let (source, _target, ports) = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => return Ok(Parsed::Whole { client: None }),
        ["PROXY", "TCP4", source, target, ports @ ..] => {
            (address::<Ipv4Addr>(source)?, address::<Ipv4Addr>(target)?, ports)
        }
        ["PROXY", "TCP6", source, target, ports @ ..] => {
            (address::<Ipv6Addr>(source)?, address::<Ipv6Addr>(target)?, ports)
        }
        _ => return Err(NotProxy),
    };
    let [from, to] = ports else { return Err(NotProxy) };
    let (port, _to) = (port(from)?, port(to)?);
    Ok(Parsed::Whole { client: Some(SocketAddr::new(source, port)) })
}

fn address<A: FromStr + Into<IpAddr>>(text: &str) -> Result<IpAddr, NotProxy> {
    text.parse::<A>().map(Into::into).map_err(|_| NotProxy)
}

fn port(text: &str) -> Result<u16, NotProxy> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().map_err(|_| NotProxy) } else { Err(NotProxy) }
}

fn version_2(bytes: &[u8]) -> Result<Parsed, NotProxy> {
    let (Some(&[command, family, high, low]), Some(block)) = (bytes.get(12..16), bytes.get(16..)) else {
        return Err(NotProxy);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_BLOCK_BYTES || command >> 4 != 2 {
        return Err(NotProxy);
    }
    if block.len() < length {
        return Ok(Parsed::Needs(16 + length));
    }
    let client = match (command & 0xf, family) {
        (0, _) => None,
        (1, 0x11) => Some(SocketAddr::new(
            Ipv4Addr::from(block.first_chunk::<4>().copied().ok_or(NotProxy)?).into(),
            port_at(block, 8, 12, length)?,
        )),
        (1, 0x21) => Some(SocketAddr::new(
            Ipv6Addr::from(block.first_chunk::<16>().copied().ok_or(NotProxy)?).into(),
            port_at(block, 32, 36, length)?,
        )),
        // Families without an Internet address, and datagrams, name no client.
        (1, _) => None,
        _ => return Err(NotProxy),
    };
    Ok(Parsed::Whole { client })
}

fn port_at(block: &[u8], at: usize, least: usize, length: usize) -> Result<u16, NotProxy> {
    let port = block.get(at..at + 2).and_then(|bytes| bytes.first_chunk::<2>()).ok_or(NotProxy)?;
    if length < least { Err(NotProxy) } else { Ok(u16::from_be_bytes(*port)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads as a listener does: only what was asked for.
    fn read(stream: &[u8]) -> Result<(Option<String>, usize), NotProxy> {
        let mut have = 0;
        loop {
            match parse(stream.get(..have).unwrap_or(stream))? {
                Parsed::Needs(more) if more > stream.len() => return Err(NotProxy),
                Parsed::Needs(more) => {
                    assert!(more > have);
                    have = more;
                }
                Parsed::Whole { client } => return Ok((client.map(|c| c.to_string()), have)),
            }
        }
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((block.len() as u16).to_be_bytes());
        bytes.extend(block);
        bytes
    }

    #[test]
    fn both_versions_name_the_client_and_read_no_byte_more() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 1, 0xbb];
        let mut v6 = [0_u8; 36];
        (v6[15], v6[33]) = (1, 80);
        for (header, client) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n".to_vec(), Some("192.0.2.7:8080")),
            (b"PROXY TCP6 2001:db8::1 ::1 5 443\r\n".to_vec(), Some("[2001:db8::1]:5")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN anything at all\r\n".to_vec(), None),
            (v2(0x21, 0x11, &v4), Some("192.0.2.7:8080")),
            (v2(0x21, 0x21, &v6), Some("[::1]:80")),
            (v2(0x21, 0x11, &[&v4[..], b"\x04\x00\x01x"].concat()), Some("192.0.2.7:8080")),
            (v2(0x20, 0x00, b""), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            let stream = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(read(&stream), Ok((client.map(str::to_owned), header.len())), "{header:?}");
        }
    }

    #[test]
    fn anything_but_a_header_is_refused() {
        for bad in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443 1\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 1\r\n".to_vec(),
            b"PROXY TCP4  192.0.2.7 10.0.0.1 1 1\r\n".to_vec(),
            [b"PROXY UNKNOWN ".to_vec(), vec![b'a'; 120]].concat(),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x11, &[0; 3000]),
        ] {
            assert_eq!(read(&bad), Err(NotProxy), "{}", String::from_utf8_lossy(&bad));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(start in 0_usize..3, rest in prop::collection::vec(any::<u8>(), 0..80)) {
            let begin: &[u8] = [b"".as_slice(), b"PROXY TCP4 ", SIGNATURE][start];
            let _ = read(&[begin, &rest].concat());
        }
    }
}

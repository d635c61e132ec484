//! The network that a token is bound to (RFC 9246, section 2.1.10).

use std::net::IpAddr;

use super::error::PlaybackError;

/// An address or a network in CIDR notation: `203.0.113.7`, `2001:db8::/48`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientNetwork(String);

impl ClientNetwork {
    /// Takes the form that edges read.
    pub(crate) fn parse(text: &str) -> Result<Self, PlaybackError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| PlaybackError::InvalidClientNetwork)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix.is_none_or(|prefix| prefix_bits(prefix).is_some_and(|bits| bits <= longest)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(PlaybackError::InvalidClientNetwork)
        }
    }

    /// The value of the claim `cdniip`. In the clear: the claim is meant to keep an address from whoever reads the URI,
    /// and here that is its own client.
    pub(crate) fn into_claim(self) -> String {
        self.0
    }
}

/// Digits alone: `u8::from_str` would take a sign, too.
fn prefix_bits(text: &str) -> Option<u8> {
    let digits = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_or_a_network() {
        for good in ["203.0.113.7", "203.0.113.0/24", "2001:db8::1", "2001:db8::/48", "0.0.0.0/0"] {
            assert_eq!(ClientNetwork::parse(good).unwrap().into_claim(), good);
        }
        for bad in [
            "",
            "example.com",
            "203.0.113.7/33",
            "2001:db8::/129",
            "203.0.113.0/",
            "203.0.113.0/+8",
            "1.2.3",
            "203.0.113.7/24/8",
        ] {
            assert!(ClientNetwork::parse(bad).is_err(), "{bad}");
        }
    }
}

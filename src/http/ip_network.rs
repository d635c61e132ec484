//! An address or a prefix of addresses, as configurations and tokens write them (RFC 4632, RFC 4291 section 2.3).

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, de::Error as _};

/// A network: `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`. IPv4 addresses mapped into IPv6 count as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

/// The text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no address and no network: write one such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32")]
pub struct NotANetwork;

impl Network {
    /// The network of one address.
    pub fn single(address: IpAddr) -> Self {
        Self(IpNet::from(address.to_canonical()))
    }

    /// Whether `address` lies in it. An IPv4 address mapped into IPv6 (RFC 4291, section 2.5.5.2) counts as IPv4.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        // A length is digits without a leading zero: "+8" and "08" are refused.
        let (address, digits) = text.split_once('/').map_or((text, None), |(address, digits)| (address, Some(digits)));
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let network = match digits {
            None => IpNet::from(address),
            Some(digits)
                if digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0')) =>
            {
                let length = digits.parse().map_err(|_| NotANetwork)?;
                IpNet::new(address, length).map_err(|_| NotANetwork)?
            }
            Some(_) => return Err(NotANetwork),
        };
        Ok(Self(unmapped(network)))
    }
}

/// A prefix of mapped addresses as one of IPv4, where it covers nothing else.
fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let Some(address) = v6.addr().to_ipv4_mapped() else { return network };
    let length = v6.prefix_len().checked_sub(96).and_then(|length| Ipv4Net::new(address, length).ok());
    length.map_or(network, IpNet::V4)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|what: NotANetwork| D::Error::custom(format!("\"{text}\" is {what}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn prefixes_hold_what_begins_like_them() {
        for (network, inside) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.0/24", "192.0.2.255"),
            ("192.0.2.77/24", "192.0.2.1"),
            ("0.0.0.0/0", "8.8.8.8"),
            ("2001:db8::/32", "2001:db8:ffff::1"),
            ("::1", "::1"),
            ("192.0.2.0/24", "::ffff:192.0.2.9"),
            ("::ffff:192.0.2.0/120", "192.0.2.9"),
        ] {
            assert!(contains(network, inside), "{network} {inside}");
        }
        for (network, outside) in [
            ("192.0.2.7", "192.0.2.8"),
            ("192.0.2.0/24", "192.0.3.0"),
            ("0.0.0.0/0", "::1"),
            ("::/0", "192.0.2.1"),
            ("2001:db8::/32", "2001:db9::"),
        ] {
            assert!(!contains(network, outside), "{network} {outside}");
        }
    }

    #[test]
    fn what_reads_in_two_ways_is_no_network() {
        for bad in [
            "",
            "a",
            "192.0.2",
            "192.0.2.0/33",
            "::/129",
            "192.0.2.0/",
            "192.0.2.0/+8",
            "192.0.2.0/08",
            "1.2.3.4/8/8",
            " 1.2.3.4",
        ] {
            assert_eq!(bad.parse::<Network>(), Err(NotANetwork), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_network_holds_its_own_address_and_reads_back(bits in any::<u32>(), prefix in 0_u8..=32) {
            let address = IpAddr::from(core::net::Ipv4Addr::from_bits(bits));
            let network: Network = format!("{address}/{prefix}").parse().unwrap();
            prop_assert!(network.contains(address));
            prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
            if prefix > 0 {
                let flipped = IpAddr::from(core::net::Ipv4Addr::from_bits(bits ^ 1 << (32 - prefix)));
                prop_assert!(!network.contains(flipped));
            }
        }

        #[test]
        fn any_text_is_read(text in "[0-9a-f:./]{0,30}") {
            let _ = text.parse::<Network>();
        }
    }
}

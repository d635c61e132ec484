//! An address or a prefix of addresses, as configurations and tokens write them (RFC 4632, RFC 4291 section 2.3).

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, de::Error as _};

/// A network: `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no address and no network: write one such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32")]
pub struct NotANetwork;

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first `bits` bits, as a number of 128 bits that has them on top.
fn top(address: IpAddr, bits: u8) -> u128 {
    let all = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    all & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

impl Network {
    /// The one address.
    pub fn single(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, bits: width(address) }
    }

    /// Whether `address` lies in it. An IPv4 address that came mapped into IPv6 counts as what it is.
    pub fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && top(address, self.bits) == top(self.address, self.bits)
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let most = width(written);
        let bits = match bits {
            None => most,
            // Digits alone, and no leading zero: "+8" and "08" would parse as well.
            Some(digits)
                if digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0')) =>
            {
                digits.parse().ok().filter(|bits| *bits <= most).ok_or(NotANetwork)?
            }
            Some(_) => return Err(NotANetwork),
        };
        let address = written.to_canonical();
        // A prefix of mapped addresses is one of IPv4 where it covers nothing else.
        match (written.is_ipv6() && address.is_ipv4(), bits) {
            (false, bits) => Ok(Self { address, bits }),
            (true, 96..) => Ok(Self { address, bits: bits - 96 }),
            (true, bits) => Ok(Self { address: written, bits }),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits == width(self.address) {
            return write!(f, "{}", self.address);
        }
        write!(f, "{}/{}", self.address, self.bits)
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

    fn holds(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().holds(address.parse().unwrap())
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
            assert!(holds(network, inside), "{network} {inside}");
        }
        for (network, outside) in [
            ("192.0.2.7", "192.0.2.8"),
            ("192.0.2.0/24", "192.0.3.0"),
            ("0.0.0.0/0", "::1"),
            ("::/0", "192.0.2.1"),
            ("2001:db8::/32", "2001:db9::"),
        ] {
            assert!(!holds(network, outside), "{network} {outside}");
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
            prop_assert!(network.holds(address));
            prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
            if prefix > 0 {
                let flipped = IpAddr::from(core::net::Ipv4Addr::from_bits(bits ^ 1 << (32 - prefix)));
                prop_assert!(!network.holds(flipped));
            }
        }

        #[test]
        fn any_text_is_read(text in "[0-9a-f:./]{0,30}") {
            let _ = text.parse::<Network>();
        }
    }
}

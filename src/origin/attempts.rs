//! A brake on guessing: wrong secrets are counted by the address that they came from. A secret that an origin made has 256
//! random bits and needs none; one that people chose, as `admin_key` may be, does.
//!
//! Delay, never lock-out: an address that tried too often may try again in a while. Each origin counts for itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lyceum_core::time::Instant;

/// Addresses that are remembered; beyond that, the one that waited longest is forgotten.
const MAX_ADDRESSES: usize = 10_000;
/// The time in which the attempts of the configuration come back.
const WINDOW: Duration = Duration::from_secs(60);

/// Wrong attempts by address.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// When each address will have all its attempts again.
    free_at: Mutex<HashMap<IpAddr, Instant>>,
}

/// Whoever has one IPv6 address has its network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

impl Attempts {
    /// Whether an address may try a secret now; if not, how long it has to wait. `per_minute` is at least 1.
    pub(crate) fn check(&self, address: IpAddr, per_minute: u64, now: Instant) -> Result<(), Duration> {
        let free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = free_at.get(&network(address)) else { return Ok(()) };
        // The last attempt that is left may be used while less than the whole window, less one attempt, is taken.
        let allowed = WINDOW.saturating_sub(each(per_minute));
        let taken = at.saturating_duration_since(now);
        if taken <= allowed { Ok(()) } else { Err(taken.saturating_sub(allowed)) }
    }

    /// Counts a wrong secret.
    pub(crate) fn count(&self, address: IpAddr, per_minute: u64, now: Instant) {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(address);
        if free_at.len() >= MAX_ADDRESSES && !free_at.contains_key(&address) {
            free_at.retain(|_, at| *at > now);
            let soonest = free_at.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address);
            if let Some(soonest) = soonest.filter(|_| free_at.len() >= MAX_ADDRESSES) {
                free_at.remove(&soonest);
            }
        }
        let at = free_at.entry(address).or_insert(now);
        *at = (*at).max(now) + each(per_minute);
    }
}

/// How long one attempt takes to come back.
fn each(per_minute: u64) -> Duration {
    WINDOW / u32::try_from(per_minute.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lyceum_core::time::monotonic;

    #[test]
    fn guesses_are_slowed_by_address_and_come_back_one_by_one() {
        let (attempts, now) = (Attempts::default(), monotonic());
        let guesser: IpAddr = "203.0.113.7".parse().unwrap();
        let mapped: IpAddr = "::ffff:203.0.113.7".parse().unwrap();
        for _ in 0..3 {
            assert_eq!(attempts.check(guesser, 3, now), Ok(()));
            attempts.count(guesser, 3, now);
        }
        assert_eq!(attempts.check(guesser, 3, now), Err(Duration::from_secs(20)));
        assert!(attempts.check(mapped, 3, now).is_err(), "the same address");
        assert_eq!(attempts.check("203.0.113.8".parse().unwrap(), 3, now), Ok(()));
        let later = now + Duration::from_secs(20);
        assert_eq!(attempts.check(guesser, 3, later), Ok(()));
        attempts.count(guesser, 3, later);
        assert!(attempts.check(guesser, 3, later).is_err());
        let network = |last: &str| format!("2001:db8:1:2:{last}").parse::<IpAddr>().unwrap();
        for _ in 0..3 {
            attempts.count(network("a::1"), 3, now);
        }
        assert!(attempts.check(network("b::2"), 3, now).is_err(), "the same network");
        assert_eq!(attempts.check("2001:db8:1:3::1".parse().unwrap(), 3, now), Ok(()));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_tried_most() {
        let (attempts, now) = (Attempts::default(), monotonic());
        let guesser = IpAddr::from([203, 0, 113, 7]);
        for _ in 0..3 {
            attempts.count(guesser, 3, now);
        }
        for number in 0..(MAX_ADDRESSES as u32 + 10) {
            attempts.count(IpAddr::from(number.to_be_bytes()), 3, now);
        }
        assert_eq!(attempts.free_at.lock().unwrap().len(), MAX_ADDRESSES);
        assert!(attempts.check(guesser, 3, now).is_err());
    }
}

//! What each client may cost: connections open at once, and requests a second.
//!
//! A client is an address, or a network of 64 bits with IPv6, where one line has as many. The table is bounded: who
//! holds no connection and has let its bucket fill again is forgotten. A connection keeps its client's entry, so a
//! request costs one atomic step and no look-up.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Limits;
use lyceum_core::time::{Instant, monotonic};
use lyceum_http::ip_network::Network;

const SHARDS: usize = 16;

/// All clients that count now.
#[derive(Debug)]
pub(super) struct Clients {
    shards: Vec<Mutex<HashMap<u64, Arc<Client>>>>,
    hasher: RandomState,
    per_shard: usize,
    connections: u64,
    /// Nanoseconds that one request costs.
    cost: u64,
    /// Nanoseconds of cost that may be run up at once.
    burst: u64,
    exempt: Vec<Network>,
    start: Instant,
}

/// One of them.
#[derive(Debug, Default)]
pub(super) struct Client {
    connections: AtomicU64,
    /// When, in nanoseconds since the start, all that it asked for is paid off: GCRA's theoretical arrival time.
    paid: AtomicU64,
}

/// A connection's place in its client's count; none for those that are exempt.
#[derive(Debug)]
pub(super) struct Place(Option<Arc<Client>>);

/// The client has as many connections as it may.
#[derive(Debug)]
pub(super) struct Full;

impl Clients {
    pub(super) fn new(limits: &Limits) -> Self {
        let second = 1_000_000_000;
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            per_shard: usize::try_from(limits.clients).unwrap_or(usize::MAX).div_ceil(SHARDS),
            connections: limits.connections_per_client,
            cost: second / limits.requests_per_client.max(1),
            burst: limits.requests_burst.saturating_mul(second / limits.requests_per_client.max(1)),
            exempt: limits.exempt.clone(),
            start: monotonic(),
        }
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.iter().any(|network| network.contains(address))
    }

    /// Takes a place for a connection from `address`.
    pub(super) fn enter(&self, address: IpAddr) -> Result<Place, Full> {
        let Some(client) = self.of(address) else { return Ok(Place(None)) };
        if client.connections.fetch_add(1, Ordering::Relaxed) >= self.connections {
            client.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Full);
        }
        Ok(Place(Some(client)))
    }

    /// The entry of `address`; none where it is exempt.
    pub(super) fn of(&self, address: IpAddr) -> Option<Arc<Client>> {
        let address = address.to_canonical();
        if self.is_exempt(address) {
            return None;
        }
        let key = match address {
            IpAddr::V4(v4) => self.hasher.hash_one(v4),
            IpAddr::V6(v6) => self.hasher.hash_one(v6.to_bits() >> 64),
        };
        let shard = self.shards.get((key >> 56) as usize % SHARDS)?;
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = shard.get(&key) {
            return Some(Arc::clone(client));
        }
        if shard.len() >= self.per_shard {
            let now = self.since_start(monotonic());
            let is_held = |client: &Arc<Client>| Arc::strong_count(client) > 1;
            shard.retain(|_, client| is_held(client) || client.paid.load(Ordering::Relaxed) > now);
            if shard.len() >= self.per_shard {
                // Debts are forgotten before anyone new is turned away.
                shard.retain(|_, client| is_held(client));
            }
        }
        let client = Arc::new(Client::default());
        shard.insert(key, Arc::clone(&client));
        Some(client)
    }

    fn since_start(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Counts one request that came at `at`, or says how long to wait.
    pub(super) fn ask(&self, client: &Client, at: Instant) -> Result<(), Duration> {
        let now = self.since_start(at);
        let mut paid = client.paid.load(Ordering::Relaxed);
        loop {
            let next = paid.max(now).saturating_add(self.cost);
            if next.saturating_sub(now) > self.burst.max(self.cost) {
                return Err(Duration::from_nanos(next - now - self.burst.max(self.cost)));
            }
            match client.paid.compare_exchange_weak(paid, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => paid = other,
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }
}

impl Place {
    pub(super) fn client(&self) -> Option<&Arc<Client>> {
        self.0.as_ref()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(client) = &self.0 {
            client.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            connections_per_client: 2,
            requests_per_client: 10,
            requests_burst: 5,
            clients: 160,
            exempt: vec!["10.0.0.0/8".parse().unwrap()],
            ..Limits::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_empties_and_fills_again() {
        let clients = Clients::new(&limits());
        let client = clients.of("192.0.2.1".parse().unwrap()).unwrap();
        for _ in 0..5 {
            assert!(clients.ask(&client, monotonic()).is_ok());
        }
        assert_eq!(clients.ask(&client, monotonic()), Err(Duration::from_millis(100)));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(clients.ask(&client, monotonic()).is_ok() && clients.ask(&client, monotonic()).is_err());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(
            (0..20).filter(|_| clients.ask(&client, monotonic()).is_ok()).count(),
            5,
            "rest saves up no more than the burst"
        );
        let other = clients.of("192.0.2.2".parse().unwrap()).unwrap();
        assert!(clients.ask(&other, monotonic()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_counted_by_address_and_by_network_with_ipv6() {
        let clients = Clients::new(&limits());
        let enter = |address: &str| clients.enter(address.parse().unwrap());
        let first = enter("2001:db8::1").unwrap();
        let _second = enter("2001:db8::2").unwrap();
        assert!(enter("2001:db8::3").is_err());
        assert!(enter("2001:db8:0:1::1").is_ok(), "another network");
        drop(first);
        assert!(enter("2001:db8::3").is_ok());
        let exempt: Vec<_> = (0..9).map(|_| enter("10.1.1.1")).collect();
        assert!(exempt.iter().all(Result::is_ok) && clients.of("::ffff:10.1.1.1".parse().unwrap()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_keeps_those_who_hold_connections() {
        let clients = Clients::new(&limits());
        let held = clients.enter("192.0.2.1".parse().unwrap()).unwrap();
        for n in 0..5000_u32 {
            let client = clients.of(IpAddr::from(std::net::Ipv4Addr::from_bits(n << 8))).unwrap();
            let _ = clients.ask(&client, monotonic());
        }
        assert!(clients.len() <= 160 + 1, "{}", clients.len());
        let again = clients.of("192.0.2.1".parse().unwrap()).unwrap();
        assert!(Arc::ptr_eq(held.client().unwrap(), &again));
    }
}

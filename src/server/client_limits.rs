//! Limits of each client: connections open at once, and requests a second.
//!
//! A client is an IPv4 address, or a /64 network with IPv6, which is what one subscriber has. The table is bounded: a client
//! without a connection whose bucket is full again is removed first. A connection keeps its client's entry, so a request
//! costs one atomic update and no look-up.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lyceum_core::time::{Instant, monotonic};
use lyceum_http::ip_network::Network;

use crate::limits::Limits;

/// Locks among which the table is divided.
const SHARD_COUNT: usize = 16;

/// The clients that are counted now.
#[derive(Debug)]
pub(crate) struct ClientLimits {
    shards: Vec<Mutex<HashMap<u64, Arc<Client>>>>,
    hasher: RandomState,
    max_per_shard: usize,
    max_connections: u64,
    /// Nanoseconds between two requests at the permitted rate: the emission interval of GCRA.
    cost_ns: u64,
    /// Nanoseconds by which requests may be ahead of that rate.
    burst_ns: u64,
    exempt: Vec<Network>,
    start: Instant,
}

/// A client's counts.
#[derive(Debug, Default)]
pub(crate) struct Client {
    connections: AtomicU64,
    /// The theoretical arrival time of GCRA, in nanoseconds since `start`.
    paid_at: AtomicU64,
}

/// Counts a connection of its client while it lives; of none where the client is exempt.
#[derive(Debug)]
pub(crate) struct ConnectionSlot(Option<Arc<Client>>);

/// The client has as many connections as it may have.
#[derive(Debug)]
pub(crate) struct TooManyConnections;

impl ClientLimits {
    pub(crate) fn new(limits: &Limits) -> Self {
        let second = 1_000_000_000;
        Self {
            shards: (0..SHARD_COUNT).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            max_per_shard: usize::try_from(limits.clients).unwrap_or(usize::MAX).div_ceil(SHARD_COUNT),
            max_connections: limits.connections_per_client,
            cost_ns: second / limits.requests_per_client.max(1),
            burst_ns: limits.requests_burst.saturating_mul(second / limits.requests_per_client.max(1)),
            exempt: limits.exempt.clone(),
            start: monotonic(),
        }
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.iter().any(|network| network.contains(address))
    }

    /// Counts a connection from `address`.
    pub(crate) fn open_connection(&self, address: IpAddr) -> Result<ConnectionSlot, TooManyConnections> {
        let Some(client) = self.client(address) else { return Ok(ConnectionSlot(None)) };
        if client.connections.fetch_add(1, Ordering::Relaxed) >= self.max_connections {
            client.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(TooManyConnections);
        }
        Ok(ConnectionSlot(Some(client)))
    }

    /// The entry of `address`; `None` if it is exempt.
    pub(crate) fn client(&self, address: IpAddr) -> Option<Arc<Client>> {
        let address = address.to_canonical();
        if self.is_exempt(address) {
            return None;
        }
        let key = match address {
            IpAddr::V4(v4) => self.hasher.hash_one(v4),
            IpAddr::V6(v6) => self.hasher.hash_one(v6.to_bits() >> 64),
        };
        let shard = self.shards.get((key >> 56) as usize % SHARD_COUNT)?;
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = shard.get(&key) {
            return Some(Arc::clone(client));
        }
        if shard.len() >= self.max_per_shard {
            let now = self.since_start(monotonic());
            let is_held = |client: &Arc<Client>| Arc::strong_count(client) > 1;
            shard.retain(|_, client| is_held(client) || client.paid_at.load(Ordering::Relaxed) > now);
            if shard.len() >= self.max_per_shard {
                // Removes clients that have used their bucket too: new clients are never refused.
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

    /// Counts a request that came at `at`; an error says how long to wait.
    pub(crate) fn count_request(&self, client: &Client, at: Instant) -> Result<(), Duration> {
        let now = self.since_start(at);
        let mut paid_at = client.paid_at.load(Ordering::Relaxed);
        loop {
            let next = paid_at.max(now).saturating_add(self.cost_ns);
            if next.saturating_sub(now) > self.burst_ns.max(self.cost_ns) {
                return Err(Duration::from_nanos(next - now - self.burst_ns.max(self.cost_ns)));
            }
            match client.paid_at.compare_exchange_weak(paid_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => paid_at = other,
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }
}

impl ConnectionSlot {
    pub(crate) fn client(&self) -> Option<&Arc<Client>> {
        self.0.as_ref()
    }
}

impl Drop for ConnectionSlot {
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
    async fn a_bucket_empties_and_refills() {
        let client_limits = ClientLimits::new(&limits());
        let client = client_limits.client("192.0.2.1".parse().unwrap()).unwrap();
        for _ in 0..5 {
            assert!(client_limits.count_request(&client, monotonic()).is_ok());
        }
        assert_eq!(client_limits.count_request(&client, monotonic()), Err(Duration::from_millis(100)));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(
            client_limits.count_request(&client, monotonic()).is_ok()
                && client_limits.count_request(&client, monotonic()).is_err()
        );
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(
            (0..20).filter(|_| client_limits.count_request(&client, monotonic()).is_ok()).count(),
            5,
            "no more than the burst"
        );
        let other = client_limits.client("192.0.2.2".parse().unwrap()).unwrap();
        assert!(client_limits.count_request(&other, monotonic()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_counted_by_address_and_by_ipv6_network() {
        let client_limits = ClientLimits::new(&limits());
        let open_connection = |address: &str| client_limits.open_connection(address.parse().unwrap());
        let first = open_connection("2001:db8::1").unwrap();
        let _second = open_connection("2001:db8::2").unwrap();
        assert!(open_connection("2001:db8::3").is_err());
        assert!(open_connection("2001:db8:0:1::1").is_ok(), "another network");
        drop(first);
        assert!(open_connection("2001:db8::3").is_ok());
        let exempt: Vec<_> = (0..9).map(|_| open_connection("10.1.1.1")).collect();
        assert!(exempt.iter().all(Result::is_ok) && client_limits.client("::ffff:10.1.1.1".parse().unwrap()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_keeps_clients_with_connections() {
        let client_limits = ClientLimits::new(&limits());
        let held = client_limits.open_connection("192.0.2.1".parse().unwrap()).unwrap();
        for n in 0..5000_u32 {
            let client = client_limits.client(IpAddr::from(std::net::Ipv4Addr::from_bits(n << 8))).unwrap();
            let _ = client_limits.count_request(&client, monotonic());
        }
        assert!(client_limits.len() <= 160 + 1, "{}", client_limits.len());
        let again = client_limits.client("192.0.2.1".parse().unwrap()).unwrap();
        assert!(Arc::ptr_eq(held.client().unwrap(), &again));
    }
}

//! Chooses an origin: consistent hashing with bounded loads, the less loaded of two, or round robin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lyceum_core::time::Instant;

use crate::config::Balance;
use crate::origin::Origin;

/// Points on the hash ring for each unit of weight.
const POINTS_PER_WEIGHT: u64 = 64;

/// How far above its share an origin may be loaded before the next one is taken, in percent (Mirrokni, Thorup,
/// Zadimoghaddam: "Consistent Hashing with Bounded Loads").
const MAX_LOAD_PERCENT: u64 = 125;

#[derive(Debug)]
pub(crate) struct Balancer {
    balance: Balance,
    /// The hash ring: points, ascending, with the index of the origin that each belongs to.
    ring: Vec<(u64, usize)>,
    /// Choices so far.
    turn: AtomicU64,
}

/// Mixes the bits of a number (the finalizer of SplitMix64); the same on every machine.
pub(crate) fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// A hash of bytes that is the same on every machine (FNV-1a, mixed).
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

impl Balancer {
    pub(crate) fn new(balance: Balance, origins: &[Arc<Origin>]) -> Self {
        let mut ring: Vec<(u64, usize)> = origins
            .iter()
            .enumerate()
            .flat_map(|(index, origin)| {
                let seed = stable_hash(origin.label.as_bytes());
                (0..origin.weight * POINTS_PER_WEIGHT).map(move |n| (mix(seed.wrapping_add(mix(n + 1))), index))
            })
            .collect();
        ring.sort_unstable();
        Self { balance, ring, turn: AtomicU64::new(0) }
    }

    /// The origin to try next, of those not `tried`: one that is up, else a backup that is, else any.
    pub(crate) fn choose(
        &self,
        origins: &[Arc<Origin>],
        affinity: u64,
        tried: &[usize],
        now: Instant,
    ) -> Option<(usize, Arc<Origin>)> {
        let fits = |backup: bool, up: bool| {
            let fitting = |(index, origin): &(usize, &Arc<Origin>)| {
                !tried.contains(index) && origin.backup == backup && (!up || origin.is_up(now))
            };
            let fitting: Vec<(usize, &Arc<Origin>)> = origins.iter().enumerate().filter(fitting).collect();
            (!fitting.is_empty()).then_some(fitting)
        };
        // When all are out, one is tried all the same: it may be back, and a refused connection costs little.
        let fitting = fits(false, true)
            .or_else(|| fits(true, true))
            .or_else(|| fits(false, false))
            .or_else(|| fits(true, false))?;
        let chosen = match (self.balance, fitting.as_slice()) {
            (_, [only]) => Some(*only),
            (Balance::ConsistentHash, several) => self.consistent_hash(several, affinity),
            (Balance::LeastLoaded, several) => self.least_loaded(several),
            (Balance::RoundRobin, several) => self.round_robin(several),
        };
        chosen.or_else(|| fitting.first().copied()).map(|(index, origin)| (index, Arc::clone(origin)))
    }

    fn consistent_hash<'a>(
        &self,
        fitting: &[(usize, &'a Arc<Origin>)],
        affinity: u64,
    ) -> Option<(usize, &'a Arc<Origin>)> {
        let in_flight: u64 = fitting.iter().map(|(_, o)| o.in_flight.load(Ordering::Relaxed) as u64).sum();
        let weight: u64 = fitting.iter().map(|(_, o)| o.weight).sum();
        let has_room = |origin: &Origin| {
            let share = ((in_flight + 1) * origin.weight * MAX_LOAD_PERCENT).div_ceil(weight * 100);
            (origin.in_flight.load(Ordering::Relaxed) as u64) < share
        };
        let start = self.ring.partition_point(|(point, _)| *point < affinity);
        let (before, after) = self.ring.split_at_checked(start)?;
        let walk = || after.iter().chain(before).filter_map(|(_, at)| fitting.iter().find(|(index, _)| index == at));
        walk().find(|(_, origin)| has_room(origin)).or_else(|| walk().next()).copied()
    }

    fn least_loaded<'a>(&self, fitting: &[(usize, &'a Arc<Origin>)]) -> Option<(usize, &'a Arc<Origin>)> {
        let random = mix(self.turn.fetch_add(1, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15));
        let count = fitting.len() as u64;
        let (a, b) = (random % count, (random >> 32) % (count - 1).max(1));
        let b = if b >= a { b + 1 } else { b };
        let cost = |origin: &Origin| {
            let load = origin.in_flight.load(Ordering::Relaxed) as u64 + 1;
            load.saturating_mul(origin.latency.load(Ordering::Relaxed).max(1)) / origin.weight.max(1)
        };
        let at = |n: u64| fitting.get(usize::try_from(n).unwrap_or(0)).copied();
        [at(a), at(b)].into_iter().flatten().min_by_key(|(_, origin)| cost(origin))
    }

    fn round_robin<'a>(&self, fitting: &[(usize, &'a Arc<Origin>)]) -> Option<(usize, &'a Arc<Origin>)> {
        let weight: u64 = fitting.iter().map(|(_, o)| o.weight).sum();
        let mut turn = self.turn.fetch_add(1, Ordering::Relaxed) % weight.max(1);
        for candidate in fitting {
            match turn.checked_sub(candidate.1.weight) {
                None => return Some(*candidate),
                Some(rest) => turn = rest,
            }
        }
        None
    }
}

//! Keys whose response was not stored lately: requests for them need not wait for one another, as there will be nothing
//! to share.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lyceum_core::time::{Instant, monotonic};

/// The hashes of such keys, each for a while, the oldest forgotten where there are too many. Two keys with the same hash
/// cost a request of its own at most.
#[derive(Debug)]
pub(super) struct Unstored {
    lasts: Duration,
    max_keys: usize,
    hasher: RandomState,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    until: HashMap<u64, Instant>,
    /// In the order of their ends; those that were noted again or forgotten stand there with their former end.
    order: VecDeque<(u64, Instant)>,
}

impl Unstored {
    /// `lasts` zero: none is remembered.
    pub(super) fn new(lasts: Duration, max_keys: usize) -> Self {
        Self { lasts, max_keys, hasher: RandomState::new(), noted: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the response of `key` was not stored.
    pub(super) fn note(&self, key: &str) {
        if self.lasts.is_zero() {
            return;
        }
        let (hash, now) = (self.hasher.hash_one(key), monotonic());
        let until = now + self.lasts;
        let mut noted = self.lock();
        noted.until.insert(hash, until);
        noted.order.push_back((hash, until));
        while let Some((oldest, end)) = noted.order.front().copied()
            && (end <= now || noted.order.len() > self.max_keys)
        {
            noted.order.pop_front();
            if noted.until.get(&oldest) == Some(&end) {
                noted.until.remove(&oldest);
            }
        }
    }

    /// Forgets a key whose response is stored now.
    pub(super) fn forget(&self, key: &str) {
        let mut noted = self.lock();
        if !noted.until.is_empty() {
            noted.until.remove(&self.hasher.hash_one(key));
        }
    }

    /// Whether the last response of `key` was not stored.
    pub(super) fn contains(&self, key: &str) -> bool {
        let noted = self.lock();
        !noted.until.is_empty() && noted.until.get(&self.hasher.hash_one(key)).is_some_and(|end| monotonic() < *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keys_are_remembered_for_a_while_and_not_too_many() {
        let unstored = Unstored::new(Duration::from_secs(10), 3);
        unstored.note("a");
        tokio::time::advance(Duration::from_secs(6)).await;
        unstored.note("b");
        unstored.note("a");
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(unstored.contains("a") && unstored.contains("b") && !unstored.contains("c"), "noted again: for longer");
        unstored.forget("b");
        assert!(!unstored.contains("b"));
        for key in ["c", "d", "e"] {
            unstored.note(key);
        }
        assert!(!unstored.contains("a") && unstored.contains("c") && unstored.contains("e"));
        assert!(unstored.lock().order.len() <= 3 && unstored.lock().until.len() <= 3);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(!unstored.contains("e"));
        let off = Unstored::new(Duration::ZERO, 3);
        off.note("a");
        assert!(!off.contains("a"));
    }
}

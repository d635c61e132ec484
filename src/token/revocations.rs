//! Revoked sessions: a bounded set that is checked on each use of a token.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

/// Revoked sessions, each held until its tokens have expired.
///
/// A read costs one atomic load. A change copies the whole map: changes come in batches, a few a second at most, and
/// expiry keeps the map small.
#[derive(Debug)]
pub struct Revocations {
    /// Sessions with the second since the Unix epoch from which each may be forgotten.
    sessions: ArcSwap<HashMap<Box<str>, i64>>,
    max_sessions: usize,
    changed: watch::Sender<u64>,
    generation: AtomicU64,
}

impl Revocations {
    /// An empty set of at most `max_sessions`.
    pub fn new(max_sessions: usize) -> Self {
        Self { sessions: ArcSwap::default(), max_sessions, changed: watch::channel(0).0, generation: AtomicU64::new(0) }
    }

    /// Adds sessions with the second since the Unix epoch from which each may be forgotten, and forgets those due at `now`.
    /// Returns how many had to be forgotten early because the set is full: those whose tokens expire soonest.
    pub fn add(&self, sessions: impl IntoIterator<Item = (String, i64)>, now: i64) -> usize {
        let mut map = HashMap::clone(&self.sessions.load());
        for (session, until) in sessions {
            let entry = map.entry(session.into_boxed_str()).or_insert(until);
            *entry = until.max(*entry);
        }
        map.retain(|_, until| *until > now);
        let surplus = map.len().saturating_sub(self.max_sessions);
        if surplus > 0 {
            let mut untils: Vec<(i64, Box<str>)> = map.iter().map(|(s, until)| (*until, s.clone())).collect();
            untils.sort_unstable();
            for (_, session) in untils.iter().take(surplus) {
                map.remove(session);
            }
        }
        self.sessions.store(map.into());
        self.generation.fetch_add(1, Ordering::Release);
        self.changed.send_modify(|generation| *generation += 1);
        surplus
    }

    /// Whether the session was revoked.
    #[inline]
    pub fn contains(&self, session: &str) -> bool {
        let sessions = self.sessions.load();
        !sessions.is_empty() && sessions.contains_key(session)
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.sessions.load().len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Grows whenever sessions are added.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// All sessions with the second from which each may be forgotten, to be kept over a restart.
    pub fn snapshot(&self) -> Vec<(String, i64)> {
        self.sessions.load().iter().map(|(session, until)| (session.to_string(), *until)).collect()
    }

    /// Changes whenever sessions are added: responses in progress wait for it.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_held_until_their_tokens_have_expired() {
        let set = Revocations::new(10);
        assert_eq!(set.add([("a".into(), 100), ("b".into(), 200)], 50), 0);
        assert!(set.contains("a") && set.contains("b") && !set.contains("c"));
        set.add([("c".into(), 300)], 150);
        assert!(!set.contains("a") && set.contains("b") && set.contains("c"));
        set.add([("b".into(), 10)], 150);
        assert!(set.contains("b"), "a second revocation never shortens the first");
    }

    #[test]
    fn a_full_set_forgets_the_sessions_that_expire_soonest() {
        let set = Revocations::new(2);
        assert_eq!(set.add([("a".into(), 100), ("b".into(), 300), ("c".into(), 200)], 0), 1);
        assert!(!set.contains("a") && set.contains("b") && set.contains("c"));
    }
}

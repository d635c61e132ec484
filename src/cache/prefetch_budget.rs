//! What is fetched before anyone asks for it: whether it was of use, and how much of it waits for that.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prometheus::{IntCounter, IntGauge};

/// Counts what was fetched ahead. Clones count together.
#[derive(Clone, Debug)]
pub struct PrefetchTally {
    /// Responses that were asked for after all.
    pub useful: IntCounter,
    /// Responses that went without ever being asked for.
    pub wasted: IntCounter,
    /// Bytes of those that no one has asked for yet.
    pub unused: IntGauge,
}

/// Goes along with one response that is fetched ahead, from the beginning of its fill to its end in the cache.
#[derive(Debug)]
pub struct PrefetchTicket {
    tally: PrefetchTally,
    bytes: AtomicU64,
    used: AtomicBool,
}

impl PrefetchTicket {
    /// For a response of about so many bytes.
    pub fn new(tally: PrefetchTally, estimate: u64) -> Self {
        tally.unused.add(signed(estimate));
        Self { tally, bytes: AtomicU64::new(estimate), used: AtomicBool::new(false) }
    }

    /// Now the length is known.
    pub(super) fn weigh(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        if !self.used.load(Ordering::Acquire) {
            self.tally.unused.add(signed(bytes) - signed(before));
        }
    }

    pub(super) fn is_unused(&self) -> bool {
        !self.used.load(Ordering::Relaxed)
    }

    /// Someone asks for it. Whether this is the first time.
    pub(super) fn take(&self) -> bool {
        // Most looks come after the first: they write nothing.
        if self.used.load(Ordering::Relaxed) || self.used.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.tally.useful.inc();
        self.tally.unused.sub(signed(self.bytes.load(Ordering::Relaxed)));
        true
    }
}

impl Drop for PrefetchTicket {
    fn drop(&mut self) {
        if !*self.used.get_mut() {
            self.tally.wasted.inc();
            self.tally.unused.sub(signed(*self.bytes.get_mut()));
        }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

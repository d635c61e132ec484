//! Responses that are fetched before any request for them: which of them were of use, and how many bytes of them still
//! wait for their first request.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prometheus::{IntCounter, IntGauge};

/// Counts prefetched responses. Clones share their counts.
#[derive(Clone, Debug)]
pub struct PrefetchTally {
    /// Responses that were requested in the end.
    pub useful: IntCounter,
    /// Responses that were removed without a request.
    pub wasted: IntCounter,
    /// Bytes of those that were not requested yet.
    pub unused: IntGauge,
}

/// Accompanies one prefetched response, from the start of its fill to its removal from the cache.
#[derive(Debug)]
pub struct PrefetchTicket {
    tally: PrefetchTally,
    bytes: AtomicU64,
    used: AtomicBool,
}

impl PrefetchTicket {
    /// For a response of about so many bytes.
    pub fn new(tally: PrefetchTally, estimated_bytes: u64) -> Self {
        tally.unused.add(signed(estimated_bytes));
        Self { tally, bytes: AtomicU64::new(estimated_bytes), used: AtomicBool::new(false) }
    }

    /// Replaces the estimate by the response's length.
    pub(super) fn set_bytes(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        if !self.used.load(Ordering::Acquire) {
            self.tally.unused.add(signed(bytes) - signed(before));
        }
    }

    #[inline]
    pub(super) fn is_unused(&self) -> bool {
        !self.used.load(Ordering::Relaxed)
    }

    /// Counts a request for the response. Whether it is the first.
    pub(super) fn redeem(&self) -> bool {
        // Most requests come after the first: they write nothing.
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

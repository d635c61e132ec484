//! Prefetch instructions: have the processor fetch memory that is read soon, without waiting for it.
//!
//! Among a million objects a hit misses the processor's caches three times, each time at an address that the read before
//! gave: the slot, the response, its body. An ordinary read ahead of time does not help, as the next locked operation
//! waits for all reads before it; nothing waits for a prefetch. The stable library has no safe form of it. With it a hit
//! among a million objects takes 6 % less time (`load-tests/results/profile.md`).
#![allow(unsafe_code)]

/// The most that is prefetched of one value. Of longer ones the processor's own prefetcher notices that they are read
/// line by line.
const MAX_PREFETCH_BYTES: usize = 512;
const CACHE_LINE_BYTES: usize = 64;

/// Prefetches the cache lines in which `value` lies.
#[inline(always)]
pub(super) fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        let (start, length) = (std::ptr::from_ref(value).cast::<i8>(), size_of_val(value).min(MAX_PREFETCH_BYTES));
        for offset in (0..length).step_by(CACHE_LINE_BYTES).chain(length.checked_sub(1)) {
            // SAFETY: a prefetch neither reads nor faults, whatever the address; SSE is part of x86-64.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

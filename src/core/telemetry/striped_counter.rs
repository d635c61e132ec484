//! A counter that every request adds to: each thread adds in a place of its own, and whoever reads sums them up.
//!
//! An atomic addition locks a line of memory, and waits for it where another core has it; an addition in a thread's own
//! place does neither.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus::core::Atomic;

/// Places beside those of the machine's cores: for threads that seldom count.
const SPARE: usize = 8;
/// As many places at most.
const MOST: usize = 256;

/// The next thread's number.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The value of a counter, for `prometheus`'s generic ones.
#[derive(Debug)]
pub struct Striped {
    /// One for each thread by its number; the last is for all others.
    places: Box<[Place]>,
}

/// On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Place(AtomicU64);

impl Striped {
    #[inline]
    fn add(&self, more: u64) {
        let number = NUMBER.get().unwrap_or_else(number);
        match self.places.split_last() {
            Some((_, own)) if number < own.len() => {
                if let Some(Place(place)) = own.get(number) {
                    // No other thread writes here.
                    place.store(place.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
                }
            }
            Some((Place(last), _)) => _ = last.fetch_add(more, Ordering::Relaxed),
            None => {}
        }
    }
}

/// Gives this thread its number.
#[cold]
fn number() -> usize {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    NUMBER.set(Some(number));
    number
}

impl Atomic for Striped {
    type T = u64;

    fn new(value: u64) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let places: Box<[Place]> = (0..(cores + SPARE).min(MOST)).map(|_| Place::default()).collect();
        let striped = Self { places };
        striped.set(value);
        striped
    }

    /// Not meant for while others add.
    fn set(&self, value: u64) {
        self.places.iter().for_each(|Place(place)| place.store(0, Ordering::Relaxed));
        if let Some(Place(last)) = self.places.last() {
            last.store(value, Ordering::Relaxed);
        }
    }

    fn get(&self) -> u64 {
        self.places.iter().fold(0, |sum, Place(place)| sum.wrapping_add(place.load(Ordering::Relaxed)))
    }

    #[inline]
    fn inc_by(&self, more: u64) {
        self.add(more);
    }

    fn dec_by(&self, less: u64) {
        self.add(less.wrapping_neg());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_many_threads_add_is_lost() {
        let striped = Striped::new(7);
        // More threads than there are places, so that some share the last.
        let threads = striped.places.len() as u64 * 2;
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..10_000).for_each(|_| striped.inc_by(3)));
            }
        });
        striped.dec_by(7);
        assert_eq!(striped.get(), threads * 30_000);
        striped.set(1);
        assert_eq!(striped.get(), 1);
    }
}

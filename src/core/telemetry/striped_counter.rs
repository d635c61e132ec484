//! A counter that every request adds to: each thread adds to a cell of its own, and a reader sums the cells.
//!
//! An atomic addition locks a cache line, and waits where another core holds it; an addition to a thread's own cell does
//! neither.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus::core::Atomic;

/// Cells in addition to one for each core, for threads that count rarely.
const SPARE_CELLS: usize = 8;
/// The most cells.
const MAX_CELLS: usize = 256;

/// The next thread's number.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The value of a counter, for `prometheus`'s generic ones.
#[derive(Debug)]
pub struct StripedCounter {
    /// One for each thread by its number; the last is shared by all others.
    cells: Box<[CounterCell]>,
}

/// On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct CounterCell(AtomicU64);

impl StripedCounter {
    #[inline]
    fn add(&self, more: u64) {
        let number = NUMBER.get().unwrap_or_else(number);
        match self.cells.split_last() {
            Some((_, own)) if number < own.len() => {
                if let Some(CounterCell(cell)) = own.get(number) {
                    // No other thread writes here.
                    cell.store(cell.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
                }
            }
            Some((CounterCell(last), _)) => _ = last.fetch_add(more, Ordering::Relaxed),
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

impl Atomic for StripedCounter {
    type T = u64;

    fn new(value: u64) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cells: Box<[CounterCell]> =
            (0..(cores + SPARE_CELLS).min(MAX_CELLS)).map(|_| CounterCell::default()).collect();
        let striped = Self { cells };
        striped.set(value);
        striped
    }

    /// Not meant for while others add.
    fn set(&self, value: u64) {
        self.cells.iter().for_each(|CounterCell(cell)| cell.store(0, Ordering::Relaxed));
        if let Some(CounterCell(last)) = self.cells.last() {
            last.store(value, Ordering::Relaxed);
        }
    }

    fn get(&self) -> u64 {
        self.cells.iter().fold(0, |sum, CounterCell(cell)| sum.wrapping_add(cell.load(Ordering::Relaxed)))
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
    fn additions_of_many_threads_are_not_lost() {
        let striped = StripedCounter::new(7);
        // More threads than there are cells, so that some share the last.
        let threads = striped.cells.len() as u64 * 2;
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

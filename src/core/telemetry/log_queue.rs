//! Lines on their way to standard error: a bounded queue that no thread waits for, and the thread that writes it.
//!
//! What reads standard error may stand still (a stopped log shipper, a full disk behind a pipe). Then lines are dropped
//! and counted, and the program goes on.

use std::io::{self, ErrorKind, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The pause before a non-blocking standard error that is full is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Whole lines that wait to be written, within a number of bytes. As many again are in the writing thread's hands.
#[derive(Debug)]
pub(super) struct LineQueue {
    max_bytes: usize,
    state: Mutex<Waiting>,
    /// Notified when there is something to write, and when it has been written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    lines: u64,
    /// Whether a batch is being written.
    writing: bool,
}

/// The queue has no room for a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl LineQueue {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, state: Mutex::default(), changed: Condvar::new() }
    }

    /// The lock is held while a line is copied or the waiting text is taken, never while something is written.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line with its line end.
    pub(super) fn push(&self, line: &[u8]) -> Result<(), Full> {
        let mut waiting = self.lock();
        if waiting.text.len().saturating_add(line.len()) > self.max_bytes {
            return Err(Full);
        }
        waiting.text.extend_from_slice(line);
        waiting.lines += 1;
        drop(waiting);
        self.changed.notify_all();
        Ok(())
    }

    /// Writes what waits, after at most `wait` for something to come. Returns the number of lines that could not be
    /// written.
    pub(super) fn write_batch(&self, out: &mut impl Write, batch: &mut Vec<u8>, wait: Duration) -> u64 {
        let waiting = self.lock();
        let idle = |waiting: &mut Waiting| waiting.text.is_empty();
        let (mut waiting, _) =
            self.changed.wait_timeout_while(waiting, wait, idle).unwrap_or_else(PoisonError::into_inner);
        if waiting.text.is_empty() {
            return 0;
        }
        batch.clear();
        std::mem::swap(&mut waiting.text, batch);
        let lines = std::mem::take(&mut waiting.lines);
        waiting.writing = true;
        drop(waiting);
        let written = write_all(out, batch);
        self.lock().writing = false;
        self.changed.notify_all();
        if written.is_ok() { 0 } else { lines }
    }

    /// Waits until all that was added is written, at most `limit`. Says whether it is.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.text.is_empty();
        let waited = self.changed.wait_timeout_while(self.lock(), limit, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// `write_all` that waits where standard error is non-blocking, as it is when another process made the shared pipe so.
fn write_all(out: &mut impl Write, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match out.write(text) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY_PAUSE),
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const SOON: Duration = Duration::from_secs(10);

    /// Takes a write when it is told to.
    struct Gate {
        open: Receiver<()>,
        taken: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            if self.open.recv().is_err() {
                return Err(ErrorKind::BrokenPipe.into());
            }
            self.taken.send(text.to_vec()).unwrap();
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_no_time() {
        let queue = LineQueue::new(20);
        let (open, gate) = channel();
        let (taken, seen) = channel();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let (mut out, mut batch) = (Gate { open: gate, taken }, Vec::new());
                let mut failed = 0;
                for _ in 0..3 {
                    failed += queue.write_batch(&mut out, &mut batch, SOON);
                }
                failed
            });
            queue.push(b"first line\n").unwrap();
            // The writer stands in its first write; the queue takes its bound and no more.
            while !queue.lock().writing {
                std::thread::yield_now();
            }
            queue.push(b"second line\n").unwrap();
            assert_eq!(queue.push(b"third line\n"), Err(Full));
            assert!(!queue.flush(Duration::from_millis(10)), "nothing was written yet");
            open.send(()).unwrap();
            open.send(()).unwrap();
            assert!(queue.flush(SOON));
            assert_eq!(seen.iter().take(2).collect::<Vec<_>>(), [b"first line\n".to_vec(), b"second line\n".to_vec()]);
            // Nobody reads any more: the lines count as lost.
            drop(open);
            queue.push(b"a\n").unwrap();
            assert!(queue.flush(SOON));
            assert_eq!(writer.join().unwrap(), 1);
        });
    }

    #[test]
    fn a_line_longer_than_the_queue_is_not_taken() {
        assert_eq!(LineQueue::new(4).push(b"12345"), Err(Full));
    }
}

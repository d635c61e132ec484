//! Streams of HTTP/2 that are answered where they came in.

use std::pin::Pin;
use std::task::{Context, Waker};

use hyper::rt::Executor;

/// Polls a stream's future once and makes a task of it only where it has to wait: a hit whose body fits the window
/// costs no task and no wake-up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inline;

impl<F> Executor<F> for Inline
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut stream = Box::pin(stream);
        // A task polls what is left first of all, so that nothing waits on a waker that wakes nobody.
        let here = Pin::as_mut(&mut stream).poll(&mut Context::from_waker(Waker::noop()));
        if here.is_pending() {
            tokio::spawn(stream);
        }
    }
}

//! Runs HTTP/2 streams in the task of their connection where they need not wait.

use std::pin::Pin;
use std::task::{Context, Waker};

use hyper::rt::Executor;

/// Polls a stream's future once, and spawns a task only if it is pending: a cache hit whose body fits the window costs no
/// task and no wake-up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InlineExecutor;

impl<F> Executor<F> for InlineExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut stream = Box::pin(stream);
        // A no-op waker loses no wake-up: a spawned task polls the future again first of all.
        let here = Pin::as_mut(&mut stream).poll(&mut Context::from_waker(Waker::noop()));
        if here.is_pending() {
            tokio::spawn(stream);
        }
    }
}

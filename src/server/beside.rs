//! What is waited for beside a connection: its watch, the end of its role, its rest.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, Stream as _};

use super::Limits;
use super::metrics::Reason;
use super::pulse::Pulse;
use lyceum_core::shutdown::Shutdown;

/// What ends a connection from outside.
pub(super) enum Told {
    Overstayed(Reason),
    Drain,
    /// There may be nothing under way.
    Rest,
}

/// Futures that are polled when one of them was woken, and not with every request: then they cost one look at a flag.
pub(super) struct Beside<'a> {
    pulse: &'a Pulse,
    told: FuturesUnordered<BoxFuture<'a, Told>>,
    bell: Arc<Bell>,
    /// The bell as a waker.
    ring: Waker,
    /// The task that the bell wakes.
    task: Option<Waker>,
}

/// Says that there is something to poll, and wakes who does.
#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Before the task is looked for: who registers one looks at this afterwards.
        self.rung.store(true, Ordering::SeqCst);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<'a> Beside<'a> {
    /// `windows`: whether streams have windows of their own.
    pub(super) fn new(pulse: &'a Pulse, limits: &'a Limits, shutdown: &'a Shutdown, windows: bool) -> Self {
        let overstayed = async move { Told::Overstayed(pulse.overstayed(limits, windows).await) };
        let drain = async move {
            shutdown.draining().await;
            Told::Drain
        };
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: Mutex::default() });
        let told = [overstayed.boxed(), drain.boxed()].into_iter().collect();
        let mut beside = Self { pulse, told, ring: Waker::from(Arc::clone(&bell)), bell, task: None };
        beside.await_rest();
        beside
    }

    /// Tells of the connection's next rest.
    pub(super) fn await_rest(&mut self) {
        let pulse = self.pulse;
        let rest = async move {
            pulse.rested().await;
            Told::Rest
        };
        self.told.push(rest.boxed());
        self.bell.rung.store(true, Ordering::SeqCst);
    }

    /// What comes next. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Told {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Told> {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
            *self.bell.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        }
        if !self.bell.rung.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        // A swap, and no store: it sees what whoever rang last had done before.
        self.bell.rung.swap(false, Ordering::SeqCst);
        match Pin::new(&mut self.told).poll_next(&mut Context::from_waker(&self.ring)) {
            Poll::Ready(Some(told)) => {
                // There may be more.
                self.bell.rung.store(true, Ordering::SeqCst);
                Poll::Ready(told)
            }
            // It is never empty: what has told is put back, or the last that is heard.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_tells_whichever_task_asks_last() {
        let pulse = Pulse::default();
        let (limits, shutdown) = (Limits::default(), Shutdown::new());
        let mut beside = Beside::new(&pulse, &limits, &shutdown, false);
        // Asked once, under a waker that wakes nobody.
        assert!(beside.poll_next(&mut Context::from_waker(Waker::noop())).is_pending());
        let (told, ()) = tokio::join!(beside.next(), async { shutdown.begin() });
        assert!(matches!(told, Told::Drain));
        beside.await_rest();
        assert!(matches!(beside.next().await, Told::Rest | Told::Overstayed(_)));
    }
}

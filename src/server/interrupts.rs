//! Events that interrupt a connection: an exceeded limit, the drain of its role, idleness.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, Stream as _};

use lyceum_core::shutdown::Shutdown;

use crate::activity::Activity;
use crate::limits::Limits;
use crate::metrics::EndReason;
use crate::watchdog;

/// An event from outside a connection's protocol.
pub(crate) enum Interrupt {
    /// The connection exceeds a limit.
    Limit(EndReason),
    /// The role stops.
    Drain,
    /// The connection may be idle.
    Idle,
}

/// The futures of a connection's interrupts. They are polled only when one of them was woken; otherwise a request pays for
/// reading one flag.
pub(crate) struct Interrupts<'a> {
    activity: &'a Activity,
    events: FuturesUnordered<BoxFuture<'a, Interrupt>>,
    flag: Arc<ReadyFlag>,
    /// Sets `flag`.
    flag_waker: Waker,
    /// The task that `flag` wakes.
    task: Option<Waker>,
}

/// Says that there is something to poll, and wakes the task that polls.
#[derive(Debug)]
struct ReadyFlag {
    is_set: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for ReadyFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Before the task is read: `poll_next` reads the flag after it has registered its task.
        self.is_set.store(true, Ordering::SeqCst);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<'a> Interrupts<'a> {
    /// `multiplexed`: whether the connection has streams (HTTP/2).
    pub(crate) fn new(activity: &'a Activity, limits: &'a Limits, shutdown: &'a Shutdown, multiplexed: bool) -> Self {
        let limit = async move { Interrupt::Limit(watchdog::exceeded(activity, limits, multiplexed).await) };
        let drain = async move {
            shutdown.draining().await;
            Interrupt::Drain
        };
        let flag = Arc::new(ReadyFlag { is_set: AtomicBool::new(true), task: Mutex::default() });
        let events = [limit.boxed(), drain.boxed()].into_iter().collect();
        let mut interrupts = Self { activity, events, flag_waker: Waker::from(Arc::clone(&flag)), flag, task: None };
        interrupts.rearm_idle();
        interrupts
    }

    /// Waits for the connection's next idleness, which is announced once.
    pub(crate) fn rearm_idle(&mut self) {
        let activity = self.activity;
        let idle = async move {
            activity.idle().await;
            Interrupt::Idle
        };
        self.events.push(idle.boxed());
        self.flag.is_set.store(true, Ordering::SeqCst);
    }

    /// The next event. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Interrupt {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
            *self.flag.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        }
        if !self.flag.is_set.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        // A swap and not a store: it synchronizes with the waker that set the flag last.
        self.flag.is_set.swap(false, Ordering::SeqCst);
        match Pin::new(&mut self.events).poll_next(&mut Context::from_waker(&self.flag_waker)) {
            Poll::Ready(Some(event)) => {
                // There may be more.
                self.flag.is_set.store(true, Ordering::SeqCst);
                Poll::Ready(event)
            }
            // Never empty: a future that has ended is armed again, or was the connection's last event.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_task_that_polls_last_is_woken() {
        let activity = Activity::default();
        let (limits, shutdown) = (Limits::default(), Shutdown::new());
        let mut interrupts = Interrupts::new(&activity, &limits, &shutdown, false);
        // Polled once with a waker that wakes nothing.
        assert!(interrupts.poll_next(&mut Context::from_waker(Waker::noop())).is_pending());
        let (event, ()) = tokio::join!(interrupts.next(), async { shutdown.begin() });
        assert!(matches!(event, Interrupt::Drain));
        interrupts.rearm_idle();
        assert!(matches!(interrupts.next().await, Interrupt::Idle | Interrupt::Limit(_)));
    }
}

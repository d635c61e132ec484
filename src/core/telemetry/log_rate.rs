//! How many log lines of one kind a second: a fault that every request meets must not bury the other lines, nor cost
//! what serving needs.
//!
//! A kind is a place in the code that logs. What it logs beyond its rate is left out and counted, and its number is
//! logged from time to time. Lines of the levels `debug` and `trace` are always logged: who turns them on wants them all.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::time::{Instant, monotonic};

/// The first lines of a kind that are logged however fast they come, in seconds' worth of its rate.
const BURST_SECONDS: f64 = 10.0;

/// The rate of each kind of line.
#[derive(Debug)]
pub(super) struct RateLimit {
    /// Lines a second.
    rate: f64,
    left_out: prometheus::IntCounter,
    kinds: Mutex<HashMap<Identifier, Kind>>,
}

#[derive(Debug)]
struct Kind {
    /// Lines that may be logged at once.
    allowance: f64,
    since: Instant,
    left_out: u64,
    /// The message of the last line that was left out.
    message: String,
}

/// What was left out of one kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) message: String,
    pub(super) lines: u64,
}

impl RateLimit {
    /// `rate` in lines a second; `left_out` counts what exceeds it.
    pub(super) fn new(rate: u32, left_out: prometheus::IntCounter) -> Self {
        Self { rate: rate.into(), left_out, kinds: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Kind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a line is logged. There are as many kinds as places in the code that log.
    fn admits(&self, event: &Event<'_>, now: Instant) -> bool {
        let burst = self.rate * BURST_SECONDS;
        let mut kinds = self.lock();
        let kind = kinds.entry(event.metadata().callsite()).or_insert_with(|| Kind {
            allowance: burst,
            since: now,
            left_out: 0,
            message: String::new(),
        });
        let earned = now.saturating_duration_since(kind.since).as_secs_f64() * self.rate;
        kind.allowance = (kind.allowance + earned).min(burst);
        kind.since = now;
        if kind.allowance >= 1.0 {
            kind.allowance -= 1.0;
            return true;
        }
        if kind.left_out == 0 {
            kind.message.clear();
            event.record(&mut Message(&mut kind.message));
        }
        kind.left_out += 1;
        drop(kinds);
        self.left_out.inc();
        false
    }

    /// What was left out since the last call.
    pub(super) fn take_left_out(&self) -> Vec<LeftOut> {
        let mut kinds = self.lock();
        let behind = kinds.values_mut().filter(|kind| kind.left_out > 0);
        behind
            .map(|kind| LeftOut { message: kind.message.clone(), lines: std::mem::take(&mut kind.left_out) })
            .collect()
    }
}

impl<S: Subscriber> Layer<S> for RateLimit {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        *event.metadata().level() > Level::INFO || self.admits(event, monotonic())
    }
}

/// Takes the message out of an event.
struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            *self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tracing_subscriber::layer::SubscriberExt as _;

    /// Counts what comes through.
    #[derive(Clone, Default)]
    struct Logged(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Logged {
        fn on_event(&self, _event: &Event<'_>, _context: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A limit that the test can ask, behind the layer.
    struct Shared(Arc<RateLimit>);

    impl<S: Subscriber> Layer<S> for Shared {
        fn event_enabled(&self, event: &Event<'_>, context: Context<'_, S>) -> bool {
            self.0.event_enabled(event, context)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_has_a_burst_then_its_rate_and_leaves_the_others_alone() {
        let counter = prometheus::IntCounter::new("left_out_total", "Left out.").unwrap();
        let limit = Arc::new(RateLimit::new(2, counter.clone()));
        let logged = Logged::default();
        let lines = || logged.0.load(Ordering::SeqCst);
        let subscriber = tracing_subscriber::registry().with(logged.clone()).with(Shared(Arc::clone(&limit)));
        let _in_force = tracing::subscriber::set_default(subscriber);
        let fault = |n: usize| tracing::warn!(n, "the same fault");
        (0..50).for_each(fault);
        assert_eq!(lines(), 20, "ten seconds' worth at once");
        tracing::warn!("another fault");
        (0..40).for_each(|_| tracing::debug!("asked for"));
        assert_eq!(lines(), 61, "another kind, and what is below info");
        tokio::time::advance(Duration::from_secs(3)).await;
        (0..50).for_each(fault);
        assert_eq!(lines(), 67, "two for each second");
        assert_eq!(limit.take_left_out(), [LeftOut { message: "the same fault".into(), lines: 74 }]);
        assert_eq!((limit.take_left_out(), counter.get()), (vec![], 74));
    }
}

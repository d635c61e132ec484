//! The one place that reads the machine's clocks. Everything else is handed a [`Clock`] or an instant, so that
//! tests can stop and advance time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use tokio::time::Instant;

/// The wall clock: milliseconds since the Unix epoch, from the system or set by a test.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    manual: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self { manual: None }
    }

    /// A clock that stands at `unix_millis` until it is advanced.
    pub fn manual(unix_millis: i64) -> Self {
        Self { manual: Some(Arc::new(AtomicI64::new(unix_millis))) }
    }

    /// Advances a manual clock; does nothing to the system's clock.
    pub fn advance(&self, by: Duration) {
        if let Some(clock) = &self.manual {
            clock.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// Milliseconds since the Unix epoch.
    #[inline]
    pub fn unix_millis(&self) -> i64 {
        match &self.manual {
            Some(clock) => clock.load(Ordering::SeqCst),
            None => system_millis(),
        }
    }

    /// The same as of the kernel's last tick, up to some milliseconds ago, at an eighth of the cost: for use on every
    /// request.
    #[inline]
    pub fn ticked_unix_millis(&self) -> i64 {
        match &self.manual {
            Some(_) => self.unix_millis(),
            None => ticked_system_millis(),
        }
    }

    /// Whole seconds since the Unix epoch, as JWT's NumericDate has them (RFC 7519, section 2).
    #[inline]
    pub fn unix_seconds(&self) -> i64 {
        self.unix_millis().div_euclid(1000)
    }

    /// The same as a `SystemTime`, for dates in HTTP fields.
    pub fn system_time(&self) -> SystemTime {
        let millis = self.unix_millis();
        UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

#[allow(clippy::disallowed_methods)]
fn system_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn ticked_system_millis() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
}

/// The monotonic clock; stands still under `tokio::time::pause`.
#[allow(clippy::disallowed_methods)]
#[inline]
pub fn monotonic() -> Instant {
    Instant::now()
}

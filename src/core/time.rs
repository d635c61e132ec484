//! The one place that reads the machine's clocks. Everything else is handed a [`Clock`] or an instant, so that
//! tests can stop and advance time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use tokio::time::Instant;

/// How far a time may lie in the future and still count as now: clocks are slewed, and a second is rounded.
const FUTURE_TOLERANCE_MS: i64 = 2_000;

/// The machine's time, or a test's, on two scales of milliseconds since the Unix epoch.
///
/// The **wall clock** ([`unix_millis`](Self::unix_millis)) is what others call now; it is put right in jumps. The **steady
/// clock** ([`steady_millis`](Self::steady_millis)) began as the wall clock when the process did and never jumps: ages and
/// lifetimes are measured by it.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    manual: Option<Arc<ManualTime>>,
}

#[derive(Debug)]
struct ManualTime {
    steady_ms: AtomicI64,
    /// How far the wall clock is ahead of the steady one.
    wall_ahead_ms: AtomicI64,
}

/// Where the process's steady clock began.
#[derive(Debug)]
struct Anchor {
    at: Instant,
    wall_ms: i64,
    /// What `CLOCK_BOOTTIME` was ahead of `CLOCK_MONOTONIC`: the time that the machine had been suspended.
    suspended_before_ms: i64,
    /// The time for which the machine was suspended since.
    suspended_ms: AtomicI64,
}

impl Anchor {
    fn get() -> &'static Self {
        static ANCHOR: OnceLock<Anchor> = OnceLock::new();
        ANCHOR.get_or_init(|| Self {
            at: monotonic(),
            wall_ms: system_millis(),
            suspended_before_ms: suspended_millis(),
            suspended_ms: AtomicI64::new(0),
        })
    }

    #[inline]
    fn steady_millis_at(&self, at: Instant) -> i64 {
        let since = at.saturating_duration_since(self.at);
        let since_ms = i64::try_from(since.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000);
        let since_ms = since_ms.saturating_add(i64::from(since.subsec_millis()));
        self.wall_ms.saturating_add(since_ms).saturating_add(self.suspended_ms.load(Ordering::Relaxed))
    }
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self { manual: None }
    }

    /// A clock that stands at `unix_millis` until it is advanced.
    pub fn manual(unix_millis: i64) -> Self {
        let time = ManualTime { steady_ms: AtomicI64::new(unix_millis), wall_ahead_ms: AtomicI64::new(0) };
        Self { manual: Some(Arc::new(time)) }
    }

    /// Advances a manual clock; does nothing to the system's clock.
    pub fn advance(&self, by: Duration) {
        if let Some(time) = &self.manual {
            time.steady_ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// Puts the wall clock of a manual clock forward or back without any time having passed.
    pub fn put_right(&self, by_ms: i64) {
        if let Some(time) = &self.manual {
            time.wall_ahead_ms.fetch_add(by_ms, Ordering::SeqCst);
        }
    }

    /// Milliseconds since the Unix epoch.
    #[inline]
    pub fn unix_millis(&self) -> i64 {
        match &self.manual {
            Some(time) => {
                time.steady_ms.load(Ordering::SeqCst).saturating_add(time.wall_ahead_ms.load(Ordering::SeqCst))
            }
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

    /// The steady clock.
    #[inline]
    pub fn steady_millis(&self) -> i64 {
        self.steady_millis_at(monotonic())
    }

    /// The steady clock at an instant that was read before, which costs no reading.
    #[inline]
    pub fn steady_millis_at(&self, at: Instant) -> i64 {
        match &self.manual {
            Some(time) => time.steady_ms.load(Ordering::SeqCst),
            None => Anchor::get().steady_millis_at(at),
        }
    }

    /// What the wall clock of now calls a time of the steady clock: for what another run of the program reads.
    pub fn unix_of_steady(&self, steady_ms: i64) -> i64 {
        self.unix_millis().saturating_sub(self.steady_millis().saturating_sub(steady_ms))
    }

    /// The steady clock at a time that an earlier run called `unix_ms`; none for one that lies in the future: the wall
    /// clock was put back since, by an unknown time.
    pub fn steady_of_unix(&self, unix_ms: i64) -> Option<i64> {
        let ago = self.unix_millis().saturating_sub(unix_ms);
        (ago >= -FUTURE_TOLERANCE_MS).then(|| self.steady_millis().saturating_sub(ago))
    }

    /// Adds the time for which the machine was suspended to the steady clock, as the kernel's monotonic clock stands still
    /// meanwhile. To be called every few seconds.
    pub fn notice_suspension(&self) {
        let anchor = Anchor::get();
        let suspended = suspended_millis().saturating_sub(anchor.suspended_before_ms);
        anchor.suspended_ms.fetch_max(suspended, Ordering::Relaxed);
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

/// How long the machine has been suspended since it started.
fn suspended_millis() -> i64 {
    let millis = |id| {
        let now = rustix::time::clock_gettime(id);
        now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
    };
    // The two are read one after the other: less than a second between them is no suspension.
    let apart = millis(rustix::time::ClockId::Boottime).saturating_sub(millis(rustix::time::ClockId::Monotonic));
    if apart < 1000 { 0 } else { apart }
}

/// The monotonic clock; stands still under `tokio::time::pause`.
#[allow(clippy::disallowed_methods)]
#[inline]
pub fn monotonic() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_put_right_moves_no_age() {
        let clock = Clock::manual(10_000_000);
        let stored = clock.steady_millis();
        clock.put_right(-3_600_000);
        clock.advance(Duration::from_secs(6));
        assert_eq!((clock.unix_millis(), clock.steady_millis() - stored), (6_406_000, 6_000));
        // What was written a second ago by the wall clock of now comes back as such; what is from the future does not.
        let written = clock.unix_of_steady(clock.steady_millis() - 1_000);
        assert_eq!(clock.steady_of_unix(written), Some(clock.steady_millis() - 1_000));
        assert_eq!(clock.steady_of_unix(clock.unix_millis() + 1_000), Some(clock.steady_millis() + 1_000));
        assert_eq!(clock.steady_of_unix(clock.unix_millis() + 3_600_000), None);
    }

    #[test]
    fn the_system_s_steady_clock_goes_with_its_instants() {
        let clock = Clock::system();
        let (now, at) = (clock.steady_millis(), monotonic());
        assert!((clock.unix_millis() - now).abs() < 60_000);
        let later = clock.steady_millis_at(at + Duration::from_millis(1_500)) - clock.steady_millis_at(at);
        assert!((1_499..=1_501).contains(&later), "{later}");
        clock.notice_suspension();
        assert!(clock.steady_millis() >= now);
    }
}

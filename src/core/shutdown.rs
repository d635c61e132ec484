//! How a role ends: told once, it stops accepting, finishes what is under way, and is gone after `drain_timeout`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A handle on the end of a role. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    told: CancellationToken,
    work: TaskTracker,
}

impl Shutdown {
    /// One that has not been told yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the drain. Further calls change nothing.
    pub fn begin(&self) {
        self.told.cancel();
        self.work.close();
    }

    /// The end of a part of the role: told when the role is, or alone by [`Shutdown::retire`]; its work is the role's.
    pub fn part(&self) -> Self {
        Self { told: self.told.child_token(), work: self.work.clone() }
    }

    /// Ends a [`part`](Shutdown::part) alone; the role goes on.
    pub fn retire(&self) {
        self.told.cancel();
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.told.is_cancelled()
    }

    /// Returns once the drain has begun.
    pub async fn draining(&self) {
        self.told.cancelled().await;
    }

    /// Work that the drain waits for, until the guard is dropped.
    pub fn guard(&self) -> Guard {
        Guard { _token: self.work.token() }
    }

    /// Returns once the drain has begun and all guards are gone.
    pub async fn finished(&self) {
        self.told.cancelled().await;
        self.work.wait().await;
    }

    /// Waits until the drain has begun and all guards are gone, or `limit` has passed since it began.
    /// Says whether all work ended in time.
    pub async fn drained(&self, limit: Duration) -> bool {
        self.told.cancelled().await;
        tokio::time::timeout(limit, self.work.wait()).await.is_ok()
    }
}

/// Holds up the end of the drain while it lives.
#[derive(Debug)]
pub struct Guard {
    _token: TaskTrackerToken,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_drain_waits_for_guards_but_not_for_ever() {
        let shutdown = Shutdown::new();
        let guard = shutdown.guard();
        shutdown.begin();
        assert!(shutdown.is_draining());
        assert!(!shutdown.drained(Duration::from_secs(5)).await);
        drop(guard);
        assert!(shutdown.drained(Duration::from_secs(5)).await);
    }
    #[tokio::test]
    async fn a_part_retires_alone_and_ends_with_the_role() {
        let role = Shutdown::new();
        let (first, second) = (role.part(), role.part());
        first.retire();
        assert!(first.is_draining() && !second.is_draining() && !role.is_draining());
        role.begin();
        second.draining().await;
    }
}

//! The shutdown of a role: once begun, it stops accepting, finishes work in flight, and ends after `drain_timeout`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A handle on the shutdown of a role. Cheap to clone; clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    begun: CancellationToken,
    work: TaskTracker,
}

impl Shutdown {
    /// A shutdown that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the drain. Further calls change nothing.
    pub fn begin(&self) {
        self.begun.cancel();
        self.work.close();
    }

    /// The shutdown of a part of the role: begins with the role's, or alone by [`Shutdown::retire`]; its work counts as the
    /// role's.
    pub fn part(&self) -> Self {
        Self { begun: self.begun.child_token(), work: self.work.clone() }
    }

    /// Ends a [`part`](Shutdown::part) alone; the role goes on.
    pub fn retire(&self) {
        self.begun.cancel();
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Returns once the drain has begun.
    pub async fn draining(&self) {
        self.begun.cancelled().await;
    }

    /// Work that the drain waits for, until the guard is dropped.
    pub fn guard(&self) -> DrainGuard {
        DrainGuard { _token: self.work.token() }
    }

    /// Returns once the drain has begun and all guards are gone.
    pub async fn finished(&self) {
        self.begun.cancelled().await;
        self.work.wait().await;
    }

    /// Waits until the drain has begun and all guards are gone, or `limit` has passed since it began.
    /// Says whether all work ended in time.
    pub async fn drained(&self, limit: Duration) -> bool {
        self.begun.cancelled().await;
        tokio::time::timeout(limit, self.work.wait()).await.is_ok()
    }
}

/// Delays the end of the drain until dropped.
#[derive(Debug)]
pub struct DrainGuard {
    _token: TaskTrackerToken,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_drain_waits_for_guards_up_to_its_limit() {
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

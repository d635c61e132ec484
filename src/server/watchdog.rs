//! Finds connections that exceed a limit: a silent client, a header that does not end, a reader that stops or trickles,
//! an HTTP/2 window that stays shut, and a response whose authorization was revoked.
//!
//! It wakes a few times within the shortest of its limits and compares the counters of [`Activity`].

use std::time::Duration;

use crate::activity::{AGE_BUCKETS, Activity};
use crate::limits::Limits;
use crate::metrics::EndReason;

/// How long a revoked response may take to end by itself: while its client takes data, its body notices.
const REVOCATION_GRACE: Duration = Duration::from_secs(1);

/// The least time between two looks at the counters.
const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// Returns once the connection exceeds one of `limits`, and says which. `multiplexed`: whether it has streams, each with a
/// window that its client may keep shut (HTTP/2 and 3); otherwise all that is read between two requests is the next one's
/// header.
pub(crate) async fn exceeded(activity: &Activity, limits: &Limits, multiplexed: bool) -> EndReason {
    tokio::select! {
        reason = watch_counters(activity, limits, multiplexed) => reason,
        () = watch_revocations(activity) => EndReason::Revoked,
    }
}

/// Returns once a response in flight is revoked and has not ended by itself. Costs nothing before the first response with
/// a revocation check.
async fn watch_revocations(activity: &Activity) {
    let mut changes = activity.revocations().await;
    // A revocation may have come before the receiver was made.
    changes.mark_changed();
    while changes.changed().await.is_ok() {
        tokio::time::sleep(REVOCATION_GRACE).await;
        if activity.has_revoked() {
            return;
        }
    }
    // The sender is gone: nothing is revoked any more.
    std::future::pending().await
}

async fn watch_counters(activity: &Activity, limits: &Limits, multiplexed: bool) -> EndReason {
    let shortest =
        [limits.idle, limits.header, limits.stall, limits.throughput_time, limits.window].map(|span| span.get());
    let interval = (shortest.into_iter().min().unwrap_or_default() / 4).max(MIN_INTERVAL);
    let mut progress = Progress { moved: activity.snapshot().moved, ..Progress::default() };
    loop {
        tokio::time::sleep(interval).await;
        if let Some(reason) = progress.check(activity, interval, limits, multiplexed) {
            return reason;
        }
        // With streams, bytes between requests may belong to none: `http2::hibernation` counts frames and knows more.
        let is_idle = if multiplexed { !activity.has_requests() } else { activity.is_idle() };
        if is_idle {
            activity.notify_idle();
        }
    }
}

/// Counters at the last check, and for how long each condition has held.
#[derive(Default)]
struct Progress {
    moved: u64,
    finished: u64,
    /// `written` when the throughput's measurement began.
    written_at_start: u64,
    /// `queued_body` and `written` when the connection was last without work.
    queued_at_idle: u64,
    written_at_idle: u64,
    idle: Duration,
    header: Duration,
    stalled: Duration,
    /// How long response data has been untaken.
    sending: Duration,
    /// Since the age bucket last changed.
    bucket: Duration,
}

impl Progress {
    fn check(
        &mut self,
        activity: &Activity,
        elapsed: Duration,
        limits: &Limits,
        multiplexed: bool,
    ) -> Option<EndReason> {
        let now = activity.snapshot();
        // Data of a finished response may still be in a buffer. Other bytes (headers, frames) only make this end sooner.
        let is_draining =
            now.queued_body.wrapping_sub(self.queued_at_idle) > now.written.wrapping_sub(self.written_at_idle);
        let is_busy = now.has_requests || now.is_write_blocked || is_draining;
        if !is_busy {
            (self.queued_at_idle, self.written_at_idle) = (now.queued_body, now.written);
        }
        // Bytes that are no request, such as pings, do not keep a connection.
        self.idle = if is_busy || now.finished != self.finished { Duration::ZERO } else { self.idle + elapsed };
        let in_header = !multiplexed && !is_busy && now.has_partial_header;
        self.header = if in_header { self.header + elapsed } else { Duration::ZERO };
        if self.header >= limits.header.get() {
            return Some(EndReason::Header);
        }
        self.stalled = if !is_busy || now.moved != self.moved { Duration::ZERO } else { self.stalled + elapsed };
        (self.moved, self.finished) = (now.moved, now.finished);
        if self.idle >= limits.idle.get() {
            return Some(EndReason::Idle);
        }
        if self.stalled >= limits.stall.get() {
            return Some(EndReason::Stall);
        }
        if now.is_write_blocked || is_draining || now.has_untaken {
            self.sending += elapsed;
        } else {
            (self.sending, self.written_at_start) = (Duration::ZERO, now.written);
        }
        if self.sending >= limits.throughput_time.get() {
            let least = limits.throughput.0.saturating_mul(self.sending.as_secs().max(1));
            if now.written.wrapping_sub(self.written_at_start) < least {
                return Some(EndReason::Throughput);
            }
            (self.sending, self.written_at_start) = (Duration::ZERO, now.written);
        }
        self.bucket += elapsed;
        if multiplexed && self.bucket >= limits.window.get() / AGE_BUCKETS as u32 {
            self.bucket = Duration::ZERO;
            if activity.advance_age() {
                return Some(EndReason::Window);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {

    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::revocable::{Revocable, RevocationCheck};
    use lyceum_core::time::monotonic;
    use lyceum_core::units::{ByteSize, Span};

    fn limits() -> Limits {
        Limits {
            idle: Span::secs(4),
            stall: Span::secs(40),
            throughput: ByteSize(100),
            throughput_time: Span::secs(8),
            window: Span::secs(16),
            ..Limits::default()
        }
    }

    async fn ends(activity: &Arc<Activity>, multiplexed: bool) -> (EndReason, u64) {
        let start = monotonic();
        let reason = exceeded(activity, &limits(), multiplexed).await;
        (reason, start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_sooner_than_a_waiting_request() {
        let activity = Arc::new(Activity::default());
        assert!(matches!(ends(&activity, false).await, (EndReason::Idle, 4..=5)));
        let request = activity.begin_request();
        assert!(matches!(ends(&activity, true).await, (EndReason::Stall, 40..=41)));
        drop(request);
    }

    /// Calls `beat` every second while the connection is watched.
    async fn meanwhile(activity: &Arc<Activity>, multiplexed: bool, mut beat: impl FnMut()) -> (EndReason, u64) {
        let beats = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                beat();
            }
        };
        tokio::select! {
            end = ends(activity, multiplexed) => end,
            () = beats => unreachable!(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_are_no_request_do_not_keep_a_connection() {
        let activity = Arc::new(Activity::default());
        let end = meanwhile(&activity, true, || activity.record_read(17)).await;
        assert!(matches!(end, (EndReason::Idle, 4..=5)), "{end:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_trickles_in_ends_the_connection() {
        let activity = Arc::new(Activity::default());
        let limits = Limits { header: Span::secs(2), ..limits() };
        activity.record_read(40);
        drop(activity.begin_request());
        let trickle = async {
            loop {
                tokio::time::sleep(Duration::from_millis(700)).await;
                activity.record_read(1);
            }
        };
        let start = monotonic();
        let reason = tokio::select! {
            reason = exceeded(&activity, &limits, false) => reason,
            () = trickle => unreachable!(),
        };
        let took = start.elapsed();
        assert!(matches!(reason, EndReason::Header) && (2..=4).contains(&took.as_secs()), "{reason:?} after {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_trickles_ends_and_one_that_keeps_pace_does_not() {
        for (pace, reason) in [(99, EndReason::Throughput), (200, EndReason::Idle)] {
            let activity = Arc::new(Activity::default());
            let mut request = Some(activity.begin_request());
            request.as_mut().unwrap().record_queued(1000);
            let mut left = 60;
            let end = meanwhile(&activity, false, || {
                activity.record_written(pace);
                left -= 1;
                if left == 0 {
                    request = None;
                }
            })
            .await;
            assert_eq!(end.0, reason, "{pace} bytes a second: {end:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_that_stays_shut_ends_the_connection_though_others_move() {
        let activity = Arc::new(Activity::default());
        let (mut shut, mut lively) = (activity.begin_request(), activity.begin_request());
        shut.record_queued(1);
        let end = meanwhile(&activity, true, || {
            lively.record_taken();
            activity.record_written(100_000);
            lively.record_queued(100_000);
        })
        .await;
        assert!(matches!(end, (EndReason::Window, 14..=18)), "{end:?}");
    }

    struct Permit(tokio::sync::watch::Sender<u64>, Arc<AtomicBool>);

    impl Revocable for Permit {
        fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
            self.0.subscribe()
        }

        fn is_valid(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_revoked_response_that_does_not_end_by_itself_is_given_a_second() {
        let activity = Arc::new(Activity::default());
        let (changed, is_valid) = (tokio::sync::watch::channel(0).0, Arc::new(AtomicBool::new(true)));
        let check = || RevocationCheck::new(Permit(changed.clone(), Arc::clone(&is_valid)));
        let _still = activity.begin_request();
        let mut moves = Some(activity.begin_request());
        let mut at = 0;
        let (mut revoke, mut late) = (Some((changed.clone(), Arc::clone(&is_valid))), None);
        let end = meanwhile(&activity, true, || {
            at += 1;
            match at {
                2 => moves.iter_mut().for_each(|request| request.set_revocation_check(check())),
                4 => {
                    if let Some((changed, is_valid)) = revoke.take() {
                        is_valid.store(false, Ordering::Relaxed);
                        changed.send_modify(|n| *n += 1);
                    }
                    // It noticed by itself.
                    moves = None;
                }
                8 => {
                    let mut request = activity.begin_request();
                    request.set_revocation_check(check());
                    late = Some(request);
                    changed.send_modify(|n| *n += 1);
                }
                _ => {}
            }
        })
        .await;
        assert!(matches!(end, (EndReason::Revoked, 9..=10)), "{end:?}");
    }
}

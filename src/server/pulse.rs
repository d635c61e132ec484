//! Watches a connection for life: bytes that move, requests under way, and responses that their client does not take.
//!
//! A connection that never speaks, a header that does not end, a reader that stops or trickles, and an HTTP/2 window
//! that stays shut are noticed here. The watch wakes a few times in the shortest of its limits and reads counters; a
//! request pays for it with a few plain additions, where a timer of its own would cost as much as its token.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::lines::Lines;
use super::metrics::Reason;
use super::{Limits, Pass};

/// In how many steps a response that nobody takes grows old.
const AGES: usize = 8;

/// How long a response whose leave has ended may take to notice by itself: as long as its client takes it, it does.
const NOTICE: Duration = Duration::from_secs(1);

/// A number that a connection's parts count with. Most connections are one task, whose parts count one after the other:
/// there it is added to without the bus lock that an atomic addition takes, of which each request would pay for eight.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// Adds, and wraps. `tasks`: whether several tasks may count at the same time.
    fn add(&self, more: u64, tasks: bool) {
        if tasks {
            self.0.fetch_add(more, Ordering::Relaxed);
        } else {
            self.set(self.get().wrapping_add(more));
        }
    }

    fn subtract(&self, less: u64, tasks: bool) {
        self.add(less.wrapping_neg(), tasks);
    }
}

/// What a connection did, shared between its socket, its requests and its watch.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Whether requests are tasks of their own.
    tasks: bool,
    read: Count,
    /// What `read` was when a request last began or ended: bytes beyond are of the next one's header.
    settled: Count,
    written: Count,
    requests: Count,
    ended: Count,
    /// Bytes of bodies handed over.
    handed: Count,
    /// Whether the socket took less than it was given: what a finished response left behind is still on its way.
    blocked: AtomicBool,
    /// Whether there may be something of a finished response that its connection has not handed to the socket. A
    /// connection without streams flushes its socket when it has handed over all it has, and only then; so while this is
    /// not set, what it writes next begins a response.
    unflushed: AtomicBool,
    /// Whether there are `lines`.
    lined: AtomicBool,
    /// The head of the response that is written next.
    lines: Mutex<Option<Lines>>,
    /// The age that responses handed over now are counted under.
    age: Count,
    /// Responses whose last piece has not been taken, by when it was handed over.
    owed: [Count; AGES],
    /// What responses under way were given for, each with a number of its own.
    passes: Mutex<Passes>,
    /// Told when the first of them comes.
    passed: Notify,
    /// Told when a look finds nothing under way.
    rests: Notify,
}

#[derive(Debug, Default)]
struct Passes {
    next: u64,
    held: Vec<(u64, Pass)>,
}

/// A request under way; the connection is not idle while it lives.
#[derive(Debug)]
pub(crate) struct Busy {
    pulse: Arc<Pulse>,
    /// The age of what was handed over last, until that is taken.
    owed: Option<u64>,
    pass: Option<u64>,
}

impl Busy {
    /// The response is given for as long as `pass` holds.
    pub(crate) fn under(&mut self, pass: Pass) {
        let mut passes = self.pulse.passes();
        let first = passes.next == 0;
        passes.next += 1;
        let number = passes.next;
        passes.held.push((number, pass));
        drop(passes);
        self.pass = Some(number);
        if first {
            self.pulse.passed.notify_one();
        }
    }

    /// A piece of the response of so many bytes was handed over.
    pub(crate) fn handed(&mut self, bytes: usize) {
        let tasks = self.pulse.tasks;
        self.pulse.handed.add(bytes as u64, tasks);
        let age = self.pulse.age.get();
        self.pulse.owed(age).add(1, tasks);
        self.owed = Some(age);
    }

    /// Has the socket write this head for this response, which is about to be written to a connection without
    /// streams and has status 200: takes it. Leaves it where something of an earlier one may still come before it.
    pub(crate) fn line_up(&self, head: &mut Vec<u8>) {
        if !self.pulse.unflushed.load(Ordering::Relaxed) {
            let lines = Lines::new(std::mem::take(head));
            *self.pulse.lines.lock().unwrap_or_else(PoisonError::into_inner) = Some(lines);
            self.pulse.lined.store(true, Ordering::Relaxed);
        }
    }

    /// The piece handed over last has gone far enough for the next.
    pub(crate) fn taken(&mut self) {
        if let Some(age) = self.owed.take() {
            self.pulse.owed(age).subtract(1, self.pulse.tasks);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.taken();
        self.pulse.settle();
        self.pulse.unflushed.store(true, Ordering::Relaxed);
        if let Some(number) = self.pass {
            self.pulse.passes().held.retain(|(held, _)| *held != number);
        }
        self.pulse.requests.subtract(1, self.pulse.tasks);
        self.pulse.ended.add(1, self.pulse.tasks);
    }
}

/// What the watch saw last.
#[derive(Default)]
struct Seen {
    moved: u64,
    /// Where the throughput is counted from.
    written: u64,
    /// When nothing was left to do.
    handed_before: u64,
    written_before: u64,
    ended: u64,
    idle: Duration,
    heading: Duration,
    still: Duration,
    slow: Duration,
    aged: Duration,
}

impl Pulse {
    /// Of a connection whose requests are tasks of their own. One by default is all in one task.
    pub(crate) fn of_tasks() -> Self {
        Self { tasks: true, ..Self::default() }
    }

    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.settle();
        self.requests.add(1, self.tasks);
        Busy { pulse: Arc::clone(self), owed: None, pass: None }
    }

    fn settle(&self) {
        self.settled.set(self.read.get());
    }

    /// Bytes came.
    pub(crate) fn heard(&self, bytes: usize) {
        self.read.add(bytes as u64, self.tasks);
    }

    /// Bytes went.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.written.add(bytes as u64, self.tasks);
    }

    /// What is counted under an age.
    fn owed(&self, age: u64) -> &Count {
        let [.., last] = &self.owed;
        self.owed.get(age as usize % AGES).unwrap_or(last)
    }

    /// Whether the socket takes less than it is given.
    pub(super) fn waits(&self, blocked: bool) {
        if self.blocked.load(Ordering::Relaxed) != blocked {
            self.blocked.store(blocked, Ordering::Relaxed);
        }
    }

    /// The socket was given all that its connection has for it.
    pub(super) fn flushed(&self) {
        self.unflushed.store(false, Ordering::Relaxed);
    }

    /// The head of the response that is written next, where it was written beforehand.
    pub(super) fn lines(&self) -> Option<Lines> {
        if !self.lined.load(Ordering::Relaxed) {
            return None;
        }
        self.lined.store(false, Ordering::Relaxed);
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn passes(&self) -> MutexGuard<'_, Passes> {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self) -> u64 {
        self.read.get().wrapping_add(self.written.get())
    }

    /// Returns once the connection costs more than `limits` allow, and says which of them. `windows`: whether streams
    /// have windows of their own, which their client may keep shut; without, all that is read between two requests is
    /// the next one's header.
    pub(crate) async fn overstayed(&self, limits: &Limits, windows: bool) -> Reason {
        tokio::select! {
            reason = self.outlasted(limits, windows) => reason,
            () = self.forbidden() => Reason::Revoked,
        }
    }

    /// Returns once a response under way is given for something that no longer holds, and has not ended by itself.
    /// Costs nothing before the first that is.
    async fn forbidden(&self) {
        let mut changes = loop {
            let first = self.passes().held.first().map(|(_, pass)| pass.changes());
            match first {
                Some(changes) => break changes,
                None => self.passed.notified().await,
            }
        };
        // What changed before this was looked at has to be looked at too.
        changes.mark_changed();
        while changes.changed().await.is_ok() {
            tokio::time::sleep(NOTICE).await;
            if self.passes().held.iter().any(|(_, pass)| !pass.holds()) {
                return;
            }
        }
        // Nothing ends leaves any more.
        std::future::pending().await
    }

    /// Whether nothing is under way: no request, no part of one, nothing that waits to be sent.
    pub(crate) fn is_at_rest(&self) -> bool {
        let heard_all = self.settled.get() == self.read.get();
        heard_all && self.requests.get() == 0 && !self.blocked.load(Ordering::Relaxed)
    }

    /// Returns now and then while nothing is under way, and sometimes when something has just begun.
    pub(crate) async fn rested(&self) {
        self.rests.notified().await;
    }

    async fn outlasted(&self, limits: &Limits, windows: bool) -> Reason {
        let shortest =
            [limits.idle, limits.header, limits.stall, limits.throughput_time, limits.window].map(|span| span.get());
        let shortest = shortest.into_iter().min().unwrap_or_default();
        let step = (shortest / 4).max(Duration::from_millis(50));
        let mut seen = Seen { moved: self.moved(), ..Seen::default() };
        loop {
            tokio::time::sleep(step).await;
            if let Some(reason) = self.look(&mut seen, step, limits, windows) {
                return reason;
            }
            // What comes beside streams may be no request's: with windows, whoever counts frames knows more.
            let rests = if windows { self.requests.get() == 0 } else { self.is_at_rest() };
            if rests {
                self.rests.notify_one();
            }
        }
    }

    fn look(&self, seen: &mut Seen, step: Duration, limits: &Limits, windows: bool) -> Option<Reason> {
        let (moved, written, ended) = (self.moved(), self.written.get(), self.ended.get());
        let blocked = self.blocked.load(Ordering::Relaxed);
        let handed = self.handed.get();
        let under_way = self.requests.get() > 0;
        // What a finished response left in a buffer is still on its way. Other bytes only make this end sooner.
        let left = handed.wrapping_sub(seen.handed_before) > written.wrapping_sub(seen.written_before);
        let busy = under_way || blocked || left;
        if !busy {
            (seen.handed_before, seen.written_before) = (handed, written);
        }
        // Bytes that are no request, such as pings, do not keep a connection.
        seen.idle = if busy || ended != seen.ended { Duration::ZERO } else { seen.idle + step };
        let heading = !windows && !busy && self.settled.get() != self.read.get();
        seen.heading = if heading { seen.heading + step } else { Duration::ZERO };
        if seen.heading >= limits.header.get() {
            return Some(Reason::Header);
        }
        seen.still = if !busy || moved != seen.moved { Duration::ZERO } else { seen.still + step };
        (seen.moved, seen.ended) = (moved, ended);
        if seen.idle >= limits.idle.get() {
            return Some(Reason::Idle);
        }
        if seen.still >= limits.stall.get() {
            return Some(Reason::Stall);
        }
        let owes = blocked || left || self.owed.iter().any(|owed| owed.get() > 0);
        if owes {
            seen.slow += step;
        } else {
            (seen.slow, seen.written) = (Duration::ZERO, written);
        }
        if seen.slow >= limits.throughput_time.get() {
            let least = limits.throughput.0.saturating_mul(seen.slow.as_secs().max(1));
            if written.wrapping_sub(seen.written) < least {
                return Some(Reason::Throughput);
            }
            (seen.slow, seen.written) = (Duration::ZERO, written);
        }
        seen.aged += step;
        if windows && seen.aged >= limits.window.get() / AGES as u32 {
            seen.aged = Duration::ZERO;
            let next = (self.age.get() + 1) % AGES as u64;
            self.age.set(next);
            // What is counted under the age that is about to be used again was handed over a whole round ago.
            if self.owed(next).get() > 0 {
                return Some(Reason::Window);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    async fn ends(pulse: &Arc<Pulse>, windows: bool) -> (Reason, u64) {
        let start = monotonic();
        let reason = pulse.overstayed(&limits(), windows).await;
        (reason, start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_sooner_than_a_waiting_request() {
        let pulse = Arc::new(Pulse::default());
        assert!(matches!(ends(&pulse, false).await, (Reason::Idle, 4..=5)));
        let busy = pulse.busy();
        assert!(matches!(ends(&pulse, true).await, (Reason::Stall, 40..=41)));
        drop(busy);
    }

    /// Does `beat` every second while the connection is watched.
    async fn meanwhile(pulse: &Arc<Pulse>, windows: bool, mut beat: impl FnMut()) -> (Reason, u64) {
        let beats = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                beat();
            }
        };
        tokio::select! {
            end = ends(pulse, windows) => end,
            () = beats => unreachable!(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_are_no_request_do_not_keep_a_connection() {
        let pulse = Arc::new(Pulse::default());
        let end = meanwhile(&pulse, true, || pulse.read.add(17, false)).await;
        assert!(matches!(end, (Reason::Idle, 4..=5)), "{end:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_trickles_in_ends_the_connection() {
        let pulse = Arc::new(Pulse::default());
        let limits = Limits { header: Span::secs(2), ..limits() };
        pulse.heard(40);
        drop(pulse.busy());
        let trickle = async {
            loop {
                tokio::time::sleep(Duration::from_millis(700)).await;
                pulse.heard(1);
            }
        };
        let start = monotonic();
        let reason = tokio::select! {
            reason = pulse.overstayed(&limits, false) => reason,
            () = trickle => unreachable!(),
        };
        let took = start.elapsed();
        assert!(matches!(reason, Reason::Header) && (2..=4).contains(&took.as_secs()), "{reason:?} after {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_trickles_ends_and_one_that_keeps_pace_does_not() {
        for (pace, reason) in [(99, Reason::Throughput), (200, Reason::Idle)] {
            let pulse = Arc::new(Pulse::default());
            let mut busy = Some(pulse.busy());
            busy.as_mut().unwrap().handed(1000);
            let mut left = 60;
            let end = meanwhile(&pulse, false, || {
                pulse.written.add(pace, false);
                left -= 1;
                if left == 0 {
                    busy = None;
                }
            })
            .await;
            assert_eq!(end.0, reason, "{pace} bytes a second: {end:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_that_stays_shut_ends_the_connection_though_others_move() {
        let pulse = Arc::new(Pulse::default());
        let (mut shut, mut lively) = (pulse.busy(), pulse.busy());
        shut.handed(1);
        let end = meanwhile(&pulse, true, || {
            lively.taken();
            pulse.written.add(100_000, false);
            lively.handed(100_000);
        })
        .await;
        assert!(matches!(end, (Reason::Window, 14..=18)), "{end:?}");
    }

    struct Leave(tokio::sync::watch::Sender<u64>, Arc<AtomicBool>);

    impl super::super::Permit for Leave {
        fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
            self.0.subscribe()
        }

        fn holds(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_out_under_a_leave_that_ended_is_given_a_second() {
        let pulse = Arc::new(Pulse::default());
        let (changed, holds) = (tokio::sync::watch::channel(0).0, Arc::new(AtomicBool::new(true)));
        let pass = || Pass::new(Leave(changed.clone(), Arc::clone(&holds)));
        let _still = pulse.busy();
        let mut moves = Some(pulse.busy());
        let mut at = 0;
        let (mut revoke, mut late) = (Some((changed.clone(), Arc::clone(&holds))), None);
        let end = meanwhile(&pulse, true, || {
            at += 1;
            match at {
                2 => moves.iter_mut().for_each(|busy| busy.under(pass())),
                4 => {
                    if let Some((changed, holds)) = revoke.take() {
                        holds.store(false, Ordering::Relaxed);
                        changed.send_modify(|n| *n += 1);
                    }
                    // It noticed by itself.
                    moves = None;
                }
                8 => {
                    let mut busy = pulse.busy();
                    busy.under(pass());
                    late = Some(busy);
                    changed.send_modify(|n| *n += 1);
                }
                _ => {}
            }
        })
        .await;
        assert!(matches!(end, (Reason::Revoked, 9..=10)), "{end:?}");
    }
}

//! Activity of one connection: bytes read and written, requests in flight, response data that its client has not taken.
//!
//! The socket and the requests write these counters; the [watchdog](crate::watchdog) reads them a few times within the
//! shortest limit. A request pays for it with a few plain additions, where a timer of its own would cost as much as
//! verifying its token.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::http1::prepared_head::PreparedHead;
use crate::revocable::RevocationCheck;

/// Number of age buckets that untaken response data is counted in; one spans `window / AGE_BUCKETS`.
pub(crate) const AGE_BUCKETS: usize = 8;

/// A counter of one connection. Most connections are a single task whose parts count one after the other: there it is
/// added to without the bus lock of an atomic addition, of which each request would pay for eight.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds, and wraps. `shared`: whether several tasks may count at the same time.
    fn add(&self, amount: u64, shared: bool) {
        if shared {
            self.0.fetch_add(amount, Ordering::Relaxed);
        } else {
            self.set(self.get().wrapping_add(amount));
        }
    }

    fn subtract(&self, amount: u64, shared: bool) {
        self.add(amount.wrapping_neg(), shared);
    }
}

/// Counters of a connection, shared between its socket, its requests and its watchdog.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Whether requests run in tasks of their own.
    request_tasks: bool,
    /// Bytes.
    read: Counter,
    /// What `read` was when a request last began or ended: bytes beyond belong to the next one's header.
    read_at_boundary: Counter,
    /// Bytes.
    written: Counter,
    in_flight: Counter,
    finished: Counter,
    /// Bytes of response bodies that were handed to the connection.
    queued_body: Counter,
    /// Whether the socket took less than it was given: data of a finished response is still on its way.
    write_blocked: AtomicBool,
    /// Whether the connection may hold data of a finished response that it has not handed to the socket. An HTTP/1.1
    /// connection flushes its socket when it has handed over all it has, and only then; so while this is not set, what it
    /// writes next begins a response.
    unflushed: AtomicBool,
    /// Whether `prepared_head` is set.
    has_prepared_head: AtomicBool,
    /// The head of the response that is written next.
    prepared_head: Mutex<Option<PreparedHead>>,
    /// The bucket that response data queued now is counted in.
    current_age: Counter,
    /// Responses whose last piece has not been taken, by the age of that piece.
    untaken: [Counter; AGE_BUCKETS],
    /// Revocation checks of responses in flight, each with a number of its own.
    revocation_checks: Mutex<RevocationChecks>,
    /// Notified when the first of them is added.
    revocation_check_added: Notify,
    /// Notified when the watchdog finds the connection idle.
    idle: Notify,
}

#[derive(Debug, Default)]
struct RevocationChecks {
    last_number: u64,
    held: Vec<(u64, RevocationCheck)>,
}

/// A copy of the counters, for the watchdog.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    /// Bytes read and written; wraps.
    pub(crate) moved: u64,
    /// Bytes.
    pub(crate) written: u64,
    /// Bytes of response bodies handed to the connection.
    pub(crate) queued_body: u64,
    /// Requests that have ended.
    pub(crate) finished: u64,
    pub(crate) has_requests: bool,
    /// Whether bytes were read since a request last began or ended.
    pub(crate) has_partial_header: bool,
    pub(crate) is_write_blocked: bool,
    /// Whether some response's last piece has not been taken.
    pub(crate) has_untaken: bool,
}

/// A request in flight; its connection is not idle while this lives.
#[derive(Debug)]
pub(crate) struct InFlightRequest {
    activity: Arc<Activity>,
    /// The age bucket of the piece that was queued last, until it is taken.
    untaken_age: Option<u64>,
    revocation_check: Option<u64>,
}

impl InFlightRequest {
    /// Ends the connection if `check` is revoked while the response is being sent.
    pub(crate) fn set_revocation_check(&mut self, check: RevocationCheck) {
        let mut checks = self.activity.revocation_checks();
        let is_first = checks.last_number == 0;
        checks.last_number += 1;
        let number = checks.last_number;
        checks.held.push((number, check));
        drop(checks);
        self.revocation_check = Some(number);
        if is_first {
            self.activity.revocation_check_added.notify_one();
        }
    }

    /// A piece of the response with so many bytes was handed to the connection.
    pub(crate) fn record_queued(&mut self, bytes: usize) {
        let shared = self.activity.request_tasks;
        self.activity.queued_body.add(bytes as u64, shared);
        let age = self.activity.current_age.get();
        self.activity.untaken(age).add(1, shared);
        self.untaken_age = Some(age);
    }

    /// Has the socket write this head for this response, which is about to be written to an HTTP/1.1 connection and has
    /// status 200. Takes `head`; leaves it where data of an earlier response may still come before it.
    pub(crate) fn offer_prepared_head(&self, head: &mut Vec<u8>) {
        if !self.activity.unflushed.load(Ordering::Relaxed) {
            let head = PreparedHead::new(std::mem::take(head));
            *self.activity.prepared_head.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
            self.activity.has_prepared_head.store(true, Ordering::Relaxed);
        }
    }

    /// The piece that was queued last has gone far enough for the next.
    pub(crate) fn record_taken(&mut self) {
        if let Some(age) = self.untaken_age.take() {
            self.activity.untaken(age).subtract(1, self.activity.request_tasks);
        }
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.record_taken();
        self.activity.mark_request_boundary();
        self.activity.unflushed.store(true, Ordering::Relaxed);
        if let Some(number) = self.revocation_check {
            self.activity.revocation_checks().held.retain(|(held, _)| *held != number);
        }
        self.activity.in_flight.subtract(1, self.activity.request_tasks);
        self.activity.finished.add(1, self.activity.request_tasks);
    }
}

impl Activity {
    /// For a connection whose requests run in tasks of their own. The default is for one whose requests run in its task.
    pub(crate) fn with_request_tasks() -> Self {
        Self { request_tasks: true, ..Self::default() }
    }

    pub(crate) fn begin_request(self: &Arc<Self>) -> InFlightRequest {
        self.mark_request_boundary();
        self.in_flight.add(1, self.request_tasks);
        InFlightRequest { activity: Arc::clone(self), untaken_age: None, revocation_check: None }
    }

    fn mark_request_boundary(&self) {
        self.read_at_boundary.set(self.read.get());
    }

    pub(crate) fn record_read(&self, bytes: usize) {
        self.read.add(bytes as u64, self.request_tasks);
    }

    pub(crate) fn record_written(&self, bytes: usize) {
        self.written.add(bytes as u64, self.request_tasks);
    }

    fn untaken(&self, age: u64) -> &Counter {
        let [.., last] = &self.untaken;
        self.untaken.get(age as usize % AGE_BUCKETS).unwrap_or(last)
    }

    /// Whether the socket takes less than it is given.
    pub(crate) fn set_write_blocked(&self, is_blocked: bool) {
        if self.write_blocked.load(Ordering::Relaxed) != is_blocked {
            self.write_blocked.store(is_blocked, Ordering::Relaxed);
        }
    }

    /// The socket was given all that its connection has for it.
    pub(crate) fn record_flushed(&self) {
        self.unflushed.store(false, Ordering::Relaxed);
    }

    /// The head of the response that is written next, where it was prepared.
    pub(crate) fn take_prepared_head(&self) -> Option<PreparedHead> {
        if !self.has_prepared_head.load(Ordering::Relaxed) {
            return None;
        }
        self.has_prepared_head.store(false, Ordering::Relaxed);
        self.prepared_head.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether there is no request, no part of one, and nothing that waits to be sent.
    pub(crate) fn is_idle(&self) -> bool {
        !self.has_partial_header() && !self.has_requests() && !self.is_write_blocked()
    }

    /// Returns now and then while the connection is idle, and sometimes when a request has just begun.
    pub(crate) async fn idle(&self) {
        self.idle.notified().await;
    }

    pub(crate) fn notify_idle(&self) {
        self.idle.notify_one();
    }

    pub(crate) fn has_requests(&self) -> bool {
        self.in_flight.get() > 0
    }

    fn has_partial_header(&self) -> bool {
        self.read_at_boundary.get() != self.read.get()
    }

    fn is_write_blocked(&self) -> bool {
        self.write_blocked.load(Ordering::Relaxed)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            moved: self.read.get().wrapping_add(self.written.get()),
            written: self.written.get(),
            queued_body: self.queued_body.get(),
            finished: self.finished.get(),
            has_requests: self.has_requests(),
            has_partial_header: self.has_partial_header(),
            is_write_blocked: self.is_write_blocked(),
            has_untaken: self.untaken.iter().any(|count| count.get() > 0),
        }
    }

    /// Counts response data in the next age bucket from now on. Whether data that was queued a whole round ago, under the
    /// same bucket, is still untaken.
    pub(crate) fn advance_age(&self) -> bool {
        let next = (self.current_age.get() + 1) % AGE_BUCKETS as u64;
        self.current_age.set(next);
        self.untaken(next).get() > 0
    }

    fn revocation_checks(&self) -> MutexGuard<'_, RevocationChecks> {
        self.revocation_checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the first response with a revocation check; gives the channel on which revocations are announced.
    pub(crate) async fn revocations(&self) -> watch::Receiver<u64> {
        loop {
            let first = self.revocation_checks().held.first().map(|(_, check)| check.changes());
            match first {
                Some(changes) => return changes,
                None => self.revocation_check_added.notified().await,
            }
        }
    }

    /// Whether a response in flight is revoked.
    pub(crate) fn has_revoked(&self) -> bool {
        self.revocation_checks().held.iter().any(|(_, check)| !check.is_valid())
    }
}

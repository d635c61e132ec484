//! The least rate at which a request's body has to come. Only the time in which its reader waits for it counts: a handler
//! that is slow itself holds nothing against its client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep_until};

use lyceum_core::time::{Instant, monotonic};

use crate::limits::Limits;
use crate::metrics::{EndReason, Metrics};

/// A body came too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body came at less than {0} bytes a second")]
pub(crate) struct BodyTooSlow(u64);

/// How fast a body comes.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes a second.
    least: u64,
    /// The time of waiting over which that is measured.
    time: Duration,
    metrics: Arc<Metrics>,
    /// Bytes in this measurement.
    received: u64,
    /// How long they were waited for, without the wait under way.
    waited: Duration,
    /// The start of the wait under way.
    since: Option<Instant>,
    /// Wakes the reader at the end of the measurement, or sooner.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(crate) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            least: limits.body_throughput.0,
            time: limits.throughput_time.get(),
            metrics,
            received: 0,
            waited: Duration::ZERO,
            since: None,
            alarm: None,
        }
    }

    /// Bytes came.
    pub(crate) fn record(&mut self, bytes: usize) -> Result<(), BodyTooSlow> {
        self.received += bytes as u64;
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        self.judge()
    }

    /// No byte is there. The task is woken when the measurement ends.
    pub(crate) fn wait(&mut self, cx: &mut Context<'_>) -> Result<(), BodyTooSlow> {
        loop {
            let now = monotonic();
            if let Some(since) = self.since.replace(now) {
                self.waited += now.duration_since(since);
            }
            self.judge()?;
            let end = now + self.time.saturating_sub(self.waited);
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(end)));
            // One that comes too soon is put off then: most waits are short, and setting it costs more than a look.
            if alarm.as_mut().poll(cx) == Poll::Pending {
                return Ok(());
            }
            alarm.as_mut().reset(end);
            if alarm.as_mut().poll(cx) == Poll::Pending {
                return Ok(());
            }
        }
    }

    /// At the end of a measurement: were there enough bytes?
    fn judge(&mut self) -> Result<(), BodyTooSlow> {
        if self.waited < self.time {
            return Ok(());
        }
        let enough = u128::from(self.received) * 1000 >= u128::from(self.least) * self.waited.as_millis();
        (self.received, self.waited) = (0, Duration::ZERO);
        if enough {
            return Ok(());
        }
        self.metrics.record_end(EndReason::BodyThroughput);
        Err(BodyTooSlow(self.least))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use lyceum_core::units::{ByteSize, Span};
    use tokio::time::sleep;

    use super::*;

    /// Waits for a piece of `bytes` every `each`, as a reader does that takes `pause` with each; answers after how many
    /// seconds it was refused, at most 100.
    async fn refused(bytes: usize, each: Duration, pause: Duration) -> Option<u64> {
        let limits = Limits { body_throughput: ByteSize(100), throughput_time: Span::secs(10), ..Limits::default() };
        let mut pace = Pace::new(&limits, Arc::new(Metrics::new(&prometheus::Registry::new())));
        let start = monotonic();
        while start.elapsed() < Duration::from_secs(100) {
            let piece = sleep(each);
            tokio::pin!(piece);
            let came = poll_fn(|cx| match piece.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Ok(())),
                Poll::Pending => match pace.wait(cx) {
                    Ok(()) => Poll::Pending,
                    Err(slow) => Poll::Ready(Err(slow)),
                },
            });
            if came.await.and_then(|()| pace.record(bytes)).is_err() {
                return Some(start.elapsed().as_secs());
            }
            sleep(pause).await;
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_refused_and_one_that_waits_for_its_reader_is_not() {
        let second = Duration::from_secs(1);
        assert_eq!(refused(99, second, Duration::ZERO).await, Some(10));
        assert_eq!(refused(101, second, Duration::ZERO).await, None);
        assert_eq!(
            refused(1, Duration::from_secs(15), Duration::ZERO).await,
            Some(10),
            "it does not wait for the byte"
        );
        assert_eq!(refused(101, second, 4 * second).await, None, "a slow reader is no slow client");
        assert_eq!(refused(99, second, second).await, Some(19));
    }
}

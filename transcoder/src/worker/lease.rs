//! The life of a lease: run the task, hand its objects over one by one, keep the lease alive, and say how it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lyceum_core::time::monotonic;
use lyceum_packaging::{Handover, MediaInfo};
use tokio::sync::{Mutex, Notify, mpsc};

use super::backoff::jittered;
use super::context::Context;
use super::metrics::Metrics;
use super::origin_client::{ApiError, Lease};
use super::source::Remote;
use crate::ipc::{Failure, Job};
use crate::task_process::{self, Event, Source};

/// The pause after no origin could be asked: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often an object is sent.
const PUT_TRIES: u32 = 6;

/// Leases and runs tasks one after another until the drain begins.
pub(super) async fn slot(slot: u64, context: Arc<Context>) {
    let mut pause = PAUSE;
    while !context.shutdown.is_draining() {
        let leased = tokio::select! {
            leased = context.api.lease() => leased,
            () = context.shutdown.draining() => return,
        };
        let counted = |result| context.metrics.leases.with_label_values(&[result]).inc();
        match leased {
            Ok(Some(lease)) => {
                counted("task");
                pause = PAUSE;
                run(context.clone(), Arc::new(lease)).await;
            }
            Ok(None) => {
                counted("none");
                pause = PAUSE;
                // An origin that does not wait must not be asked in a tight loop.
                rest(&context, jittered(PAUSE)).await;
            }
            Err(error) => {
                counted("error");
                tracing::warn!(slot, %error, "no origin gives tasks; asking again in {pause:?}");
                rest(&context, jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn rest(context: &Context, time: Duration) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = context.shutdown.draining() => {}
    }
}

/// How a task ended, for the origin and the metrics.
enum Ended {
    Done,
    Failed(Failure),
    /// The origin does not want it any more, or another worker has it: there is nobody to tell.
    Dropped(&'static str),
}

async fn run(context: Arc<Context>, lease: Arc<Lease>) {
    let name = lease.spec.name();
    let _guard = context.shutdown.guard();
    let _running = Running::begin(&context.metrics);
    let started = monotonic();
    tracing::info!(task = lease.id, kind = name, "task leased");
    let work = Work::new(context.clone(), lease.clone());
    let ended = tokio::select! {
        ended = work.run() => ended,
        ended = work.keep_alive() => ended,
        () = drained(&context) => Ended::Failed(Failure::machinery("worker_draining", "The worker was told to stop.")),
    };
    let result = match ended {
        Ended::Done => work.complete().await,
        Ended::Failed(failure) => {
            tracing::warn!(task = lease.id, kind = name, %failure, "task failed");
            let said = context.api.fail(&lease, &failure.code, &failure.detail, failure.retry).await;
            if let Err(error) = said {
                tracing::warn!(task = lease.id, %error, "the failure could not be told; the lease will run out");
            }
            "failed"
        }
        Ended::Dropped(why) => {
            tracing::info!(task = lease.id, kind = name, why, "task dropped");
            why
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(task = lease.id, kind = name, result, seconds, "task ended");
    context.metrics.tasks.with_label_values(&[name, result]).inc();
    context.metrics.task_seconds.with_label_values(&[name]).observe(seconds);
}

async fn drained(context: &Context) {
    context.shutdown.draining().await;
    tokio::time::sleep(context.drain_timeout).await;
}

/// Counts a task as running while it lives.
struct Running<'a>(&'a Metrics);

impl<'a> Running<'a> {
    fn begin(metrics: &'a Metrics) -> Self {
        metrics.running.inc();
        Self(metrics)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.dec();
    }
}

struct Work {
    context: Arc<Context>,
    lease: Arc<Lease>,
    state: Mutex<State>,
    /// The fraction, as bits of an `f64`.
    progress: AtomicU64,
    news: Notify,
}

#[derive(Default)]
struct State {
    stored: Vec<Handover>,
    told: usize,
    report: Option<MediaInfo>,
}

impl Work {
    fn new(context: Arc<Context>, lease: Arc<Lease>) -> Self {
        Self { context, lease, state: Mutex::default(), progress: AtomicU64::new(0), news: Notify::new() }
    }

    async fn run(&self) -> Ended {
        let source = match Remote::open(self.context.clone(), self.lease.clone(), self.context.source_cache).await {
            Ok(source) => Arc::new(source),
            Err(error) => return judged(error),
        };
        let job =
            Job { spec: self.lease.spec.clone(), limits: self.context.limits.clone(), source_bytes: source.size() };
        let (events, taken) = mpsc::channel(8);
        let task = task_process::run(&job, source.clone(), events);
        let (ended, stored) = tokio::join!(task, self.store(taken));
        match (ended, stored) {
            _ if source.lost() => Ended::Dropped("lost"),
            (_, Err(error)) => judged(error),
            (Ok(()), Ok(())) => Ended::Done,
            (Err(failure), Ok(())) => Ended::Failed(failure),
        }
    }

    async fn store(&self, mut events: mpsc::Receiver<Event>) -> Result<(), ApiError> {
        while let Some(event) = events.recv().await {
            match event {
                Event::Progress(fraction) => self.progress.store(fraction.to_bits(), Ordering::Relaxed),
                Event::Report(info) => self.state.lock().await.report = Some(*info),
                Event::Object(handover, bytes) => {
                    let size = bytes.len() as u64;
                    let mut tries = 1;
                    loop {
                        match self.context.api.put(&self.lease, &handover, bytes.clone()).await {
                            Ok(()) => break,
                            Err(ApiError::Call(error)) if error.retry() && tries < PUT_TRIES => {
                                tracing::debug!(%error, path = handover.path, "handing over again");
                                tokio::time::sleep(jittered(Duration::from_millis(100 << tries))).await;
                                tries += 1;
                            }
                            Err(error) => return Err(error),
                        }
                    }
                    self.context.metrics.object_bytes.inc_by(size);
                    self.state.lock().await.stored.push(handover);
                    self.news.notify_one();
                }
            }
        }
        Ok(())
    }

    /// Heartbeats: at once when something was stored, so that it is committed, else three in a lease's time. Ends
    /// only when the lease is gone.
    async fn keep_alive(&self) -> Ended {
        let time = Duration::from_secs(self.lease.lease_seconds.clamp(3, 3600));
        let mut alive = monotonic();
        let mut pause = time / 3;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.news.notified() => {}
            }
            let (handed, upto) = {
                let state = self.state.lock().await;
                (state.stored.get(state.told..).unwrap_or_default().to_vec(), state.stored.len())
            };
            let progress = f64::from_bits(self.progress.load(Ordering::Relaxed));
            match self.context.api.heartbeat(&self.lease, progress, &handed).await {
                Ok(true) => return Ended::Dropped("cancelled"),
                Ok(false) => {
                    alive = monotonic();
                    pause = time / 3;
                    self.state.lock().await.told = upto;
                }
                Err(ApiError::Lost) => return Ended::Dropped("lost"),
                Err(ApiError::Call(error)) => {
                    tracing::debug!(%error, "a heartbeat failed");
                    pause = jittered(Duration::from_secs(1));
                    if alive.elapsed() > time {
                        return Ended::Dropped("lost");
                    }
                }
            }
        }
    }

    /// Says that all is done, for as long as the lease may live.
    async fn complete(&self) -> &'static str {
        let state = self.state.lock().await;
        let started = monotonic();
        loop {
            match self.context.api.complete(&self.lease, &state.stored, state.report.as_ref()).await {
                Ok(()) => return "done",
                Err(ApiError::Lost) => return "lost",
                Err(ApiError::Call(error)) => {
                    tracing::warn!(task = self.lease.id, %error, "the end could not be told");
                    if !error.retry() || started.elapsed() > Duration::from_secs(self.lease.lease_seconds) {
                        return "untold";
                    }
                    tokio::time::sleep(jittered(Duration::from_secs(1))).await;
                }
            }
        }
    }
}

fn judged(error: ApiError) -> Ended {
    match error {
        ApiError::Lost => Ended::Dropped("lost"),
        // An origin that is away or full is nobody's fault, and its tries are not counted; one that says no is.
        ApiError::Call(error) if error.retry() => {
            Ended::Failed(Failure::machinery("worker_transfer_failed", error.to_string()))
        }
        ApiError::Call(error) => Ended::Failed(Failure::machinery("worker_transfer_refused", error.to_string())),
    }
}

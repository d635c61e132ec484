//! The life of a lease: run the task, upload its objects one by one, renew the lease, and report the result.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lyceum_core::time::monotonic;
use lyceum_packaging::{DeliveredObject, MediaInfo};
use tokio::sync::{Mutex, Notify, mpsc};

use super::backoff::jittered;
use super::context::Context;
use super::metrics::Metrics;
use super::origin_client::{Lease, LeaseError};
use super::source::LeasedSource;
use crate::ipc::{Failure, Job};
use crate::task_process::{self, TaskEvent, TaskSource};

/// The first and the longest pause after no origin could be reached.
const MIN_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// The most attempts at uploading an object.
const MAX_PUT_TRIES: u32 = 6;

/// Leases and runs tasks one after another until the worker drains.
pub(super) async fn slot(slot: u64, context: Arc<Context>) {
    let mut pause = MIN_PAUSE;
    while !context.shutdown.is_draining() {
        let leased = tokio::select! {
            leased = context.origins.lease() => leased,
            () = context.shutdown.draining() => return,
        };
        let counted = |result| context.metrics.leases.with_label_values(&[result]).inc();
        match leased {
            Ok(Some(lease)) => {
                counted("task");
                pause = MIN_PAUSE;
                run(context.clone(), Arc::new(lease)).await;
            }
            Ok(None) => {
                counted("none");
                pause = MIN_PAUSE;
                // Avoid a tight loop with an origin that does not wait.
                pause_for(&context, jittered(MIN_PAUSE)).await;
            }
            Err(error) => {
                counted("error");
                tracing::warn!(slot, %error, "no origin gives tasks; asking again in {pause:?}");
                pause_for(&context, jittered(pause)).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

async fn pause_for(context: &Context, time: Duration) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = context.shutdown.draining() => {}
    }
}

/// How a task ended, for the origin and the metrics.
enum TaskOutcome {
    Done,
    Failed(Failure),
    /// The task was cancelled or leased to another worker: no report is due.
    Dropped(&'static str),
}

async fn run(context: Arc<Context>, lease: Arc<Lease>) {
    let name = lease.spec.name();
    let _guard = context.shutdown.guard();
    let _running = Running::begin(&context.metrics);
    let started = monotonic();
    tracing::info!(task = lease.id, kind = name, "task leased");
    let work = LeasedTask::new(context.clone(), lease.clone());
    let ended = tokio::select! {
        ended = work.run() => ended,
        ended = work.keep_alive() => ended,
        () = drained(&context) => TaskOutcome::Failed(Failure::machinery("worker_draining", "The worker was told to stop.")),
    };
    let result = match ended {
        TaskOutcome::Done => work.complete().await,
        TaskOutcome::Failed(failure) => {
            tracing::warn!(task = lease.id, kind = name, %failure, "task failed");
            let said = context.origins.fail(&lease, &failure.code, &failure.detail, failure.retry).await;
            if let Err(error) = said {
                tracing::warn!(task = lease.id, %error, "the failure could not be reported; the lease will run out");
            }
            "failed"
        }
        TaskOutcome::Dropped(why) => {
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

struct LeasedTask {
    context: Arc<Context>,
    lease: Arc<Lease>,
    state: Mutex<HandedOver>,
    /// The fraction, as bits of an `f64`.
    progress: AtomicU64,
    stored_objects: Notify,
}

#[derive(Default)]
struct HandedOver {
    stored: Vec<DeliveredObject>,
    reported: usize,
    report: Option<MediaInfo>,
}

impl LeasedTask {
    fn new(context: Arc<Context>, lease: Arc<Lease>) -> Self {
        Self { context, lease, state: Mutex::default(), progress: AtomicU64::new(0), stored_objects: Notify::new() }
    }

    async fn run(&self) -> TaskOutcome {
        let source = match LeasedSource::open(self.context.clone(), self.lease.clone(), self.context.source_cache).await
        {
            Ok(source) => Arc::new(source),
            Err(error) => return outcome_of(error),
        };
        let job =
            Job { spec: self.lease.spec.clone(), limits: self.context.limits.clone(), source_bytes: source.size() };
        let (events, taken) = mpsc::channel(8);
        let task = task_process::run(&job, source.clone(), events);
        let (ended, stored) = tokio::join!(task, self.store(taken));
        match (ended, stored) {
            _ if source.lost() => TaskOutcome::Dropped("lost"),
            (_, Err(error)) => outcome_of(error),
            (Ok(()), Ok(())) => TaskOutcome::Done,
            (Err(failure), Ok(())) => TaskOutcome::Failed(failure),
        }
    }

    async fn store(&self, mut events: mpsc::Receiver<TaskEvent>) -> Result<(), LeaseError> {
        while let Some(event) = events.recv().await {
            match event {
                TaskEvent::Progress(fraction) => self.progress.store(fraction.to_bits(), Ordering::Relaxed),
                TaskEvent::Report(info) => self.state.lock().await.report = Some(*info),
                TaskEvent::Object(handover, bytes) => {
                    let size = bytes.len() as u64;
                    let mut tries = 1;
                    loop {
                        match self.context.origins.put(&self.lease, &handover, bytes.clone()).await {
                            Ok(()) => break,
                            Err(LeaseError::Call(error)) if error.retry() && tries < MAX_PUT_TRIES => {
                                tracing::debug!(%error, path = handover.path, "handing over again");
                                tokio::time::sleep(jittered(Duration::from_millis(100 << tries))).await;
                                tries += 1;
                            }
                            Err(error) => return Err(error),
                        }
                    }
                    self.context.metrics.object_bytes.inc_by(size);
                    self.state.lock().await.stored.push(handover);
                    self.stored_objects.notify_one();
                }
            }
        }
        Ok(())
    }

    /// Sends heartbeats: at once after an object was stored, so that it is committed, else three per lease duration.
    /// Returns only when the lease is lost.
    async fn keep_alive(&self) -> TaskOutcome {
        let time = Duration::from_secs(self.lease.lease_seconds.clamp(3, 3600));
        let mut alive = monotonic();
        let mut pause = time / 3;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stored_objects.notified() => {}
            }
            let (handed, upto) = {
                let state = self.state.lock().await;
                (state.stored.get(state.reported..).unwrap_or_default().to_vec(), state.stored.len())
            };
            let progress = f64::from_bits(self.progress.load(Ordering::Relaxed));
            match self.context.origins.heartbeat(&self.lease, progress, &handed).await {
                Ok(true) => return TaskOutcome::Dropped("cancelled"),
                Ok(false) => {
                    alive = monotonic();
                    pause = time / 3;
                    self.state.lock().await.reported = upto;
                }
                Err(LeaseError::Lost) => return TaskOutcome::Dropped("lost"),
                Err(LeaseError::Call(error)) => {
                    tracing::debug!(%error, "a heartbeat failed");
                    pause = jittered(Duration::from_secs(1));
                    if alive.elapsed() > time {
                        return TaskOutcome::Dropped("lost");
                    }
                }
            }
        }
    }

    /// Reports completion, with retries for the duration of the lease.
    async fn complete(&self) -> &'static str {
        let state = self.state.lock().await;
        let started = monotonic();
        loop {
            match self.context.origins.complete(&self.lease, &state.stored, state.report.as_ref()).await {
                Ok(()) => return "done",
                Err(LeaseError::Lost) => return "lost",
                Err(LeaseError::Call(error)) => {
                    tracing::warn!(task = self.lease.id, %error, "the end could not be reported");
                    if !error.retry() || started.elapsed() > Duration::from_secs(self.lease.lease_seconds) {
                        return "untold";
                    }
                    tokio::time::sleep(jittered(Duration::from_secs(1))).await;
                }
            }
        }
    }
}

fn outcome_of(error: LeaseError) -> TaskOutcome {
    match error {
        LeaseError::Lost => TaskOutcome::Dropped("lost"),
        // An unreachable or overloaded origin does not count as an attempt at the task; a refusal does.
        LeaseError::Call(error) if error.retry() => {
            TaskOutcome::Failed(Failure::machinery("worker_transfer_failed", error.to_string()))
        }
        LeaseError::Call(error) => {
            TaskOutcome::Failed(Failure::machinery("worker_transfer_refused", error.to_string()))
        }
    }
}

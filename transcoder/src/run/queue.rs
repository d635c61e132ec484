//! Runs the tasks of a plan over a number of slots, in the order of the plan, with bounded retries.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lyceum_packaging::{DeliveredObject, Plan, PlannedTask};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::error::RunError;
use super::file_source::FileSource;
use super::progress::Progress;
use crate::ipc::Job;
use crate::limits::Limits;
use crate::task_process::{self, TaskEvent, TaskSource};

/// The most attempts at a task, if a retry may help.
pub(super) const MAX_TRIES: u32 = 3;

/// Runs all tasks and returns the descriptions of their objects. The first failure ends the run.
pub(super) async fn run_all(
    plan: &Plan,
    source: Arc<FileSource>,
    limits: &Limits,
    slots: usize,
    dir: PathBuf,
    progress: &Progress,
) -> Result<Vec<DeliveredObject>, RunError> {
    for track in &plan.tracks {
        let path = dir.join(&track.name);
        std::fs::create_dir_all(&path).map_err(|cause| RunError::Output { doing: "making", path, cause })?;
    }
    let dir: Arc<Path> = dir.into();
    let mut waiting = plan.tasks.iter().enumerate();
    let mut running = JoinSet::new();
    let mut handovers = Vec::new();
    loop {
        while running.len() < slots.max(1)
            && let Some((number, task)) = waiting.next()
        {
            let work = TaskRun {
                number,
                task: task.clone(),
                limits: limits.clone(),
                source: source.clone(),
                dir: dir.clone(),
            };
            running.spawn(work.run(progress.clone()));
        }
        let Some(ended) = running.join_next().await else { return Ok(handovers) };
        let ended = ended.unwrap_or_else(|cause| {
            Err(RunError::Task(crate::ipc::Failure::machinery("task_failed", cause.to_string())))
        });
        for handover in ended? {
            handover.check(plan).map_err(|cause| crate::ipc::Failure::machinery("task_failed", cause.to_string()))?;
            handovers.push(handover);
        }
    }
}

struct TaskRun {
    number: usize,
    task: PlannedTask,
    limits: Limits,
    source: Arc<FileSource>,
    dir: Arc<Path>,
}

impl TaskRun {
    async fn run(self, progress: Progress) -> Result<Vec<DeliveredObject>, RunError> {
        let job = Job { spec: self.task.spec.clone(), limits: self.limits.clone(), source_bytes: self.source.size() };
        let mut tries = 1;
        loop {
            let (events, taken) = mpsc::channel(8);
            let (ended, stored) =
                tokio::join!(task_process::run(&job, self.source.clone(), events), self.store(taken, &progress));
            match (ended, stored) {
                (_, Err(error)) => return Err(error),
                (Ok(()), Ok(handovers)) => {
                    progress.task(self.number, 1.0);
                    return Ok(handovers);
                }
                (Err(failure), Ok(_)) if failure.retry && tries < MAX_TRIES => {
                    tracing::warn!(task = self.task.spec.name(), %failure, "trying a task again");
                    tries += 1;
                }
                (Err(failure), Ok(_)) => return Err(failure.into()),
            }
        }
    }

    async fn store(
        &self,
        mut events: mpsc::Receiver<TaskEvent>,
        progress: &Progress,
    ) -> Result<Vec<DeliveredObject>, RunError> {
        let mut handovers = Vec::new();
        while let Some(event) = events.recv().await {
            match event {
                TaskEvent::Progress(fraction) => progress.task(self.number, fraction),
                TaskEvent::Object(handover, bytes) => {
                    self.write(&handover, bytes).await?;
                    handovers.push(handover);
                }
                TaskEvent::Report(_) => {}
            }
        }
        Ok(handovers)
    }

    async fn write(&self, handover: &DeliveredObject, bytes: Bytes) -> Result<(), RunError> {
        // The path comes from an untrusted process.
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        };
        if !handover.path.split('/').all(plain) {
            return Err(crate::ipc::Failure::machinery("task_failed", "a task named an invalid path").into());
        }
        let path = self.dir.join(&handover.path);
        tokio::fs::write(&path, &bytes).await.map_err(|cause| RunError::Output { doing: "writing", path, cause })
    }
}

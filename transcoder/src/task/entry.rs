//! The life of a task process: limits, sandbox, task, result.

use std::process::ExitCode;

use lyceum_packaging::TaskSpec;

use super::error::TaskError;
use super::output::Output;
use super::source::{ParentSocket, SourceHandle};
use super::{audio, ffi, probe, sandbox, subtitles, thumbnails, video};
use crate::ipc::{Job, Message, read_job};

/// Runs the task process.
pub(crate) fn main() -> ExitCode {
    ffi::close_inherited();
    let mut stdin = ParentSocket::take();
    let job = match read_job(&mut stdin) {
        Ok(job) => job,
        Err(cause) => {
            tracing::error!(%cause, "no job on standard input");
            return ExitCode::from(2);
        }
    };
    if let Err(cause) = sandbox::limit(&job.limits) {
        tracing::error!(%cause, "the limits can't be set");
        return ExitCode::FAILURE;
    }
    sandbox::enter();
    let source = SourceHandle::start(stdin, job.source_bytes);
    ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Fatal);
    let output = Output::new(job.limits.output.0);
    let message = match run(&job, &source, &output) {
        Ok(()) => Message::Done,
        Err(error) => {
            tracing::debug!(%error, "task failed");
            Message::Failed(error.into_failure(source.failed()))
        }
    };
    // If the parent is gone, nobody can receive the message.
    if output.send(&message).is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run(job: &Job, source: &SourceHandle, output: &Output) -> Result<(), TaskError> {
    match &job.spec {
        TaskSpec::Probe => {
            let info = probe::probe(source, &job.limits)?;
            output.send(&Message::Report { info }).map_err(TaskError::Source)
        }
        TaskSpec::Video(task) => video::run(task, source, &job.limits, output),
        TaskSpec::Audio(task) => audio::run(task, source, &job.limits, output),
        TaskSpec::Images(task) => thumbnails::run(task, source, &job.limits, output),
        TaskSpec::Subtitles(task) => subtitles::run(task, source, &job.limits, output),
    }
}

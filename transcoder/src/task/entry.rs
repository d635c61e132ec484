//! The life of a task process: limits, sandbox, task, result.

use std::process::ExitCode;

use lyceum_packaging::TaskSpec;

use super::error::TaskError;
use super::output::Output;
use super::source::{Socket, Source};
use super::{audio, ffi, probe, sandbox, subtitles, thumbnails, video};
use crate::ipc::{Job, Message, read_job};

/// The whole life of a task process.
pub(crate) fn main() -> ExitCode {
    ffi::close_inherited();
    let mut stdin = Socket::take();
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
    let source = Source::start(stdin, job.source_bytes);
    ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Fatal);
    let output = Output::new(job.limits.output.0);
    let message = match run(&job, &source, &output) {
        Ok(()) => Message::Done,
        Err(error) => {
            tracing::debug!(%error, "task failed");
            Message::Failed(error.into_failure(source.failed()))
        }
    };
    // A parent that is gone reads nothing, and there is nobody left to tell.
    if output.say(&message).is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run(job: &Job, source: &Source, output: &Output) -> Result<(), TaskError> {
    match &job.spec {
        TaskSpec::Probe => {
            let info = probe::probe(source, &job.limits)?;
            output.say(&Message::Report { info }).map_err(TaskError::Source)
        }
        TaskSpec::Video(task) => video::run(task, source, &job.limits, output),
        TaskSpec::Audio(task) => audio::run(task, source, &job.limits, output),
        TaskSpec::Images(task) => thumbnails::run(task, source, &job.limits, output),
        TaskSpec::Subtitles(task) => subtitles::run(task, source, &job.limits, output),
    }
}

//! The task process: one task over one source, in a process of its own that treats its input as hostile.
//!
//! It reads its job and its source through its standard input, a socket that its parent serves, and hands over
//! through its standard output. It holds no credentials, and before it opens anything it gives up files, network and
//! most system calls ([`sandbox`]). It knows nothing of origins, leases or HTTP.

mod audio;
mod clock;
mod cut;
mod images;
mod input;
mod level;
mod output;
mod prepare;
mod probe;
mod quality;
mod raw;
mod rendition;
pub(crate) mod sample;
mod sandbox;
mod shown;
mod source;
mod subtitles;
mod video;

use std::process::ExitCode;

use lyceum_packaging::TaskSpec;
use lyceum_packaging::info::{Refusal, RefusalCode};

use crate::wire::{Failure, Job, Message, read_job};

/// Why a task ends early, inside the task process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// The recording is to blame.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// FFmpeg gave up.
    #[error("{doing}: {cause}")]
    Ffmpeg {
        /// What was under way.
        doing: &'static str,
        /// What it said.
        cause: ffmpeg_next::Error,
    },
    /// The parent is gone, or can't read the source.
    #[error("the source can't be read: {0}")]
    Source(std::io::Error),
    /// The machinery is to blame.
    #[error("{0}")]
    Machinery(String),
}

impl TaskError {
    /// For `map_err`: FFmpeg failed while `doing` something.
    pub(crate) fn ffmpeg(doing: &'static str) -> impl Fn(ffmpeg_next::Error) -> Self {
        // Encoders and threads that get no memory say that something went wrong, but not what.
        move |cause| Self::Ffmpeg { doing, cause: if memory_is_short() { NO_MEMORY } else { cause } }
    }

    /// A thread could not be started.
    pub(crate) fn thread(cause: &std::io::Error) -> Self {
        if memory_is_short() {
            return Self::Ffmpeg { doing: "starting a thread", cause: NO_MEMORY };
        }
        Self::Machinery(format!("a thread can't be started: {cause}"))
    }

    fn into_failure(self, source_failed: bool) -> Failure {
        match self {
            _ if source_failed => {
                Failure::machinery("task_source_unavailable", "The source could not be read to its end.")
            }
            Self::Refused(refusal) => refusal.into(),
            Self::Ffmpeg { cause: NO_MEMORY, .. } => {
                Refusal::new(RefusalCode::LimitExceeded, "The recording needs more memory than one task may use.")
                    .into()
            }
            Self::Ffmpeg { .. } | Self::Machinery(_) => Failure::machinery("task_failed", self.to_string()),
            Self::Source(cause) => Failure::machinery("task_source_unavailable", cause.to_string()),
        }
    }
}

const NO_MEMORY: ffmpeg_next::Error = ffmpeg_next::Error::Other { errno: ffmpeg_next::error::ENOMEM };

/// Whether this process is at the end of what it may use: there is no room for a few more frames.
fn memory_is_short() -> bool {
    const ROOM: usize = 64 << 20;
    Vec::<u8>::new().try_reserve_exact(ROOM).is_err()
}

/// The whole life of a task process.
pub(crate) fn main() -> ExitCode {
    raw::close_inherited();
    let mut stdin = source::Socket::take();
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
    let source = source::Source::start(stdin, job.source_bytes);
    ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Fatal);
    let output = output::Output::new(job.limits.output.0);
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

fn run(job: &Job, source: &source::Source, output: &output::Output) -> Result<(), TaskError> {
    match &job.spec {
        TaskSpec::Probe => {
            let info = probe::probe(source, &job.limits)?;
            output.say(&Message::Report { info }).map_err(TaskError::Source)
        }
        TaskSpec::Video(task) => video::run(task, source, &job.limits, output),
        TaskSpec::Audio(task) => audio::run(task, source, &job.limits, output),
        TaskSpec::Images(task) => images::run(task, source, &job.limits, output),
        TaskSpec::Subtitles(task) => subtitles::run(task, source, &job.limits, output),
    }
}

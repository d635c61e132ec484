//! Errors inside the task process, and how each becomes a [`Failure`] for the parent.

use lyceum_packaging::info::{Refusal, RefusalCode};

use crate::ipc::Failure;

/// Why a task fails, inside the task process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// The recording is unsuitable.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// FFmpeg reported an error.
    #[error("{doing}: {cause}")]
    Ffmpeg {
        /// The operation that failed.
        doing: &'static str,
        /// The error.
        cause: ffmpeg_next::Error,
    },
    /// The parent is gone or can't read the source.
    #[error("the source can't be read: {0}")]
    Source(std::io::Error),
    /// An internal error.
    #[error("{0}")]
    Machinery(String),
}

impl TaskError {
    /// For `map_err`: FFmpeg failed while `doing` something.
    pub(crate) fn ffmpeg(doing: &'static str) -> impl Fn(ffmpeg_next::Error) -> Self {
        // Encoders and threads that run out of memory often report another error.
        move |cause| Self::Ffmpeg { doing, cause: if memory_is_short() { NO_MEMORY } else { cause } }
    }

    /// A thread could not be started.
    pub(crate) fn thread(cause: &std::io::Error) -> Self {
        if memory_is_short() {
            return Self::Ffmpeg { doing: "starting a thread", cause: NO_MEMORY };
        }
        Self::Machinery(format!("a thread can't be started: {cause}"))
    }

    pub(crate) fn into_failure(self, source_failed: bool) -> Failure {
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

/// Whether this process has reached its memory limit: a few more frames would not fit.
fn memory_is_short() -> bool {
    const ROOM: usize = 64 << 20;
    Vec::<u8>::new().try_reserve_exact(ROOM).is_err()
}

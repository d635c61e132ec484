//! Handing over: messages and objects up the pipe, from several threads, within the limit of output.

use std::io::{self, Stdout};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use lyceum_packaging::Handover;
use lyceum_packaging::info::{Refusal, RefusalCode};

use super::error::TaskError;
use crate::ipc::{Message, write_message};

/// The way up.
pub(crate) struct Output {
    pipe: Mutex<Stdout>,
    left: AtomicU64,
}

impl Output {
    /// An output that takes at most `limit` bytes of objects.
    pub(crate) fn new(limit: u64) -> Self {
        Self { pipe: Mutex::new(io::stdout()), left: AtomicU64::new(limit) }
    }

    /// Says something without a payload.
    pub(crate) fn say(&self, message: &Message) -> io::Result<()> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        write_message(&mut *pipe, message, &[])
    }

    /// Hands an object over.
    pub(crate) fn hand(&self, handover: Handover, bytes: &[u8]) -> Result<(), TaskError> {
        let take = |left: u64| left.checked_sub(bytes.len() as u64);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            let detail = "The recording makes more output than one task may hand over.";
            return Err(Refusal::new(RefusalCode::LimitExceeded, detail).into());
        }
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        write_message(&mut *pipe, &Message::Object { handover }, bytes).map_err(TaskError::Source)
    }
}

//! Messages and objects to the parent, from several threads, within the output limit.

use std::io::{self, Stdout};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use lyceum_packaging::DeliveredObject;
use lyceum_packaging::info::{Refusal, RefusalCode};

use super::error::TaskError;
use crate::ipc::{Message, write_message};

/// The pipe to the parent.
pub(crate) struct Output {
    pipe: Mutex<Stdout>,
    remaining_bytes: AtomicU64,
}

impl Output {
    /// An output for at most `limit` bytes of objects.
    pub(crate) fn new(limit: u64) -> Self {
        Self { pipe: Mutex::new(io::stdout()), remaining_bytes: AtomicU64::new(limit) }
    }

    /// Sends a message without a payload.
    pub(crate) fn send(&self, message: &Message) -> io::Result<()> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        write_message(&mut *pipe, message, &[])
    }

    /// Sends an object. Fails when the output limit is exceeded.
    pub(crate) fn hand_over(&self, handover: DeliveredObject, bytes: &[u8]) -> Result<(), TaskError> {
        let take = |remaining_bytes: u64| remaining_bytes.checked_sub(bytes.len() as u64);
        if self.remaining_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            let detail = "The recording makes more output than one task may hand over.";
            return Err(Refusal::new(RefusalCode::LimitExceeded, detail).into());
        }
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        write_message(&mut *pipe, &Message::Object { handover }, bytes).map_err(TaskError::Source)
    }
}

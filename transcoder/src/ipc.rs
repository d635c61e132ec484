//! Protocol between a task process and its parent.
//!
//! Standard input of the task is a socket. The parent sends one line of JSON (the [`Job`]); then the task writes
//! [`ReadRequest`]s for bytes of the source and the parent answers them. Standard output is a pipe: [`Message`]s, each
//! with an optional payload. A task has no other open descriptors but its log, standard error.

use std::io::{self, Read, Write};

use lyceum_packaging::{DeliveredObject, MediaInfo, TaskSpec};
use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// The longest JSON header of a message, in bytes.
pub(crate) const MAX_HEAD_BYTES: u32 = 16 << 20;
/// The largest payload, in bytes.
pub(crate) const MAX_PAYLOAD_BYTES: u32 = 256 << 20;
/// The longest job line, in bytes.
pub(crate) const MAX_JOB_BYTES: u64 = 16 << 20;
/// The most bytes of one read request.
pub(crate) const MAX_READ_BYTES: u32 = 1 << 20;
/// The length in a reply that signals a failed read of the source.
pub(crate) const SOURCE_FAILED: u32 = u32::MAX;

/// A task with its limits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The task.
    pub(crate) spec: TaskSpec,
    /// Its resource limits.
    pub(crate) limits: Limits,
    /// The size of the source, in bytes.
    pub(crate) source_bytes: u64,
}

/// A message of the task.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(crate) enum Message {
    /// An output object; its bytes are the payload.
    Object {
        /// Its description.
        handover: DeliveredObject,
    },
    /// Progress.
    Progress {
        /// 0 to 1.
        fraction: f64,
    },
    /// The result of a probe.
    Report {
        /// What the probe found.
        info: MediaInfo,
    },
    /// Final message: the task failed.
    Failed(Failure),
    /// Final message: all objects were sent.
    Done,
}

/// Why a task failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
pub(crate) struct Failure {
    /// A stable code: `media_*` or `task_*`.
    pub(crate) code: String,
    /// One sentence for people.
    pub(crate) detail: String,
    /// Whether a retry may help.
    pub(crate) retry: bool,
}

impl Failure {
    /// A failure that the recording did not cause: a retry may help.
    pub(crate) fn machinery(code: &str, detail: impl Into<String>) -> Self {
        Self { code: code.to_owned(), detail: detail.into(), retry: true }
    }
}

impl From<lyceum_packaging::Refusal> for Failure {
    fn from(refusal: lyceum_packaging::Refusal) -> Self {
        Self { code: refusal.code.as_str().to_owned(), detail: refusal.detail, retry: false }
    }
}

/// A request for bytes of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadRequest {
    /// Offset in the source, in bytes.
    pub(crate) offset: u64,
    /// Number of bytes, at most [`MAX_READ_BYTES`].
    pub(crate) length: u32,
}

impl ReadRequest {
    /// The encoding on the socket: offset and length, big endian.
    pub(crate) fn encode(self) -> [u8; 12] {
        let mut out = [0; 12];
        let (offset, length) = out.split_at_mut(8);
        offset.copy_from_slice(&self.offset.to_be_bytes());
        length.copy_from_slice(&self.length.to_be_bytes());
        out
    }

    /// Decodes a request; a length out of bounds is an error.
    pub(crate) fn decode(bytes: [u8; 12]) -> io::Result<Self> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        let length = u32::from_be_bytes([i, j, k, l]);
        if length == 0 || length > MAX_READ_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a task's read request is empty or too long"));
        }
        Ok(Self { offset: u64::from_be_bytes([a, b, c, d, e, f, g, h]), length })
    }
}

/// Writes a message and its payload.
pub(crate) fn write_message(out: &mut impl Write, message: &Message, payload: &[u8]) -> io::Result<()> {
    let head = serde_json::to_vec(message).map_err(io::Error::other)?;
    let too_large = |_| io::Error::other("a message is too large");
    let head_length = u32::try_from(head.len()).map_err(too_large)?;
    let payload_length = u32::try_from(payload.len()).map_err(too_large)?;
    out.write_all(&head_length.to_be_bytes())?;
    out.write_all(&payload_length.to_be_bytes())?;
    out.write_all(&head)?;
    out.write_all(payload)?;
    out.flush()
}

/// Decodes the lengths of header and payload and checks them against their limits.
pub(crate) fn decode_lengths(bytes: [u8; 8]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, e, f, g, h] = bytes;
    let (head, payload) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    if head > MAX_HEAD_BYTES || payload > MAX_PAYLOAD_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a task's message is too large"));
    }
    Ok((head as usize, payload as usize))
}

/// Reads the job line, bounded, and no byte beyond it.
pub(crate) fn read_job(from: &mut impl Read) -> io::Result<Job> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        from.read_exact(&mut byte)?;
        let [read] = byte;
        if read == b'\n' {
            return serde_json::from_slice(&line).map_err(io::Error::other);
        }
        line.push(read);
        if line.len() as u64 > MAX_JOB_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a job is too long"));
        }
    }
}

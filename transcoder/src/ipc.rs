//! What a task process and its parent say to each other.
//!
//! Down the task's standard input, a socket: one line of JSON (the [`Job`]), then answers to the task's requests for
//! bytes of the source, which it writes into the same socket. Up its standard output, a pipe: messages, each with an
//! optional payload. Nothing else is open to a task.

use std::io::{self, Read, Write};

use lyceum_packaging::{Handover, MediaInfo, TaskSpec};
use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// The longest head of a message, in bytes.
pub(crate) const MAX_HEAD: u32 = 16 << 20;
/// The largest payload, in bytes.
pub(crate) const MAX_PAYLOAD: u32 = 256 << 20;
/// The longest line that starts a task, in bytes.
pub(crate) const MAX_JOB: u64 = 16 << 20;
/// The most bytes that a task asks for at once.
pub(crate) const MAX_READ: u32 = 1 << 20;
/// The length in an answer that says: the source can't be read now.
pub(crate) const SOURCE_FAILED: u32 = u32::MAX;

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The task.
    pub(crate) spec: TaskSpec,
    /// What it may use.
    pub(crate) limits: Limits,
    /// The size of the source, in bytes.
    pub(crate) source_bytes: u64,
}

/// What a task says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(crate) enum Message {
    /// An object; its bytes are the payload.
    Object {
        /// What it is.
        handover: Handover,
    },
    /// How far it is.
    Progress {
        /// 0 to 1.
        fraction: f64,
    },
    /// What a probe found.
    Report {
        /// The findings.
        info: MediaInfo,
    },
    /// The end: it can't be done.
    Failed(Failure),
    /// The end: all is handed over.
    Done,
}

/// Why a task could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
pub(crate) struct Failure {
    /// A stable code: `media_*` or `task_*`.
    pub(crate) code: String,
    /// One sentence.
    pub(crate) detail: String,
    /// Whether trying again may help.
    pub(crate) retry: bool,
}

impl Failure {
    /// A failure of the machinery, not of the recording: another try may help.
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
    /// From where.
    pub(crate) offset: u64,
    /// How many, at most [`MAX_READ`].
    pub(crate) length: u32,
}

impl ReadRequest {
    /// Its bytes on the socket.
    pub(crate) fn encode(self) -> [u8; 12] {
        let mut out = [0; 12];
        let (offset, length) = out.split_at_mut(8);
        offset.copy_from_slice(&self.offset.to_be_bytes());
        length.copy_from_slice(&self.length.to_be_bytes());
        out
    }

    /// From its bytes on the socket; a length out of bounds is refused.
    pub(crate) fn decode(bytes: [u8; 12]) -> io::Result<Self> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        let length = u32::from_be_bytes([i, j, k, l]);
        if length == 0 || length > MAX_READ {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a task asked for too much at once"));
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

/// The lengths of head and payload, checked against their bounds: what comes from a task is not trusted.
pub(crate) fn decode_lengths(bytes: [u8; 8]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, e, f, g, h] = bytes;
    let (head, payload) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    if head > MAX_HEAD || payload > MAX_PAYLOAD {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a task's message is too large"));
    }
    Ok((head as usize, payload as usize))
}

/// Reads the job: one line, bounded, and not one byte more.
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
        if line.len() as u64 > MAX_JOB {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a job is too long"));
        }
    }
}

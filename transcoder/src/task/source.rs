//! The source inside a task: bytes by offset, requested over the socket to the parent.
//!
//! A dedicated thread reads the socket, so that the process notices the end of its parent at once, whatever FFmpeg is
//! doing, and aborts. A task never outlives its parent.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::ipc::{MAX_READ_BYTES, ReadRequest, SOURCE_FAILED};

/// Standard input, which is a socket.
pub(crate) struct ParentSocket(UnixStream);

impl ParentSocket {
    /// Takes over standard input; aborts if it is not open, as there is no parent then.
    pub(crate) fn take() -> Self {
        match io::stdin().as_fd().try_clone_to_owned() {
            Ok(fd) => Self(UnixStream::from(fd)),
            Err(_) => std::process::abort(),
        }
    }
}

impl Read for ParentSocket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

type ReadReply = io::Result<Vec<u8>>;

/// The source. Cheap to clone; clones read one at a time.
#[derive(Clone)]
pub(crate) struct SourceHandle {
    link: Arc<Mutex<Link>>,
    size: u64,
    failed: Arc<AtomicBool>,
}

struct Link {
    requests: UnixStream,
    answers: Receiver<ReadReply>,
}

impl SourceHandle {
    /// Starts the thread that reads answers from `socket`.
    pub(crate) fn start(socket: ParentSocket, size: u64) -> Self {
        let (sender, answers) = sync_channel::<ReadReply>(1);
        let Ok(mut reader) = socket.0.try_clone() else { std::process::abort() };
        std::thread::spawn(move || {
            loop {
                match read_reply(&mut reader) {
                    Ok(answer) => drop(sender.send(answer)),
                    // The parent is gone, and there is nothing to clean up. An orderly exit could wait for threads that
                    // are busy in a codec.
                    Err(_) => std::process::abort(),
                }
            }
        });
        let link = Link { requests: socket.0, answers };
        Self { link: Arc::new(Mutex::new(link)), size, failed: Arc::default() }
    }

    /// The size of the source, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether a read has failed: the recording is not the cause of later errors.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// A reader from the start.
    pub(crate) fn reader(&self) -> SourceReader {
        SourceReader { source: self.clone(), at: 0 }
    }

    fn fetch(&self, offset: u64, length: u32) -> io::Result<Vec<u8>> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = link
            .requests
            .write_all(&ReadRequest { offset, length }.encode())
            .and_then(|()| link.answers.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())));
        if answer.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        answer
    }
}

fn read_reply(from: &mut UnixStream) -> io::Result<ReadReply> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length == SOURCE_FAILED {
        return Ok(Err(io::Error::other("the parent can't read the source")));
    }
    if length > MAX_READ_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(Ok(bytes))
}

/// A reader with a position in the source.
pub(crate) struct SourceReader {
    source: SourceHandle,
    at: u64,
}

impl Read for SourceReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.source.size.saturating_sub(self.at);
        let wanted = u64::from(MAX_READ_BYTES).min(left).min(into.len() as u64);
        if wanted == 0 {
            return Ok(0);
        }
        let bytes = self.source.fetch(self.at, u32::try_from(wanted).unwrap_or(MAX_READ_BYTES))?;
        let count = bytes.len().min(into.len());
        if let (Some(into), Some(bytes)) = (into.get_mut(..count), bytes.get(..count)) {
            into.copy_from_slice(bytes);
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for SourceReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.source.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

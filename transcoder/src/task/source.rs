//! The source as a task sees it: bytes by offset, asked for over the one socket to the parent.
//!
//! A thread of its own reads the socket, so that the end of the parent is seen at once, whatever FFmpeg is doing: the
//! process then ends itself. A task never outlives its parent.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::ipc::{MAX_READ, ReadRequest, SOURCE_FAILED};

/// Standard input, which is a socket.
pub(crate) struct Socket(UnixStream);

impl Socket {
    /// Takes standard input over. Without one that can be duplicated there is no parent to work for.
    pub(crate) fn take() -> Self {
        match io::stdin().as_fd().try_clone_to_owned() {
            Ok(fd) => Self(UnixStream::from(fd)),
            Err(_) => std::process::abort(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

type Answer = io::Result<Vec<u8>>;

/// The source. Cheap to clone; clones read one at a time.
#[derive(Clone)]
pub(crate) struct Source {
    link: Arc<Mutex<Link>>,
    size: u64,
    failed: Arc<AtomicBool>,
}

struct Link {
    requests: UnixStream,
    answers: Receiver<Answer>,
}

impl Source {
    /// Starts the thread that reads answers from `socket`.
    pub(crate) fn start(socket: Socket, size: u64) -> Self {
        let (sender, answers) = sync_channel::<Answer>(1);
        let Ok(mut reader) = socket.0.try_clone() else { std::process::abort() };
        std::thread::spawn(move || {
            loop {
                match read_answer(&mut reader) {
                    Ok(answer) => drop(sender.send(answer)),
                    // The parent is gone. Nothing is left to do, and nothing to clean up: an orderly exit could wait
                    // for threads that are deep inside a codec.
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

    /// Whether a read has failed for reasons that are not the recording's.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// A reader from the start.
    pub(crate) fn reader(&self) -> Reader {
        Reader { source: self.clone(), at: 0 }
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

fn read_answer(from: &mut UnixStream) -> io::Result<Answer> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length == SOURCE_FAILED {
        return Ok(Err(io::Error::other("the parent can't read the source")));
    }
    if length > MAX_READ {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(Ok(bytes))
}

/// A place in the source.
pub(crate) struct Reader {
    source: Source,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.source.size.saturating_sub(self.at);
        let wanted = u64::from(MAX_READ).min(left).min(into.len() as u64);
        if wanted == 0 {
            return Ok(0);
        }
        let bytes = self.source.fetch(self.at, u32::try_from(wanted).unwrap_or(MAX_READ))?;
        let count = bytes.len().min(into.len());
        if let (Some(into), Some(bytes)) = (into.get_mut(..count), bytes.get(..count)) {
            into.copy_from_slice(bytes);
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Reader {
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

//! Fewer system calls for HTTP/2 over TLS: what a connection writes during one poll is sent together at the poll's end.
//!
//! hyper flushes each frame by itself, which costs a system call a frame. While writes are held below TLS, records
//! collect in the buffer that TLS keeps anyway, without being copied; they leave in one vectored write at the end of the
//! poll, or as soon as there are [`MAX_HELD_BYTES`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::poll_readable::PollReadable;

/// As many bytes are worth a system call, and are still in the core's cache when the kernel copies them: more at once was
/// measured to cost more.
const MAX_HELD_BYTES: usize = 16 * 1024;

/// Whether writes are held. Set, read and released by one task.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteHold(Arc<HoldState>);

#[derive(Debug, Default)]
struct HoldState {
    set: AtomicBool,
    /// Whether TLS took nothing more while writes were held.
    blocked_writer: AtomicBool,
}

impl WriteHold {
    pub(crate) fn set(&self) {
        self.0.set.store(true, Ordering::Relaxed);
    }

    /// Lets writes through. Whether the connection may have stopped writing because of the hold alone.
    pub(crate) fn release(&self) -> bool {
        self.0.set.store(false, Ordering::Relaxed);
        self.0.blocked_writer.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.set.load(Ordering::Relaxed)
    }

    /// Notes whether a write to TLS was blocked by the hold.
    pub(crate) fn record_write<T>(&self, written: Poll<T>) -> Poll<T> {
        if written.is_pending() && self.is_set() {
            self.0.blocked_writer.store(true, Ordering::Relaxed);
        }
        written
    }
}

/// A socket below TLS whose writes can be held.
#[derive(Debug)]
pub(crate) struct CoalescingStream<S> {
    socket: S,
    hold: WriteHold,
}

impl<S> CoalescingStream<S> {
    pub(crate) fn new(socket: S, hold: WriteHold) -> Self {
        Self { socket, hold }
    }

    /// A held write needs no waker: who set the hold polls the connection again after releasing it.
    fn is_held(&self, bytes: usize) -> bool {
        bytes < MAX_HELD_BYTES && self.hold.is_set()
    }
}

impl<S: PollReadable> PollReadable for CoalescingStream<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_readable(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CoalescingStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CoalescingStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_held(buf.len()) {
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_held(bufs.iter().map(|buf| buf.len()).sum()) {
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

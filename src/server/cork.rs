//! Fewer writes for HTTP/2 over TLS: what a connection writes while it is polled goes out together when it has been.
//!
//! An HTTP/2 implementation flushes each frame by itself, which costs a system call a frame. Held up by a cork below
//! TLS, records gather where TLS keeps them anyway, without being copied; they leave in one vectored write at the end of
//! the poll, or as soon as [`ENOUGH`] of them are there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::awaited::Awaited;

/// Bytes that are worth a system call of their own, and are still in the core's cache when the kernel copies them: more
/// at once was measured to cost more.
const ENOUGH: usize = 16 * 1024;

/// Whether writes are held up. One task sets, sees and lifts it.
#[derive(Clone, Debug, Default)]
pub(super) struct Cork(Arc<State>);

#[derive(Debug, Default)]
struct State {
    set: AtomicBool,
    /// Whether TLS took nothing more while it was set.
    stopped: AtomicBool,
}

impl Cork {
    pub(super) fn set(&self) {
        self.0.set.store(true, Ordering::Relaxed);
    }

    /// Whether the connection may have stopped for the cork alone.
    pub(super) fn lift(&self) -> bool {
        self.0.set.store(false, Ordering::Relaxed);
        self.0.stopped.swap(false, Ordering::Relaxed)
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.set.load(Ordering::Relaxed)
    }

    pub(super) fn noted<T>(&self, written: Poll<T>) -> Poll<T> {
        if written.is_pending() && self.is_set() {
            self.0.stopped.store(true, Ordering::Relaxed);
        }
        written
    }
}

/// A socket below TLS whose writes the cork holds up.
#[derive(Debug)]
pub(super) struct Corked<S> {
    socket: S,
    cork: Cork,
}

impl<S> Corked<S> {
    pub(super) fn new(socket: S, cork: Cork) -> Self {
        Self { socket, cork }
    }

    /// Nobody is to be woken: who set the cork writes on when it is lifted.
    fn holds_up(&self, bytes: usize) -> bool {
        bytes < ENOUGH && self.cork.is_set()
    }
}

impl<S: Awaited> Awaited for Corked<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_readable(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.holds_up(buf.len()) {
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.holds_up(bufs.iter().map(|buf| buf.len()).sum()) {
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

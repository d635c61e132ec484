//! Watches a connection for life: bytes that move, and requests under way.
//!
//! hyper's own header timeout begins with a request's first byte, so a connection that never speaks, a reader
//! that stops reading and an HTTP/2 window that stays shut are noticed here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection did, shared between its socket, its requests and its watch.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    moved: AtomicU64,
    requests: AtomicUsize,
}

/// A request under way; the connection is not idle while it lives.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Pulse>);

impl Pulse {
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    fn beat(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns when nothing has moved for `idle` with no request under way, or for `stall` with one.
    pub(crate) async fn stopped(&self, idle: Duration, stall: Duration) {
        let step = idle.min(stall).max(Duration::from_millis(200)) / 4;
        let (mut seen, mut still) = (self.moved.load(Ordering::Relaxed), Duration::ZERO);
        loop {
            tokio::time::sleep(step).await;
            let now = self.moved.load(Ordering::Relaxed);
            if now != seen {
                (seen, still) = (now, Duration::ZERO);
                continue;
            }
            still += step;
            let limit = if self.requests.load(Ordering::Relaxed) == 0 { idle } else { stall };
            if still >= limit {
                return;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        // The end of a request starts the idle time anew.
        self.0.beat(1);
    }
}

/// A socket that reports to a [`Pulse`], with bytes in front that were read to tell the protocol.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    socket: S,
    first: Bytes,
    pulse: Arc<Pulse>,
}

impl<S> Watched<S> {
    pub(crate) fn new(socket: S, first: Bytes, pulse: Arc<Pulse>) -> Self {
        Self { socket, first, pulse }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let n = self.first.len().min(buf.remaining());
            buf.put_slice(self.first.get(..n).unwrap_or_default());
            self.first.advance(n);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            self.pulse.beat(read);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &polled {
            self.pulse.beat(*n);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.wrote(polled)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::monotonic;

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_sooner_than_a_waiting_request() {
        let pulse = Arc::new(Pulse::default());
        let start = monotonic();
        pulse.stopped(Duration::from_secs(4), Duration::from_secs(40)).await;
        assert!((4..8).contains(&start.elapsed().as_secs()));

        let busy = pulse.busy();
        let start = monotonic();
        pulse.stopped(Duration::from_secs(4), Duration::from_secs(40)).await;
        assert!((40..44).contains(&start.elapsed().as_secs()));
        drop(busy);
    }
}

//! The stream that an HTTP/2 connection lives on: sends what was written in one poll together, and outlives the
//! connection, which is dropped while nothing is under way and made anew when its client speaks again.
//!
//! What is dropped is most of what an idle connection would hold: buffers to read and to write, tables of header
//! compression, places for streams. What the next one has to know is in the [`Ledger`].

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::awaited::Awaited;
use super::cork::Cork;
use super::ledger::Ledger;

/// Bytes that are read at once where frames are picked out of them. There are few.
const SIFTED: usize = 1024;

/// A stream that a connection writes to and that is flushed from beside it. Both happen in one task, so its lock is
/// never waited for.
#[derive(Debug)]
pub(super) struct Gathered<S> {
    inner: Arc<Mutex<Inner<S>>>,
    cork: Option<Cork>,
}

#[derive(Debug)]
struct Inner<S> {
    stream: S,
    ledger: Ledger,
    /// Read and sifted, not yet taken.
    sifted: BytesMut,
    /// Whether the stream had no more when it was read last.
    drained: bool,
    /// Whether the connection is to be dropped as soon as nothing is under way.
    to_rest: bool,
    /// While a new connection is told what it has to know: that, and what it says.
    retold: Option<(BytesMut, Vec<u8>)>,
}

/// Where a connection is after it was polled.
pub(super) enum Polled<T> {
    /// It ended.
    Done(T),
    /// Nothing is under way and nothing would be lost with it.
    Rests,
}

impl<S> Clone for Gathered<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), cork: self.cork.clone() }
    }
}

impl<S> Gathered<S> {
    /// `cork` is the one below `stream`. A stream without has nothing to flush.
    pub(super) fn new(stream: S, cork: Option<Cork>) -> Self {
        let inner = Inner {
            stream,
            ledger: Ledger::new(),
            sifted: BytesMut::new(),
            drained: false,
            to_rest: false,
            retold: None,
        };
        Self { inner: Arc::new(Mutex::new(inner)), cork }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.lock().ledger.requests()
    }
}

impl<S: Awaited> Awaited for Gathered<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().stream.poll_readable(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gathered<S> {
    /// Polls the connection that writes to this stream, and sends what it wrote.
    pub(super) fn poll<F: Future>(
        &self,
        mut connection: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Polled<F::Output>>> {
        let (polled, stopped) = match &self.cork {
            Some(cork) => {
                cork.set();
                (connection.as_mut().poll(cx), cork.lift())
            }
            None => (connection.as_mut().poll(cx), false),
        };
        let mut inner = self.lock();
        let flushed = match &self.cork {
            Some(_) => Pin::new(&mut inner.stream).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        };
        if let Poll::Ready(done) = polled {
            return Poll::Ready(Ok(Polled::Done(done)));
        }
        ready!(flushed)?;
        if stopped {
            // There is room again, and no socket will say so.
            cx.waker().wake_by_ref();
        } else if inner.may_rest() {
            return Poll::Ready(Ok(Polled::Rests));
        }
        Poll::Pending
    }

    /// Has the connection rest as soon as its client has forgotten what header compression had it learn, unless something
    /// is under way.
    pub(super) fn poll_seek_rest(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let inner = &mut *self.lock();
        if !inner.is_quiet() {
            return Ok(());
        }
        inner.to_rest = true;
        if let Some(frames) = inner.ledger.clearing()
            && inner.send(cx, &frames)?
        {
            inner.ledger.asked_to_clear();
        }
        Ok(())
    }

    /// Tells a new connection what the one before it knew. The client hears nothing of it.
    pub(super) fn poll_take_up<F: Future>(&self, connection: Pin<&mut F>, cx: &mut Context<'_>) -> io::Result<()> {
        {
            let inner = &mut *self.lock();
            inner.to_rest = false;
            inner.retold = Some((inner.ledger.retold(), Vec::new()));
        }
        let ended = connection.poll(cx).is_ready();
        let inner = &mut *self.lock();
        let (unheard, said) = inner.retold.take().unwrap_or_default();
        if ended || !unheard.is_empty() || !inner.ledger.taken_up(&said) {
            return Err(io::Error::other("a connection was not taken up as it was left"));
        }
        if let Some((frame, missing)) = inner.ledger.missing()
            && inner.send(cx, &frame)?
        {
            inner.ledger.granted(missing);
        }
        Ok(())
    }

    /// Ends a connection that rests, and tells its client that nothing was lost.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let inner = &mut *self.lock();
        let frame = inner.ledger.goaway();
        inner.send(cx, &frame)?;
        // A client that takes nothing is not waited for.
        let _ = Pin::new(&mut inner.stream).poll_shutdown(cx)?;
        Ok(())
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    /// Sends a frame or two between those of a connection, which has none half sent, unless there is no room for them.
    /// Whatever is polled next flushes them.
    fn send(&mut self, cx: &mut Context<'_>, frames: &[u8]) -> io::Result<bool> {
        match Pin::new(&mut self.stream).poll_write(cx, frames) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(sent)) if sent == frames.len() => {}
            Poll::Ready(Ok(_)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Err(cause)) => return Err(cause),
        }
        let _ = Pin::new(&mut self.stream).poll_flush(cx)?;
        Ok(true)
    }
}

impl<S> Inner<S> {
    fn is_quiet(&self) -> bool {
        self.drained && self.sifted.is_empty() && self.ledger.is_quiet()
    }

    fn may_rest(&self) -> bool {
        self.to_rest && self.ledger.is_clear() && self.is_quiet()
    }
}

impl<S: AsyncRead + Unpin> Inner<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some((told, _)) = &mut self.retold {
            if told.is_empty() {
                return Poll::Pending;
            }
            give(told, buf);
            return Poll::Ready(Ok(()));
        }
        if self.sifted.is_empty() && !self.ledger.sifts() {
            let before = buf.filled().len();
            let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
            self.drained = polled.is_pending();
            self.ledger.hear(buf.filled().get(before..).unwrap_or_default());
            return polled;
        }
        while self.sifted.is_empty() {
            let mut bytes = [0; SIFTED];
            let mut read = ReadBuf::new(&mut bytes);
            let polled = Pin::new(&mut self.stream).poll_read(cx, &mut read);
            self.drained = polled.is_pending();
            ready!(polled)?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.ledger.sift(read.filled(), &mut self.sifted);
        }
        give(&mut self.sifted, buf);
        if self.sifted.is_empty() {
            self.sifted = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

fn give(from: &mut BytesMut, to: &mut ReadBuf<'_>) {
    let piece = from.split_to(from.len().min(to.remaining()));
    to.put_slice(&piece);
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *self.lock();
        if let Some((_, said)) = &mut inner.retold {
            bufs.iter().for_each(|buf| said.extend_from_slice(buf));
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let written = Pin::new(&mut inner.stream).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(mut left)) = written {
            for buf in bufs {
                let (said, _) = buf.split_at(left.min(buf.len()));
                inner.ledger.say(said);
                left -= said.len();
            }
        }
        match &self.cork {
            Some(cork) => cork.noted(written),
            None => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        if inner.retold.is_some() || self.cork.as_ref().is_some_and(Cork::is_set) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut inner.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The last that is written, and nobody is left to flush it.
        let _ = self.cork.as_ref().map(Cork::lift);
        Pin::new(&mut self.lock().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A socket that takes nothing more.
    struct Full;

    impl AsyncRead for Full {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Full {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_socket_in_the_clear_that_is_full_is_waited_for_and_not_asked_again_and_again() {
        let gathered = Gathered::new(Full, None);
        let mut writes = gathered.clone();
        let mut connection = Box::pin(poll_fn(|cx| Pin::new(&mut writes).poll_write(cx, b"more")));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert!(gathered.poll(connection.as_mut(), &mut Context::from_waker(&waker)).is_pending());
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    }
}

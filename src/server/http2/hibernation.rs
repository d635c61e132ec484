//! The stream below hyper's HTTP/2 connection. It sends together what is written in one poll, and outlives the
//! connection, which is dropped while nothing is under way and replaced when the client speaks again.
//!
//! Dropping it frees most of an idle connection's memory: buffers to read and to write, header compression tables, stream
//! state. What the next connection has to know is in [`PeerState`].

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http2::peer_state::PeerState;
use crate::http2::write_coalescing::WriteHold;
use crate::io::poll_readable::PollReadable;

/// Bytes of one read whose frames are filtered; few have to be.
const FILTERED_READ_BYTES: usize = 1024;

/// A stream that hyper's connection owns a clone of, and whose other clone polls that connection. Both are used in one
/// task, so the lock is never contended.
#[derive(Debug)]
pub(crate) struct HibernatingStream<S> {
    state: Arc<Mutex<State<S>>>,
    hold: Option<WriteHold>,
}

#[derive(Debug)]
struct State<S> {
    stream: S,
    peer: PeerState,
    /// Read and filtered, not yet given to the connection.
    filtered: BytesMut,
    /// Whether the last read was pending.
    drained: bool,
    /// Whether the connection is to hibernate as soon as nothing is under way.
    hibernation_wanted: bool,
    /// During a replay: what the new connection still has to read, and what it has written.
    replay: Option<(BytesMut, Vec<u8>)>,
}

/// A connection's state after it was polled.
pub(crate) enum Polled<T> {
    /// It has ended.
    Done(T),
    /// It may be dropped: nothing is under way, and a replay can restore it.
    Hibernate,
}

impl<S> Clone for HibernatingStream<S> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), hold: self.hold.clone() }
    }
}

impl<S> HibernatingStream<S> {
    /// `hold` is the one below the TLS of `stream`; a stream without TLS has none, and nothing to flush.
    pub(crate) fn new(stream: S, hold: Option<WriteHold>) -> Self {
        let state = State {
            stream,
            peer: PeerState::new(),
            filtered: BytesMut::new(),
            drained: false,
            hibernation_wanted: false,
            replay: None,
        };
        Self { state: Arc::new(Mutex::new(state)), hold }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.lock().peer.requests()
    }
}

impl<S: PollReadable> PollReadable for HibernatingStream<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().stream.poll_readable(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> HibernatingStream<S> {
    /// Polls the connection on this stream, and sends what it wrote.
    pub(crate) fn poll<F: Future>(
        &self,
        mut connection: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Polled<F::Output>>> {
        let (polled, stopped) = match &self.hold {
            Some(hold) => {
                hold.set();
                (connection.as_mut().poll(cx), hold.release())
            }
            None => (connection.as_mut().poll(cx), false),
        };
        let mut state = self.lock();
        let flushed = match &self.hold {
            Some(_) => Pin::new(&mut state.stream).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        };
        if let Poll::Ready(done) = polled {
            return Poll::Ready(Ok(Polled::Done(done)));
        }
        ready!(flushed)?;
        if stopped {
            // The connection can write again, and no socket will wake it.
            cx.waker().wake_by_ref();
        } else if state.may_hibernate() {
            return Poll::Ready(Ok(Polled::Hibernate));
        }
        Poll::Pending
    }

    /// Asks the client to empty its header table, after which the connection hibernates; nothing if something is under
    /// way.
    pub(crate) fn poll_seek_hibernation(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let state = &mut *self.lock();
        if !state.is_idle() {
            return Ok(());
        }
        state.hibernation_wanted = true;
        if let Some(frames) = state.peer.table_clear_request()
            && state.send(cx, &frames)?
        {
            state.peer.record_clear_requested();
        }
        Ok(())
    }

    /// Replays to a new connection what the one before it knew. The client does not notice.
    pub(crate) fn poll_resume<F: Future>(&self, connection: Pin<&mut F>, cx: &mut Context<'_>) -> io::Result<()> {
        {
            let state = &mut *self.lock();
            state.hibernation_wanted = false;
            state.replay = Some((state.peer.replay(), Vec::new()));
        }
        let ended = connection.poll(cx).is_ready();
        let state = &mut *self.lock();
        let (unread, written) = state.replay.take().unwrap_or_default();
        if ended || !unread.is_empty() || !state.peer.finish_replay(&written) {
            return Err(io::Error::other("an HTTP/2 connection could not be restored after hibernation"));
        }
        if let Some((frame, missing)) = state.peer.unreturned_window()
            && state.send(cx, &frame)?
        {
            state.peer.record_window_returned(missing);
        }
        Ok(())
    }

    /// Ends a connection that hibernates with a GOAWAY.
    pub(crate) fn poll_close(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let state = &mut *self.lock();
        let frame = state.peer.goaway();
        state.send(cx, &frame)?;
        // Nothing waits for a client that reads nothing.
        let _ = Pin::new(&mut state.stream).poll_shutdown(cx)?;
        Ok(())
    }
}

impl<S: AsyncWrite + Unpin> State<S> {
    /// Sends frames between those of the connection, which has none half sent; false if the stream takes none now. They
    /// are flushed by the next poll at the latest.
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

impl<S> State<S> {
    fn is_idle(&self) -> bool {
        self.drained && self.filtered.is_empty() && self.peer.is_idle()
    }

    fn may_hibernate(&self) -> bool {
        self.hibernation_wanted && self.peer.is_table_empty() && self.is_idle()
    }
}

impl<S: AsyncRead + Unpin> State<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some((unread, _)) = &mut self.replay {
            if unread.is_empty() {
                return Poll::Pending;
            }
            move_bytes(unread, buf);
            return Poll::Ready(Ok(()));
        }
        if self.filtered.is_empty() && !self.peer.needs_filter() {
            let before = buf.filled().len();
            let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
            self.drained = polled.is_pending();
            self.peer.record_received(buf.filled().get(before..).unwrap_or_default());
            return polled;
        }
        while self.filtered.is_empty() {
            let mut bytes = [0; FILTERED_READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            let polled = Pin::new(&mut self.stream).poll_read(cx, &mut read);
            self.drained = polled.is_pending();
            ready!(polled)?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.peer.filter_received(read.filled(), &mut self.filtered);
        }
        move_bytes(&mut self.filtered, buf);
        if self.filtered.is_empty() {
            self.filtered = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

fn move_bytes(from: &mut BytesMut, to: &mut ReadBuf<'_>) {
    let piece = from.split_to(from.len().min(to.remaining()));
    to.put_slice(&piece);
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for HibernatingStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HibernatingStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.lock();
        if let Some((_, written)) = &mut state.replay {
            bufs.iter().for_each(|buf| written.extend_from_slice(buf));
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let written = Pin::new(&mut state.stream).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(mut left)) = written {
            for buf in bufs {
                let (sent, _) = buf.split_at(left.min(buf.len()));
                state.peer.record_sent(sent);
                left -= sent.len();
            }
        }
        match &self.hold {
            Some(hold) => hold.record_write(written),
            None => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if state.replay.is_some() || self.hold.as_ref().is_some_and(WriteHold::is_set) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut state.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The last write, which no poll flushes any more.
        let _ = self.hold.as_ref().map(WriteHold::release);
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

    /// A socket whose buffer is full.
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
    fn a_full_socket_without_tls_does_not_wake_its_connection_at_once() {
        let stream = HibernatingStream::new(Full, None);
        let mut writes = stream.clone();
        let mut connection = Box::pin(poll_fn(|cx| Pin::new(&mut writes).poll_write(cx, b"more")));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert!(stream.poll(connection.as_mut(), &mut Context::from_waker(&waker)).is_pending());
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    }
}

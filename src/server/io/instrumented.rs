//! The stream that hyper reads and writes: counts every byte in the connection's [`Activity`], gives out first the bytes
//! that were read to find out the protocol, and inserts prepared heads.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::activity::Activity;
use crate::http1::prepared_head::PreparedHead;
use crate::io::poll_readable::PollReadable;

/// A stream that counts its bytes.
#[derive(Debug)]
pub(crate) struct Instrumented<S> {
    socket: S,
    /// Read from the socket and not yet given out.
    read_ahead: Bytes,
    /// The head that is being written.
    prepared_head: Option<PreparedHead>,
    activity: Arc<Activity>,
}

impl<S> Instrumented<S> {
    pub(crate) fn new(socket: S, read_ahead: Bytes, activity: Arc<Activity>) -> Self {
        Self { socket, read_ahead, prepared_head: None, activity }
    }

    /// The counters.
    pub(crate) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    /// Puts back bytes that were read and not used.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.read_ahead = if self.read_ahead.is_empty() {
                bytes
            } else {
                [bytes, std::mem::take(&mut self.read_ahead)].concat().into()
            };
        }
    }
}

impl<S: PollReadable> PollReadable for Instrumented<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.read_ahead.is_empty() { self.socket.poll_readable(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Instrumented<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read_ahead.is_empty() {
            let n = self.read_ahead.len().min(buf.remaining());
            buf.put_slice(self.read_ahead.get(..n).unwrap_or_default());
            self.read_ahead.advance(n);
            self.activity.record_read(n);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            self.activity.record_read(read);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Instrumented<S> {
    fn record(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.set_write_blocked(polled.is_pending());
        if let Poll::Ready(Ok(n)) = &polled {
            self.activity.record_written(*n);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Instrumented<S> {
    fn has_prepared_head(&mut self) -> bool {
        if self.prepared_head.is_none() {
            self.prepared_head = self.activity.take_prepared_head();
        }
        self.prepared_head.is_some()
    }

    fn poll_write_prepared(&mut self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(prepared_head) = &mut self.prepared_head else { return Poll::Ready(Ok(0)) };
        let polled = prepared_head.poll_write(Pin::new(&mut self.socket), cx, bufs);
        if prepared_head.is_sent() {
            self.prepared_head = None;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Instrumented<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match self.has_prepared_head() {
            true => self.poll_write_prepared(cx, &[io::IoSlice::new(buf)]),
            false => Pin::new(&mut self.socket).poll_write(cx, buf),
        };
        self.record(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match self.has_prepared_head() {
            true => self.poll_write_prepared(cx, bufs),
            false => Pin::new(&mut self.socket).poll_write_vectored(cx, bufs),
        };
        self.record(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.record_flushed();
        let polled = Pin::new(&mut self.socket).poll_flush(cx);
        self.activity.set_write_blocked(polled.is_pending());
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::activity::InFlightRequest;
    use crate::http1::prepared_head::STATUS_LINE_200;

    #[tokio::test]
    async fn a_prepared_head_is_inserted_only_where_nothing_else_can_come_before_it() {
        let activity = Arc::new(Activity::default());
        let (client, mut got) = tokio::io::duplex(1 << 10);
        let mut socket = Instrumented::new(client, Bytes::new(), Arc::clone(&activity));
        let first = activity.begin_request();
        let head = |text: &str| [STATUS_LINE_200, text.as_bytes()].concat();
        let offer = |request: &InFlightRequest, text: &str| {
            let mut head = head(text);
            request.offer_prepared_head(&mut head);
            head.is_empty()
        };
        assert!(offer(&first, "a: 1\r\n"));
        let hyper_head = head("content-length: 0\r\ndate: now\r\n\r\n");
        socket.write_all(&hyper_head).await.unwrap();
        drop(first);
        let next = activity.begin_request();
        assert!(!offer(&next, "a: 2\r\n"), "the first response may not be sent yet");
        socket.flush().await.unwrap();
        assert!(offer(&next, "a: 3\r\n"));
        socket.write_all(&hyper_head).await.unwrap();
        socket.write_all(b"rest").await.unwrap();
        drop(socket);
        let mut all = Vec::new();
        got.read_to_end(&mut all).await.unwrap();
        let heads = [head("a: 1\r\ncontent-length: 0\r\n\r\n"), head("a: 3\r\ncontent-length: 0\r\n\r\nrest")];
        assert_eq!(String::from_utf8_lossy(&all), String::from_utf8_lossy(&heads.concat()));
    }
}

//! A connection's socket as its connection sees it: tells the pulse of every byte, gives first what was read to tell the
//! protocol, and puts heads that were written beforehand where they belong.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::awaited::Awaited;
use super::lines::Lines;
use super::pulse::Pulse;

/// A socket that reports to a [`Pulse`], with bytes in front that were read to tell the protocol.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    socket: S,
    first: Bytes,
    /// What goes behind the status line that is being written.
    lines: Option<Lines>,
    pulse: Arc<Pulse>,
}

impl<S> Watched<S> {
    pub(crate) fn new(socket: S, first: Bytes, pulse: Arc<Pulse>) -> Self {
        Self { socket, first, lines: None, pulse }
    }

    /// What it reports to.
    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Puts back what was read and not used.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.first =
                if self.first.is_empty() { bytes } else { [bytes, std::mem::take(&mut self.first)].concat().into() };
        }
    }
}

impl<S: Awaited> Awaited for Watched<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() { self.socket.poll_readable(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let n = self.first.len().min(buf.remaining());
            buf.put_slice(self.first.get(..n).unwrap_or_default());
            self.first.advance(n);
            self.pulse.heard(n);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            self.pulse.heard(read);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.pulse.waits(polled.is_pending());
        if let Poll::Ready(Ok(n)) = &polled {
            self.pulse.wrote(*n);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    fn is_lined(&mut self) -> bool {
        if self.lines.is_none() {
            self.lines = self.pulse.lines();
        }
        self.lines.is_some()
    }

    fn poll_write_lined(&mut self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(lines) = &mut self.lines else { return Poll::Ready(Ok(0)) };
        let polled = lines.poll_write(Pin::new(&mut self.socket), cx, bufs);
        if lines.have_gone() {
            self.lines = None;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match self.is_lined() {
            true => self.poll_write_lined(cx, &[io::IoSlice::new(buf)]),
            false => Pin::new(&mut self.socket).poll_write(cx, buf),
        };
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match self.is_lined() {
            true => self.poll_write_lined(cx, bufs),
            false => Pin::new(&mut self.socket).poll_write_vectored(cx, bufs),
        };
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pulse.flushed();
        let polled = Pin::new(&mut self.socket).poll_flush(cx);
        self.pulse.waits(polled.is_pending());
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::pulse::Busy;
    use super::*;

    #[tokio::test]
    async fn a_head_is_put_into_place_only_where_nothing_else_can_come_before_it() {
        let pulse = Arc::new(Pulse::default());
        let (client, mut got) = tokio::io::duplex(1 << 10);
        let mut socket = Watched::new(client, Bytes::new(), Arc::clone(&pulse));
        let first = pulse.busy();
        let lines = |text: &str| [super::super::BEGINNING, text.as_bytes()].concat();
        let lines_up = |busy: &Busy, text: &str| {
            let mut head = lines(text);
            busy.line_up(&mut head);
            head.is_empty()
        };
        assert!(lines_up(&first, "a: 1\r\n"));
        let head = lines("content-length: 0\r\ndate: now\r\n\r\n");
        socket.write_all(&head).await.unwrap();
        drop(first);
        let next = pulse.busy();
        assert!(!lines_up(&next, "a: 2\r\n"), "the first may not be out");
        socket.flush().await.unwrap();
        assert!(lines_up(&next, "a: 3\r\n"));
        socket.write_all(&head).await.unwrap();
        socket.write_all(b"rest").await.unwrap();
        drop(socket);
        let mut all = Vec::new();
        got.read_to_end(&mut all).await.unwrap();
        let heads = [lines("a: 1\r\ncontent-length: 0\r\n\r\n"), lines("a: 3\r\ncontent-length: 0\r\n\r\nrest")];
        assert_eq!(String::from_utf8_lossy(&all), String::from_utf8_lossy(&heads.concat()));
    }
}

//! A connection without TLS: small writes of several buffers are copied into one.
//!
//! A response's head and its body are two buffers. For a small response, copying them together costs less than what the
//! kernel does for a vectored write.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::poll_readable::PollReadable;
use crate::io::tcp_socket::DirectTcpStream;

/// Vectored writes of up to this many bytes are copied into one buffer.
const MAX_COALESCED_BYTES: usize = 4096;

thread_local! {
    /// That buffer. The kernel has copied it when the write returns.
    static COALESCED: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(MAX_COALESCED_BYTES));
}

/// A TCP stream whose data is not encrypted.
#[derive(Debug)]
pub(crate) struct Plaintext(pub(crate) DirectTcpStream);

impl PollReadable for Plaintext {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_readable(cx)
    }
}

impl AsyncRead for Plaintext {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Plaintext {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.len() < 2 || bufs.iter().map(|buf| buf.len()).sum::<usize>() > MAX_COALESCED_BYTES {
            return Pin::new(&mut self.0).poll_write_vectored(cx, bufs);
        }
        COALESCED.with_borrow_mut(|coalesced| {
            coalesced.clear();
            bufs.iter().for_each(|buf| coalesced.extend_from_slice(buf));
            Pin::new(&mut self.0).poll_write(cx, coalesced)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

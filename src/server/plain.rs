//! A socket in the clear: few bytes in several pieces leave it as one.
//!
//! A response's head and its small body are two pieces. The kernel takes a vector of them with more ado than copying
//! them together costs.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::awaited::Awaited;
use super::socket::Socket;

/// As many bytes as are put together.
const FEW: usize = 4096;

thread_local! {
    /// Where they are. A write copies them on before it returns.
    static TOGETHER: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(FEW));
}

/// A socket.
#[derive(Debug)]
pub(super) struct Plain(pub(super) Socket);

impl Awaited for Plain {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_readable(cx)
    }
}

impl AsyncRead for Plain {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.len() < 2 || bufs.iter().map(|buf| buf.len()).sum::<usize>() > FEW {
            return Pin::new(&mut self.0).poll_write_vectored(cx, bufs);
        }
        TOGETHER.with_borrow_mut(|together| {
            together.clear();
            bufs.iter().for_each(|buf| together.extend_from_slice(buf));
            Pin::new(&mut self.0).poll_write(cx, together)
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

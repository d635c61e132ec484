//! Sockets that can be waited for without a buffer to read into: what an idle connection needs.

use std::io;
use std::task::{Context, Poll};

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A socket that says when there is something to read. What it had already read itself, it does not tell.
pub(crate) trait Awaited {
    /// Ready once a read may bring something: bytes, the end, or an error.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Awaited for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }
}

impl<S: Awaited> Awaited for TlsStream<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_ref().0.poll_readable(cx)
    }
}

impl<S: Awaited> Awaited for Box<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_ref().poll_readable(cx)
    }
}

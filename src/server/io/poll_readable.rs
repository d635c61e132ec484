//! Waiting for a socket to become readable without a buffer to read into: all that an idle connection needs.

use std::io;
use std::task::{Context, Poll};

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A stream that tells when its socket has something to read. Data that a layer such as TLS has already read from the
/// socket does not count.
pub(crate) trait PollReadable {
    /// Ready once a read may bring something: bytes, the end, or an error.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl PollReadable for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }
}

impl<S: PollReadable> PollReadable for TlsStream<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_ref().0.poll_readable(cx)
    }
}

impl<S: PollReadable> PollReadable for Box<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_ref().poll_readable(cx)
    }
}

//! Response heads of HTTP/1.1 that are encoded before hyper sees the response.
//!
//! hyper takes fields as a map and writes them one by one: a dozen hashes and four copies each for what is the same in
//! every response from the cache. A response with a prepared head is given to hyper without those fields; the socket
//! inserts their lines between hyper's status line and the fields that hyper adds (connection, body length).
//!
//! That is done only where the next byte that hyper writes must begin a response: see
//! [`offer_prepared_head`](crate::activity::InFlightRequest::offer_prepared_head). Should hyper write anything but the
//! expected status line, the connection ends before any of it is sent.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::AsyncWrite;

/// What a prepared head begins with.
pub const STATUS_LINE_200: &[u8] = b"HTTP/1.1 200 OK\r\n";
/// hyper adds this field to a response that lacks it; a prepared head has it already.
const DATE_PREFIX: &[u8] = b"date: ";
/// Length of the date's line (RFC 9110, section 5.6.7) and of the empty line after it.
const DATE_END_BYTES: usize = DATE_PREFIX.len() + 29 + 4;
/// Slices handed to the socket in one write.
const MAX_SLICES: usize = 8;

/// A head that is being written to a socket.
#[derive(Debug)]
pub(crate) struct PreparedHead {
    text: Vec<u8>,
    /// Length of the head that hyper wrote; 0 until it has.
    hyper_head_bytes: usize,
    /// Bytes of `text` that are sent.
    sent: usize,
}

impl PreparedHead {
    /// `text` is [`STATUS_LINE_200`] and whole lines, each with its line end.
    pub(crate) fn new(text: Vec<u8>) -> Self {
        Self { text, hyper_head_bytes: 0, sent: 0 }
    }

    /// Whether all of it is sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.hyper_head_bytes > 0 && self.sent == self.text.len()
    }

    /// Writes `bufs`, the first of which is hyper's head, with the prepared lines inserted. Gives the number of bytes of
    /// `bufs` that are sent: none before all of the head is.
    pub(crate) fn poll_write(
        &mut self,
        mut socket: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some((head, body)) = bufs.split_first() else { return Poll::Ready(Ok(0)) };
        if self.hyper_head_bytes == 0 && !self.merge(head) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "hyper did not write the expected status line",
            )));
        }
        loop {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let left = self.text.get(self.sent..).unwrap_or_default();
            let first = IoSlice::new(left);
            slices.iter_mut().zip(std::iter::once(&first).chain(body)).for_each(|(slot, buf)| *slot = *buf);
            let count = (1 + body.len()).min(MAX_SLICES);
            let written = ready!(socket.as_mut().poll_write_vectored(cx, slices.get(..count).unwrap_or_default()))?;
            let of_body = written.saturating_sub(left.len());
            self.sent += written - of_body;
            if written == 0 {
                return Poll::Ready(Ok(0));
            }
            if self.is_sent() {
                return Poll::Ready(Ok(self.hyper_head_bytes + of_body));
            }
        }
    }

    /// Appends the lines of hyper's head; false if it is not the expected one.
    fn merge(&mut self, head: &[u8]) -> bool {
        let Some(fields) = head.strip_prefix(STATUS_LINE_200).filter(|fields| fields.ends_with(b"\r\n\r\n")) else {
            return false;
        };
        match fields.len().checked_sub(DATE_END_BYTES).and_then(|at| fields.split_at_checked(at)) {
            // hyper usually writes the date last.
            Some((others, end)) if end.starts_with(DATE_PREFIX) && others.last().is_none_or(|byte| *byte == b'\n') => {
                self.text.extend_from_slice(others);
                self.text.extend_from_slice(b"\r\n");
            }
            _ => {
                let lines = fields.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(DATE_PREFIX));
                lines.for_each(|line| self.text.extend_from_slice(line));
            }
        }
        self.hyper_head_bytes = head.len();
        true
    }
}

/// The fields of a prepared head, for a response whose head hyper has to encode.
pub(crate) fn parse_fields(lines: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\r")) {
        if let Some((name, value)) = line.iter().position(|byte| *byte == b':').and_then(|at| line.split_at_checked(at))
            && let (Ok(name), Some(value)) = (HeaderName::from_bytes(name), value.strip_prefix(b": "))
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            fields.append(name, value);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINES: &[u8] = b"age: 7\r\ndate: then\r\nvary: a\r\nvary: b: c\r\nx-empty: \r\n";

    /// A socket that takes as many bytes a write as `steps` say, in turn; 0 is pending.
    struct Slow {
        steps: Vec<usize>,
        at: usize,
        got: Vec<u8>,
    }

    impl AsyncWrite for Slow {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.at += 1;
            let step = self.steps.get(self.at % self.steps.len()).copied().unwrap_or(1);
            if step == 0 {
                return Poll::Pending;
            }
            let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.to_vec()).take(step).collect();
            self.got.extend_from_slice(&bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn lines_follow_the_status_line_however_little_the_socket_takes(
            steps in prop::collection::vec(0_usize..40, 1..12), early in any::<bool>(),
        ) {
            prop_assume!(steps.iter().any(|step| *step > 0));
            let mut socket = Slow { steps, at: 0, got: Vec::new() };
            let date: &[u8] = if early { b"date: today\r\ncontent-length: 4\r\n" } else {
                b"content-length: 4\r\ndate: Mon, 23 Nov 2026 08:24:42 GMT\r\n"
            };
            let head = [STATUS_LINE_200, b"connection: close\r\n", date, b"\r\n"].concat();
            let mut lines = PreparedHead::new([STATUS_LINE_200, LINES].concat());
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let taken = loop {
                let bufs = [IoSlice::new(&head), IoSlice::new(b"body")];
                if let Poll::Ready(written) = lines.poll_write(Pin::new(&mut socket), &mut cx, &bufs) {
                    break written.unwrap();
                }
                prop_assert!(!lines.is_sent());
            };
            prop_assert!(lines.is_sent() && taken >= head.len());
            socket.got.extend_from_slice(b"body".get(taken - head.len()..).unwrap());
            let rest = b"connection: close\r\ncontent-length: 4\r\n\r\nbody";
            prop_assert_eq!(socket.got, [STATUS_LINE_200, LINES, rest].concat());
        }
    }

    #[test]
    fn anything_but_the_status_line_ends_the_connection_before_a_byte_is_sent() {
        let mut socket = Slow { steps: vec![100], at: 0, got: Vec::new() };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let wrong =
            ["HTTP/1.1 206 Partial Content\r\n\r\n", "body", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody", ""];
        for head in wrong {
            let mut lines = PreparedHead::new([STATUS_LINE_200, LINES].concat());
            let polled = lines.poll_write(Pin::new(&mut socket), &mut cx, &[IoSlice::new(head.as_bytes())]);
            assert!(matches!(polled, Poll::Ready(Err(_))) && socket.got.is_empty(), "{head}");
        }
    }

    #[test]
    fn a_prepared_head_parses_into_fields() {
        let fields = parse_fields(&[STATUS_LINE_200, LINES].concat());
        let all: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(all, [("age", &b"7"[..]), ("date", b"then"), ("vary", b"a"), ("vary", b"b: c"), ("x-empty", b"")]);
    }
}

//! Heads of responses that were written beforehand, as HTTP/1.1 has them.
//!
//! hyper takes fields as a map and writes them one by one: a dozen hashes and four copies each for what is the same in
//! every answer with a stored response. Where a response's lines are ready it is given to hyper without those fields,
//! and its socket puts them between the status line and what hyper has to say of the connection and of the body's length.
//!
//! That is done where nothing else can be meant by the next byte: see [`Pulse`](super::pulse::Pulse). Should it not be
//! a status line after all, the connection ends before any of it is sent.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::AsyncWrite;

/// What such a head begins with.
pub const BEGINNING: &[u8] = b"HTTP/1.1 200 OK\r\n";
/// The field that hyper adds to what has none: these lines have it.
const DATE: &[u8] = b"date: ";
/// The length of that line (RFC 9110, section 5.6.7), and of the empty one behind it.
const DATED: usize = DATE.len() + 29 + 4;
/// How many pieces are handed to the socket at once.
const PIECES: usize = 8;

/// A head on its way to a socket.
#[derive(Debug)]
pub(super) struct Lines {
    text: Vec<u8>,
    /// The length of the head that hyper wrote, once that is here.
    replaced: usize,
    /// Bytes of the text that have gone.
    gone: usize,
}

impl Lines {
    /// [`BEGINNING`] and whole lines, each with its end.
    pub(super) fn new(text: Vec<u8>) -> Self {
        Self { text, replaced: 0, gone: 0 }
    }

    /// Whether all of it has gone.
    pub(super) fn have_gone(&self) -> bool {
        self.replaced > 0 && self.gone == self.text.len()
    }

    /// Writes `pieces`, the first of which is a head of hyper's, with the lines in it. Gives the number of bytes of
    /// `pieces` that have gone: until all of the head has, none.
    pub(super) fn poll_write(
        &mut self,
        mut socket: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some((head, body)) = pieces.split_first() else { return Poll::Ready(Ok(0)) };
        if self.replaced == 0 && !self.take(head) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "not the response that was expected")));
        }
        loop {
            let mut all = [IoSlice::new(&[]); PIECES];
            let left = self.text.get(self.gone..).unwrap_or_default();
            let first = IoSlice::new(left);
            all.iter_mut().zip(std::iter::once(&first).chain(body)).for_each(|(place, piece)| *place = *piece);
            let count = (1 + body.len()).min(PIECES);
            let written = ready!(socket.as_mut().poll_write_vectored(cx, all.get(..count).unwrap_or_default()))?;
            let of_body = written.saturating_sub(left.len());
            self.gone += written - of_body;
            if written == 0 {
                return Poll::Ready(Ok(0));
            }
            if self.have_gone() {
                return Poll::Ready(Ok(self.replaced + of_body));
            }
        }
    }

    /// Takes over the lines of hyper's head; whether it is one.
    fn take(&mut self, head: &[u8]) -> bool {
        let Some(fields) = head.strip_prefix(BEGINNING).filter(|fields| fields.ends_with(b"\r\n\r\n")) else {
            return false;
        };
        match fields.len().checked_sub(DATED).and_then(|at| fields.split_at_checked(at)) {
            // The date is the last that hyper writes.
            Some((others, end)) if end.starts_with(DATE) && others.last().is_none_or(|byte| *byte == b'\n') => {
                self.text.extend_from_slice(others);
                self.text.extend_from_slice(b"\r\n");
            }
            _ => {
                let lines = fields.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(DATE));
                lines.for_each(|line| self.text.extend_from_slice(line));
            }
        }
        self.replaced = head.len();
        true
    }
}

/// The fields of such lines, for where they can't go as they are.
pub(super) fn fields(lines: &[u8]) -> HeaderMap {
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

    /// A socket that takes so many bytes a time, and none every other time.
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
        fn they_stand_behind_the_status_line_however_little_the_socket_takes(
            steps in prop::collection::vec(0_usize..40, 1..12), early in any::<bool>(),
        ) {
            prop_assume!(steps.iter().any(|step| *step > 0));
            let mut socket = Slow { steps, at: 0, got: Vec::new() };
            let date: &[u8] = if early { b"date: today\r\ncontent-length: 4\r\n" } else {
                b"content-length: 4\r\ndate: Mon, 23 Nov 2026 08:24:42 GMT\r\n"
            };
            let head = [BEGINNING, b"connection: close\r\n", date, b"\r\n"].concat();
            let mut lines = Lines::new([BEGINNING, LINES].concat());
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let taken = loop {
                let pieces = [IoSlice::new(&head), IoSlice::new(b"body")];
                if let Poll::Ready(written) = lines.poll_write(Pin::new(&mut socket), &mut cx, &pieces) {
                    break written.unwrap();
                }
                prop_assert!(!lines.have_gone());
            };
            prop_assert!(lines.have_gone() && taken >= head.len());
            socket.got.extend_from_slice(b"body".get(taken - head.len()..).unwrap());
            let rest = b"connection: close\r\ncontent-length: 4\r\n\r\nbody";
            prop_assert_eq!(socket.got, [BEGINNING, LINES, rest].concat());
        }
    }

    #[test]
    fn anything_but_the_status_line_ends_the_connection_before_a_byte_is_sent() {
        let mut socket = Slow { steps: vec![100], at: 0, got: Vec::new() };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let wrong =
            ["HTTP/1.1 206 Partial Content\r\n\r\n", "body", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody", ""];
        for head in wrong {
            let mut lines = Lines::new([BEGINNING, LINES].concat());
            let polled = lines.poll_write(Pin::new(&mut socket), &mut cx, &[IoSlice::new(head.as_bytes())]);
            assert!(matches!(polled, Poll::Ready(Err(_))) && socket.got.is_empty(), "{head}");
        }
    }

    #[test]
    fn they_are_fields_where_they_can_not_be_lines() {
        let fields = fields(&[BEGINNING, LINES].concat());
        let all: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(all, [("age", &b"7"[..]), ("date", b"then"), ("vary", b"a"), ("vary", b"b: c"), ("x-empty", b"")]);
    }
}

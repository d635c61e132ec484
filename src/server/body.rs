//! Bodies as they come in and go out, whichever protocol carries them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::BoxError;
use super::http3::QuicBody;
use super::pulse::Busy;

/// The body of a request.
#[derive(Debug)]
pub struct RequestBody(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(Incoming),
    Quic(Box<QuicBody>),
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        Self(Kind::Tcp(body))
    }
}

impl From<QuicBody> for RequestBody {
    fn from(body: QuicBody) -> Self {
        Self(Kind::Quic(Box::new(body)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Tcp(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Quic(body) => Pin::new(body.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Tcp(body) => body.is_end_stream(),
            Kind::Quic(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Tcp(body) => body.size_hint(),
            Kind::Quic(body) => body.size_hint(),
        }
    }
}

/// A response body that keeps its connection busy until it has been sent or dropped, and says when the client has to
/// take what it was handed before there is more.
pub(super) struct Held<B> {
    body: B,
    busy: Option<Busy>,
}

impl<B> Held<B> {
    pub(super) fn new(body: B, busy: Option<Busy>) -> Self {
        Self { body, busy }
    }
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some(busy) = &mut self.busy {
            busy.taken();
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(busy)) = (&polled, &mut self.busy) {
            busy.handed(frame.data_ref().map_or(0, Buf::remaining));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

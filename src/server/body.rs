//! Bodies of requests and responses, for every protocol.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::activity::InFlightRequest;
use crate::error::BoxError;
use crate::http3::body::QuicBody;

/// The body of a request.
#[derive(Debug)]
pub struct RequestBody(Transport);

#[derive(Debug)]
enum Transport {
    Tcp(Incoming),
    Quic(Box<QuicBody>),
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        Self(Transport::Tcp(body))
    }
}

impl From<QuicBody> for RequestBody {
    fn from(body: QuicBody) -> Self {
        Self(Transport::Quic(Box::new(body)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Transport::Tcp(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Transport::Quic(body) => Pin::new(body.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Transport::Tcp(body) => body.is_end_stream(),
            Transport::Quic(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Transport::Tcp(body) => body.size_hint(),
            Transport::Quic(body) => body.size_hint(),
        }
    }
}

/// A response body that records what is queued and taken, and keeps its request in flight until it is sent or dropped.
pub(crate) struct TrackedBody<B> {
    body: B,
    in_flight: Option<InFlightRequest>,
}

impl<B> TrackedBody<B> {
    pub(crate) fn new(body: B, in_flight: Option<InFlightRequest>) -> Self {
        Self { body, in_flight }
    }
}

impl<B: Body + Unpin> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.record_taken();
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(in_flight)) = (&polled, &mut self.in_flight) {
            in_flight.record_queued(frame.data_ref().map_or(0, Buf::remaining));
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

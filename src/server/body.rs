//! Bodies of requests and responses, for every protocol.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::activity::InFlightRequest;
use crate::error::BoxError;
use crate::http3::body::QuicBody;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::pace::Pace;

/// The body of a request. One that comes too slowly ends with an error.
#[derive(Debug)]
pub struct RequestBody {
    transport: Transport,
    /// Of a body that has not ended with its header.
    pace: Option<Box<Pace>>,
}

#[derive(Debug)]
enum Transport {
    Tcp(Incoming),
    Quic(Box<QuicBody>),
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        Self { transport: Transport::Tcp(body), pace: None }
    }
}

impl From<QuicBody> for RequestBody {
    fn from(body: QuicBody) -> Self {
        Self { transport: Transport::Quic(Box::new(body)), pace: None }
    }
}

impl RequestBody {
    /// Holds the rest of the body to the least rate of `limits`.
    pub(crate) fn hold_to(&mut self, limits: &Limits, metrics: &Arc<Metrics>) {
        if limits.body_throughput.0 > 0 && !self.is_end_stream() {
            self.pace = Some(Box::new(Pace::new(limits, Arc::clone(metrics))));
        }
    }

    fn poll_transport(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.transport {
            Transport::Tcp(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Transport::Quic(body) => Pin::new(body.as_mut()).poll_frame(cx),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = self.poll_transport(cx);
        let Some(pace) = &mut self.pace else { return polled };
        let kept = match &polled {
            Poll::Pending => pace.wait(cx),
            Poll::Ready(Some(Ok(frame))) => pace.record(frame.data_ref().map_or(0, Bytes::len)),
            Poll::Ready(None | Some(Err(_))) => Ok(()),
        };
        match kept {
            Ok(()) => polled,
            Err(slow) => {
                self.pace = None;
                Poll::Ready(Some(Err(slow.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.transport {
            Transport::Tcp(body) => body.is_end_stream(),
            Transport::Quic(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.transport {
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

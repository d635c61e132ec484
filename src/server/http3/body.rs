//! The body of a request over HTTP/3.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::header::{self, HeaderMap};
use http_body::{Body, Frame, SizeHint};

use crate::activity::Activity;
use crate::error::BoxError;

type Receiver = h3::server::RequestStream<h3_quinn::RecvStream, Bytes>;

/// A body as it arrives on its stream; an error if it is shorter or longer than its `Content-Length`.
pub(crate) struct QuicBody {
    receive: Option<Receiver>,
    first: Option<Bytes>,
    /// Bytes that are still to come by `Content-Length`.
    remaining: Option<u64>,
    activity: Arc<Activity>,
}

impl fmt::Debug for QuicBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicBody").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

impl QuicBody {
    /// Polls once for a first piece: most requests have no body, and end with their header.
    pub(crate) async fn open(
        receive: Receiver,
        headers: &HeaderMap,
        activity: Arc<Activity>,
    ) -> Result<Self, BoxError> {
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let remaining = match (lengths.next(), lengths.next()) {
            (None, _) => None,
            (Some(one), None) => Some(one.to_str()?.parse::<u64>()?),
            _ => return Err("the request has more than one Content-Length".into()),
        };
        let mut body = Self { receive: Some(receive), first: None, remaining, activity };
        let looked = std::future::poll_fn(|cx| Poll::Ready(body.poll_data(cx))).await;
        match looked {
            Poll::Ready(Some(Ok(data))) => body.first = Some(data),
            Poll::Ready(Some(Err(cause))) => return Err(cause),
            Poll::Ready(None) | Poll::Pending => {}
        }
        Ok(body)
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        let Some(receive) = &mut self.receive else { return Poll::Ready(None) };
        let data = match receive.poll_recv_data(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(data)) => data.map(|mut data| data.copy_to_bytes(data.remaining())),
            Poll::Ready(Err(cause)) => {
                self.receive = None;
                return Poll::Ready(Some(Err(cause.into())));
            }
        };
        let Some(data) = data else {
            self.receive = None;
            let short = self.remaining.is_some_and(|remaining| remaining > 0);
            return Poll::Ready(short.then(|| Err("the body is shorter than its Content-Length".into())));
        };
        self.activity.record_read(data.len());
        if let Some(remaining) = &mut self.remaining {
            let Some(rest) = remaining.checked_sub(data.len() as u64) else {
                self.receive = None;
                return Poll::Ready(Some(Err("the body is longer than its Content-Length".into())));
            };
            *remaining = rest;
        }
        Poll::Ready(Some(Ok(data)))
    }
}

impl Body for QuicBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.poll_data(cx).map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.receive.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, |first| first.len() as u64);
        match (&self.receive, self.remaining) {
            (None, _) => SizeHint::with_exact(first),
            (Some(_), Some(remaining)) => SizeHint::with_exact(first + remaining),
            (Some(_), None) => SizeHint::default(),
        }
    }
}

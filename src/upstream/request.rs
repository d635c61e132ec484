//! Requests to origins, and how far their bodies have been sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Method;
use http::header::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::watch;

use crate::error::BoxError;

/// The body of a request to an origin.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// A request for whichever origin the pool chooses.
#[derive(Debug)]
pub struct UpstreamRequest {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// End-to-end fields; the pool adds `Host`, credentials and framing.
    pub headers: HeaderMap,
    /// A body, if there is one; such a request is not retried.
    pub body: Option<RequestBody>,
    /// The hash by which [`Balance::ConsistentHash`](crate::Balance::ConsistentHash) chooses.
    pub affinity: u64,
}

/// How far the body of a request has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadState {
    Sending,
    /// All of it was sent, or as much as the origin took.
    Done,
    /// Its client broke off or sent malformed data.
    Broken,
}

/// A request body that announces its state, so that an origin is not blamed for its client.
pub(crate) struct TrackedUpload {
    body: RequestBody,
    state: watch::Sender<UploadState>,
}

impl TrackedUpload {
    pub(crate) fn new(body: RequestBody) -> (Self, watch::Receiver<UploadState>) {
        let (state, receiver) = watch::channel(UploadState::Sending);
        (Self { body, state }, receiver)
    }

    /// Ends the sending; the first end counts.
    fn end(&self, end: UploadState) {
        self.state.send_if_modified(|state| *state == UploadState::Sending && std::mem::replace(state, end) != end);
    }
}

impl Body for TrackedUpload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => self.end(UploadState::Done),
            Poll::Ready(Some(Err(_))) => self.end(UploadState::Broken),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
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

impl Drop for TrackedUpload {
    fn drop(&mut self) {
        self.end(UploadState::Done);
    }
}

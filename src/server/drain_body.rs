//! Reads on in a request body that its handler dropped, for a while, so that the client sees its answer and the connection
//! can be reused.
//!
//! A handler that refuses a request because of its header never reads its body, and an HTTP/1.1 connection with an unread
//! body has to close (RFC 9112, section 9.3): a client that has already sent its next request would see that one fail.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::body::RequestBody;
use crate::error::BoxError;

/// At most this many bytes are read. Where a connection closes at once, a client that is still sending sees a reset in
/// place of its answer (RFC 9112, section 9.6).
const MAX_DRAINED_BYTES: u64 = 16 * 1024 * 1024;
/// For how long at most.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A request body that is read on in the background when it is dropped, within limits of bytes and time.
#[derive(Debug)]
pub struct DrainOnDrop(Option<RequestBody>);

impl DrainOnDrop {
    /// Wraps a request's body.
    pub fn new(body: RequestBody) -> Self {
        Self(Some(body))
    }
}

impl Body for DrainOnDrop {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = self.0.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.0 = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for DrainOnDrop {
    fn drop(&mut self) {
        let Some(mut body) = self.0.take() else { return };
        if body.is_end_stream() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(DRAIN_TIMEOUT, async move {
                let mut left = MAX_DRAINED_BYTES;
                while left > 0
                    && let Some(Ok(frame)) = body.frame().await
                {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    left = left.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
                }
            }));
        }
    }
}

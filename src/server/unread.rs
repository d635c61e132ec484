//! A request body that a handler gave up is read to its end where that is near, so that the connection lives on.
//!
//! A handler that refuses a request for its header never reads its body, and a connection with an unread body has
//! to close (RFC 9112, section 9.3): a client that has just put its next request on it would see that one fail.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;

use super::{BoxError, RequestBody};

/// Bodies with up to this many bytes left are read to their end: a refusal sent into a closing connection may be lost.
const MOST: u64 = 4 * 1024 * 1024;
/// And for at most this long.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Unread(Option<RequestBody>);

impl Unread {
    /// Wraps a request's body.
    pub fn new(body: RequestBody) -> Self {
        Self(Some(body))
    }
}

impl Body for Unread {
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

impl Drop for Unread {
    fn drop(&mut self) {
        let Some(mut body) = self.0.take() else { return };
        let near = body.size_hint().upper().is_some_and(|left| left <= MOST);
        if body.is_end_stream() || !near {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(PATIENCE, async move { while let Some(Ok(_)) = body.frame().await {} }));
        }
    }
}

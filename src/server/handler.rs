//! The interface between a role and its listeners.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body::Body;

use lyceum_core::time::Instant;

use crate::body::RequestBody;
use crate::error::BoxError;
use crate::http1::prepared_head::parse_fields;
use crate::peer::Peer;

/// A role: responds to requests.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The body of its responses.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;

    /// Bytes of a request body that are read at once over HTTP/1.1, and of a response body that are buffered for writing. A
    /// role that takes large bodies wants more: each read costs a system call and a wake-up.
    const BODY_READ: usize = 8 * 1024;

    /// Responds to a request that came at `began`. The future is dropped when the client goes.
    fn call(&self, peer: Peer, request: Request<RequestBody>, began: Instant) -> ResponseFuture<Self::Body>;

    /// Responds to a request that a limit of the server refused.
    fn refuse(&self, request: &http::request::Parts, refused: Refused) -> Response<Self::Body>;
}

/// Why the server refuses a request before the handler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The client sends more requests than `requests_per_client`.
    #[error("too many requests from this address")]
    TooManyRequests {
        /// Seconds after which to try again.
        retry_after: u64,
    },
}

impl Refused {
    /// The stable error code.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooManyRequests { .. } => "too_many_requests",
        }
    }

    /// The response's status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// `Retry-After`, in seconds.
    pub fn retry_after(self) -> u64 {
        match self {
            Self::TooManyRequests { retry_after } => retry_after,
        }
    }
}

/// A response, or the future of one. A response that is ready costs no boxed future: most cache hits are.
pub enum ResponseFuture<B> {
    /// A response.
    Ready(Response<B>),
    /// A response with status 200 to a request of HTTP/1.1, and its encoded head: [`STATUS_LINE_200`] and whole lines, each
    /// with its line end, of fields that the response does not have itself. `Date` is among them; connection fields and the
    /// body's length are not. The head is empty once the connection has taken it.
    Prepared(Response<B>, Vec<u8>),
    /// A response that has to be waited for.
    Boxed(BoxFuture<'static, Response<B>>),
    /// The response was returned.
    Done,
}

impl<B> ResponseFuture<B> {
    /// A response that has to be waited for.
    pub fn boxed(response: impl Future<Output = Response<B>> + Send + 'static) -> Self {
        Self::Boxed(Box::pin(response))
    }
}

impl<B: Unpin> Future for ResponseFuture<B> {
    type Output = Response<B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<B>> {
        if let Self::Boxed(response) = &mut *self {
            return response.as_mut().poll(cx);
        }
        match std::mem::replace(&mut *self, Self::Done) {
            Self::Ready(response) => Poll::Ready(response),
            Self::Prepared(mut response, head) => {
                if !head.is_empty() {
                    response.headers_mut().extend(parse_fields(&head));
                }
                Poll::Ready(response)
            }
            // Polled after it was ready.
            Self::Boxed(_) | Self::Done => Poll::Pending,
        }
    }
}

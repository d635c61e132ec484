//! What a role is to its listeners: who answers requests, at once or after waiting.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body::Body;

use super::lines::fields;
use super::{BoxError, Peer, RequestBody};
use lyceum_core::time::Instant;

/// Answers requests: a role.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The body of its responses.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;

    /// Bytes of a request's body that are read at once over HTTP/1.1, and of a response's that may wait to be written. Who
    /// takes large bodies wants more: each read costs a system call and a hand-over.
    const BODY_READ: usize = 8 * 1024;

    /// Answers one request that came at `began`. Dropped midway when the client goes.
    fn call(&self, peer: Peer, request: Request<RequestBody>, began: Instant) -> Answer<Self::Body>;

    /// Answers a request that a limit refused before it was asked for.
    fn refuse(&self, request: &http::request::Parts, refused: Refused) -> Response<Self::Body>;
}

/// A request that is not answered, whatever it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The client asks more often than `requests_per_client`.
    #[error("this address asks too often")]
    TooManyRequests {
        /// When to ask again, in seconds.
        retry_after: u64,
    },
}

impl Refused {
    /// Stable: for clients, logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooManyRequests { .. } => "too_many_requests",
        }
    }

    /// The status of its answer.
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

/// An answer, or the way to it. One that is there costs no future: what is served from memory seldom waits.
pub enum Answer<B> {
    /// It is there.
    Now(Response<B>),
    /// It is there, with status 200 for a request of HTTP/1.1, and its head is written out already: [`BEGINNING`] and
    /// whole lines, each with its end, for fields that the response does not have. A date is among them; none is about
    /// the connection or the body's length. Empty once its socket has it.
    Lined(Response<B>, Vec<u8>),
    /// It takes waiting.
    Later(BoxFuture<'static, Response<B>>),
    /// It was taken.
    Taken,
}

impl<B> Answer<B> {
    /// An answer that takes waiting.
    pub fn later(answer: impl Future<Output = Response<B>> + Send + 'static) -> Self {
        Self::Later(Box::pin(answer))
    }
}

impl<B: Unpin> Future for Answer<B> {
    type Output = Response<B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<B>> {
        if let Self::Later(answer) = &mut *self {
            return answer.as_mut().poll(cx);
        }
        match std::mem::replace(&mut *self, Self::Taken) {
            Self::Now(response) => Poll::Ready(response),
            Self::Lined(mut response, lines) => {
                if !lines.is_empty() {
                    response.headers_mut().extend(fields(&lines));
                }
                Poll::Ready(response)
            }
            // Nobody polls a future that has ended.
            Self::Later(_) | Self::Taken => Poll::Pending,
        }
    }
}

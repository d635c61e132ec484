//! The body of a response: nothing, stored bytes, parts of them, a fill under way, or slices.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::body_guard::BodyGuard;
use super::piece::{BodyError, LiveBody, MAX_PIECE_BYTES};
use super::sliced_body::SlicedBody;
use crate::fetch::slice::Opened;
use lyceum_cache::ReadError;
use lyceum_server::RevocationCheck;
use lyceum_upstream::FetchError;

/// The body of a response.
#[derive(Debug)]
pub struct Body {
    content: Content,
    /// Counts its bytes, and checks whether it may go on.
    guard: Option<BodyGuard>,
    /// Whether its connection carries nothing else meanwhile.
    exclusive: bool,
}

#[derive(Debug)]
enum Content {
    Empty,
    Whole(Bytes),
    Parts(VecDeque<Bytes>),
    Live(Box<LiveBody>),
    Sliced(Box<SlicedBody>),
}

impl Body {
    /// No bytes.
    pub(crate) fn empty() -> Self {
        Self::of(Content::Empty)
    }

    fn of(content: Content) -> Self {
        Self { content, guard: None, exclusive: false }
    }

    /// Several pieces of stored bytes.
    pub(crate) fn parts(parts: VecDeque<Bytes>) -> Self {
        Self::of(Content::Parts(parts))
    }

    pub(crate) fn live(live: LiveBody) -> Self {
        Self::of(Content::Live(Box::new(live)))
    }

    pub(crate) fn sliced(slices: SlicedBody) -> Self {
        Self::of(Content::Sliced(Box::new(slices)))
    }

    /// Opens the first slice of a body in slices, and tells who fetched it; does nothing for others.
    pub(crate) async fn prime(&mut self) -> Result<Option<Opened>, ReadError<FetchError>> {
        match &mut self.content {
            Content::Sliced(slices) => slices.prime().await.map(Some),
            Content::Empty | Content::Whole(_) | Content::Parts(_) | Content::Live(_) => Ok(None),
        }
    }

    /// Puts it under a guard. `exclusive`: its connection carries nothing else meanwhile.
    pub(crate) fn guarded(self, guard: BodyGuard, exclusive: bool) -> Self {
        Self { content: self.content, guard: Some(guard), exclusive }
    }

    /// What the connection checks while a client that reads nothing keeps the body from being polled; `None` for bodies
    /// that are handed over in one piece.
    pub(crate) fn revocation_check(&self) -> Option<RevocationCheck> {
        let in_pieces = match &self.content {
            Content::Empty => false,
            Content::Whole(bytes) => bytes.len() > MAX_PIECE_BYTES,
            Content::Parts(_) | Content::Live(_) | Content::Sliced(_) => true,
        };
        self.guard.as_ref().filter(|guard| in_pieces && guard.is_granted()).cloned().map(RevocationCheck::new)
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::empty() } else { Self::of(Content::Whole(bytes)) }
    }
}

impl Content {
    fn poll_piece(&mut self, cx: &mut Context<'_>, exclusive: bool) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) if bytes.len() <= MAX_PIECE_BYTES => {
                let last = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(last)))
            }
            // The last piece is always a small one: once it is handed over, the guard checks no more.
            Self::Whole(bytes) => {
                let piece =
                    if exclusive { MAX_PIECE_BYTES.max(bytes.len() - MAX_PIECE_BYTES) } else { MAX_PIECE_BYTES };
                Poll::Ready(Some(Ok(bytes.split_to(piece))))
            }
            Self::Parts(parts) => Poll::Ready(parts.pop_front().map(Ok)),
            Self::Live(live) => live.poll_piece(cx),
            Self::Sliced(slices) => slices.poll_piece(cx),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(guard) = &mut self.guard
            && let Err(denied) = guard.check()
        {
            self.content = Content::Empty;
            return Poll::Ready(Some(Err(BodyError::Denied(denied))));
        }
        let exclusive = self.exclusive;
        match self.content.poll_piece(cx, exclusive) {
            Poll::Ready(Some(Ok(piece))) => {
                if let Some(guard) = &self.guard {
                    guard.count(piece.len());
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Poll::Ready(Some(Err(error))) => {
                self.content = Content::Empty;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Parts(parts) => parts.is_empty(),
            Content::Live(live) => live.left == Some(0),
            Content::Sliced(slices) => slices.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Parts(parts) => SizeHint::with_exact(parts.iter().map(|part| part.len() as u64).sum()),
            Content::Live(live) => live.left.map(SizeHint::with_exact).unwrap_or_default(),
            Content::Sliced(slices) => SizeHint::with_exact(slices.left()),
        }
    }
}

//! Bodies of the edge's answers: nothing, stored bytes, parts of them, or what a fill brings.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::slices::{Opened, Slices};
use super::watch::Watch;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use lyceum_cache::{ReadError, Reader};
use lyceum_server::RevocationCheck;
use lyceum_token::Denied;
use lyceum_upstream::FetchError;

/// How much of a stored body goes out between two looks at the grant, where others share its connection: what has been
/// handed over can be taken back by ending the connection alone. A body that has its connection for itself goes out in
/// one piece and this: each piece costs a write, and wakes its reader.
pub(super) const PIECE: usize = 256 << 10;

/// Why a body breaks off; the connection (or stream) ends with it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BodyError {
    /// The origin's answer broke off.
    #[error("the origin's answer broke off")]
    Origin,
    /// What allowed it no longer holds.
    #[error("the grant ended: {0}")]
    Denied(Denied),
}

/// A body on its way out.
#[derive(Debug)]
pub struct Body {
    kind: Kind,
    /// Counts its bytes, and looks whether it may go on.
    watch: Option<Watch>,
    /// Whether nothing else goes out on its connection meanwhile.
    alone: bool,
}

#[derive(Debug)]
enum Kind {
    Empty,
    Whole(Bytes),
    Parts(VecDeque<Bytes>),
    Live(Box<Live>),
    Sliced(Box<Slices>),
}

/// A span of what a fill brings.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) reader: Reader<FetchError>,
    /// Bytes to pass over.
    pub(super) skip: u64,
    /// Bytes to hand out, where that is known.
    pub(super) left: Option<u64>,
}

impl Body {
    /// No bytes.
    pub(super) fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    fn of(kind: Kind) -> Self {
        Self { kind, watch: None, alone: false }
    }

    /// Several pieces of stored bytes.
    pub(super) fn parts(parts: VecDeque<Bytes>) -> Self {
        Self::of(Kind::Parts(parts))
    }

    pub(super) fn live(live: Live) -> Self {
        Self::of(Kind::Live(Box::new(live)))
    }

    pub(super) fn sliced(slices: Slices) -> Self {
        Self::of(Kind::Sliced(Box::new(slices)))
    }

    /// For a body in slices, opens the first, and says how it came; for others there is nothing to do.
    pub(super) async fn prime(&mut self) -> Result<Option<Opened>, ReadError<FetchError>> {
        match &mut self.kind {
            Kind::Sliced(slices) => slices.prime().await.map(Some),
            Kind::Empty | Kind::Whole(_) | Kind::Parts(_) | Kind::Live(_) => Ok(None),
        }
    }

    /// Has it watched. `alone`: nothing else goes out on its connection meanwhile.
    pub(super) fn watched(self, watch: Watch, alone: bool) -> Self {
        Self { kind: self.kind, watch: Some(watch), alone }
    }

    /// What the connection looks at while a client that takes nothing keeps the body from looking itself: for bodies
    /// that are not handed over at once.
    pub(super) fn pass(&self) -> Option<RevocationCheck> {
        let goes_on = match &self.kind {
            Kind::Empty => false,
            Kind::Whole(bytes) => bytes.len() > PIECE,
            Kind::Parts(_) | Kind::Live(_) | Kind::Sliced(_) => true,
        };
        self.watch.as_ref().filter(|watch| goes_on && watch.is_granted()).cloned().map(RevocationCheck::new)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::empty() } else { Self::of(Kind::Whole(bytes)) }
    }
}

impl Kind {
    fn poll_piece(&mut self, cx: &mut Context<'_>, alone: bool) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) if bytes.len() <= PIECE => {
                let last = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(last)))
            }
            // The last piece is always a small one: with it the body is done, and is watched no more.
            Self::Whole(bytes) => {
                let piece = if alone { PIECE.max(bytes.len() - PIECE) } else { PIECE };
                Poll::Ready(Some(Ok(bytes.split_to(piece))))
            }
            Self::Parts(parts) => Poll::Ready(parts.pop_front().map(Ok)),
            Self::Live(live) => live.poll_piece(cx),
            Self::Sliced(slices) => slices.poll_piece(cx),
        }
    }
}

impl Live {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if self.left == Some(0) {
                return Poll::Ready(None);
            }
            let mut piece = match self.reader.poll_piece(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(piece))) => piece,
                Poll::Ready(None) if self.left.is_none() => return Poll::Ready(None),
                Poll::Ready(None) => return Poll::Ready(Some(Err(BodyError::Origin))),
                Poll::Ready(Some(Err(error))) => {
                    if let ReadError::Failed(cause) = &error {
                        tracing::debug!(%cause, "a body broke off");
                    }
                    return Poll::Ready(Some(Err(BodyError::Origin)));
                }
            };
            let skipped = self.skip.min(piece.len() as u64);
            self.skip -= skipped;
            let _ = piece.split_to(usize::try_from(skipped).unwrap_or(piece.len()));
            if let Some(left) = &mut self.left {
                let taken = (*left).min(piece.len() as u64);
                piece.truncate(usize::try_from(taken).unwrap_or(piece.len()));
                *left -= taken;
            }
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(piece)));
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(watch) = &mut self.watch
            && let Err(denied) = watch.look()
        {
            self.kind = Kind::Empty;
            return Poll::Ready(Some(Err(BodyError::Denied(denied))));
        }
        let alone = self.alone;
        match self.kind.poll_piece(cx, alone) {
            Poll::Ready(Some(Ok(piece))) => {
                if let Some(watch) = &self.watch {
                    watch.count(piece.len());
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Poll::Ready(Some(Err(error))) => {
                self.kind = Kind::Empty;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Parts(parts) => parts.is_empty(),
            Kind::Live(live) => live.left == Some(0),
            Kind::Sliced(slices) => slices.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Parts(parts) => SizeHint::with_exact(parts.iter().map(|part| part.len() as u64).sum()),
            Kind::Live(live) => live.left.map(SizeHint::with_exact).unwrap_or_default(),
            Kind::Sliced(slices) => SizeHint::with_exact(slices.left()),
        }
    }
}

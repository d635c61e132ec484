//! Pieces of bodies: why a body breaks off, and bodies that follow a fill.

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::fetch::transfer::skip_bytes;
use lyceum_cache::{ReadError, Reader};
use lyceum_token::Denied;
use lyceum_upstream::FetchError;

/// The largest piece of a stored body between two checks of the grant, where streams share a connection: what has been
/// handed over can be revoked only by closing the connection. A body that has its connection to itself goes out in one
/// large piece and one of this size, as each piece costs a write and wakes its reader.
pub(crate) const MAX_PIECE_BYTES: usize = 256 << 10;

/// Why a body breaks off; its connection or stream is closed with it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BodyError {
    /// The origin's response broke off.
    #[error("the origin's response broke off")]
    Origin,
    /// The grant no longer holds.
    #[error("the grant ended: {0}")]
    Denied(Denied),
}

/// A span of a fill under way.
#[derive(Debug)]
pub(crate) struct LiveBody {
    pub(crate) reader: Reader<FetchError>,
    /// Bytes to skip first.
    pub(crate) skip: u64,
    /// Bytes to hand out after those, if known.
    pub(crate) left: Option<u64>,
}

impl LiveBody {
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
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
            skip_bytes(&mut piece, &mut self.skip);
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

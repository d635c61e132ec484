//! The body of a large response, assembled from its slices while it is read.
//!
//! Each slice is a cache entry of its own: found in memory, shared with another request that fetches it, or fetched. The
//! slices' keys name one representation, so that slices of two are never mixed: when the origin has changed it, the body
//! breaks off.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::piece::{BodyError, MAX_PIECE_BYTES};
use crate::fetch::fetcher::Fetcher;
use crate::fetch::key::FetchRequest;
use crate::fetch::slice::{Opened, SliceSource, look_up_slice, open_slice};
use crate::fetch::transfer::skip_bytes;
use lyceum_cache::{ReadError, StoredResponse};
use lyceum_http::range::ByteRange;
use lyceum_upstream::FetchError;

/// A part of a body in slices.
#[derive(Clone, Debug)]
pub(crate) enum BodyPart {
    /// Delimiters between the ranges of `multipart/byteranges`.
    Bytes(Bytes),
    /// Bytes of the representation.
    Range(ByteRange),
}

impl BodyPart {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Range(span) => span.length(),
        }
    }
}

type Opening = Pin<Box<dyn Future<Output = Result<(SliceSource, Opened), ReadError<FetchError>>> + Send>>;

enum ReadState {
    Idle,
    Opening(Opening),
    Reading { source: SliceSource, skip: u64, left: u64 },
}

/// A body in slices. It reads one at a time while the next is fetched, so that it need not wait for a round trip.
pub(crate) struct SlicedBody {
    fetcher: Fetcher,
    request: Arc<FetchRequest>,
    stored: Arc<StoredResponse>,
    parts: VecDeque<BodyPart>,
    state: ReadState,
}

impl fmt::Debug for SlicedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlicedBody").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl SlicedBody {
    pub(crate) fn new(
        fetcher: Fetcher,
        request: FetchRequest,
        stored: Arc<StoredResponse>,
        parts: VecDeque<BodyPart>,
    ) -> Self {
        Self { fetcher, request: Arc::new(request), stored, parts, state: ReadState::Idle }
    }

    /// Bytes that are still to be read.
    pub(crate) fn left(&self) -> u64 {
        let under_way = match &self.state {
            ReadState::Reading { left, .. } => *left,
            ReadState::Idle | ReadState::Opening(_) => 0,
        };
        self.parts.iter().map(BodyPart::length).fold(under_way, u64::saturating_add)
    }

    /// Opens the first slice before the response's head is sent: until then the response can still become another.
    pub(crate) async fn prime(&mut self) -> Result<Opened, ReadError<FetchError>> {
        let Some((slice, skip, left)) = self.next_stretch() else { return Ok(Opened::Shared) };
        let (source, opened) = self.open(slice).await?;
        self.state = ReadState::Reading { source, skip, left };
        Ok(opened)
    }

    /// The next slice, the bytes to skip in it and the bytes to take; shortens the first span to what follows the slice.
    /// `None` where a delimiter comes next.
    fn next_stretch(&mut self) -> Option<(u64, u64, u64)> {
        let sliced = *self.stored.sliced()?;
        let Some(BodyPart::Range(span)) = self.parts.front_mut() else { return None };
        let slice = sliced.holding(span.first);
        let end = sliced.span(slice)?.last.min(span.last);
        let (skip, left) = (span.first - slice.saturating_mul(sliced.size), (end - span.first).saturating_add(1));
        if end >= span.last {
            self.parts.pop_front();
        } else {
            span.first = end.saturating_add(1);
            self.fetch_next(slice.saturating_add(1));
        }
        Some((slice, skip, left))
    }

    fn open(&self, slice: u64) -> Opening {
        let (fetcher, request, stored) = (self.fetcher.clone(), Arc::clone(&self.request), Arc::clone(&self.stored));
        Box::pin(open_slice(fetcher, request, stored, slice))
    }

    fn fetch_next(&self, slice: u64) {
        drop(look_up_slice(&self.fetcher, &self.request, &self.stored, slice));
    }

    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match &mut self.state {
                ReadState::Idle => match self.parts.front_mut() {
                    None => return Poll::Ready(None),
                    Some(BodyPart::Bytes(bytes)) => {
                        let bytes = std::mem::take(bytes);
                        self.parts.pop_front();
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                    Some(BodyPart::Range(_)) => {
                        let Some((slice, skip, left)) = self.next_stretch() else {
                            return Poll::Ready(Some(Err(BodyError::Origin)));
                        };
                        let opening = self.open(slice);
                        // The stretch within the slice, until it is open.
                        self.parts.push_front(BodyPart::Range(ByteRange {
                            first: skip,
                            last: skip.saturating_add(left - 1),
                        }));
                        self.state = ReadState::Opening(opening);
                    }
                },
                ReadState::Opening(opening) => {
                    let opened = ready!(opening.as_mut().poll(cx));
                    let Some(BodyPart::Range(span)) = self.parts.pop_front() else {
                        return Poll::Ready(Some(Err(BodyError::Origin)));
                    };
                    let Ok((source, _)) = opened else { return Poll::Ready(Some(Err(BodyError::Origin))) };
                    self.state = ReadState::Reading { source, skip: span.first, left: span.length() };
                }
                ReadState::Reading { left: 0, .. } => self.state = ReadState::Idle,
                ReadState::Reading { source, skip, left } => {
                    let mut piece = match source {
                        SliceSource::Memory(bytes) => bytes.split_to(bytes.len().min(MAX_PIECE_BYTES)),
                        SliceSource::Live(reader) => match ready!(reader.poll_piece(cx)) {
                            Some(Ok(piece)) => piece,
                            Some(Err(_)) | None => return Poll::Ready(Some(Err(BodyError::Origin))),
                        },
                    };
                    if piece.is_empty() {
                        return Poll::Ready(Some(Err(BodyError::Origin)));
                    }
                    skip_bytes(&mut piece, skip);
                    piece.truncate(usize::try_from(*left).unwrap_or(piece.len()));
                    *left -= piece.len() as u64;
                    if !piece.is_empty() {
                        return Poll::Ready(Some(Ok(piece)));
                    }
                }
            }
        }
    }
}

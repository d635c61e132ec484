//! The body of a large response, put together from its slices as it is read.
//!
//! Each slice is an entry of its own: found in memory, shared with whoever fetches it, or fetched. All carry the number
//! of one representation, so that slices of two are never mixed: when the origin has changed it, the body breaks off.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;

use super::body::{BodyError, PIECE};
use super::fetch::{Fetcher, Wanted};
use lyceum_cache::{Lookup, ReadError, Reader, Stored};
use lyceum_http::range::Span;
use lyceum_upstream::FetchError;

/// A piece of a body in slices.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// Bytes of ours, between the ranges of an answer with several.
    Bytes(Bytes),
    /// Bytes of the representation.
    Span(Span),
}

impl Part {
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Span(span) => span.length(),
        }
    }
}

/// Where a slice's bytes come from.
#[derive(Debug)]
enum Source {
    Memory(Bytes),
    Live(Reader<FetchError>),
}

/// How the first slice came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// From memory, or from who fetched it already.
    Shared,
    /// Fetched for this request.
    Fetched,
}

type Opening = Pin<Box<dyn Future<Output = Result<(Source, Opened), ReadError<FetchError>>> + Send>>;

enum State {
    Idle,
    Opening(Opening),
    Reading { source: Source, skip: u64, left: u64 },
}

/// A body in slices. Reads one at a time; the next is fetched beside, so that no round trip stands between them.
pub(super) struct Slices {
    fetcher: Fetcher,
    wanted: Arc<Wanted>,
    stored: Arc<Stored>,
    parts: VecDeque<Part>,
    state: State,
}

impl fmt::Debug for Slices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slices").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl Slices {
    pub(super) fn new(fetcher: Fetcher, wanted: Wanted, stored: Arc<Stored>, parts: VecDeque<Part>) -> Self {
        Self { fetcher, wanted: Arc::new(wanted), stored, parts, state: State::Idle }
    }

    /// Bytes that are still to come.
    pub(super) fn left(&self) -> u64 {
        let under_way = match &self.state {
            State::Reading { left, .. } => *left,
            State::Idle | State::Opening(_) => 0,
        };
        self.parts.iter().map(Part::length).fold(under_way, u64::saturating_add)
    }

    /// Opens the first slice, before the answer's head goes out: until then everything can still be told otherwise.
    pub(super) async fn prime(&mut self) -> Result<Opened, ReadError<FetchError>> {
        let Some((slice, skip, left)) = self.next_stretch() else { return Ok(Opened::Shared) };
        let (source, opened) = self.open(slice).await?;
        self.state = State::Reading { source, skip, left };
        Ok(opened)
    }

    /// The next slice with the bytes to pass over in it and those to take; splits the first span where a slice ends.
    /// A span that begins with bytes of ours has none yet.
    fn next_stretch(&mut self) -> Option<(u64, u64, u64)> {
        let sliced = *self.stored.sliced()?;
        let Some(Part::Span(span)) = self.parts.front_mut() else { return None };
        let slice = sliced.holding(span.first);
        let end = sliced.span(slice)?.last.min(span.last);
        let (skip, left) = (span.first - slice.saturating_mul(sliced.size), (end - span.first).saturating_add(1));
        if end >= span.last {
            self.parts.pop_front();
        } else {
            span.first = end.saturating_add(1);
            self.fetch_beside(slice.saturating_add(1));
        }
        Some((slice, skip, left))
    }

    fn open(&self, slice: u64) -> Opening {
        let (fetcher, wanted, stored) = (self.fetcher.clone(), Arc::clone(&self.wanted), Arc::clone(&self.stored));
        Box::pin(async move { fetcher.open_slice(wanted, stored, slice).await })
    }

    fn fetch_beside(&self, slice: u64) {
        drop(self.fetcher.look_up_slice(&self.wanted, &self.stored, slice));
    }

    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match &mut self.state {
                State::Idle => match self.parts.front_mut() {
                    None => return Poll::Ready(None),
                    Some(Part::Bytes(bytes)) => {
                        let bytes = std::mem::take(bytes);
                        self.parts.pop_front();
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                    Some(Part::Span(_)) => {
                        let Some((slice, skip, left)) = self.next_stretch() else {
                            return Poll::Ready(Some(Err(BodyError::Origin)));
                        };
                        let opening = self.open(slice);
                        // Kept beside until it is open.
                        self.parts.push_front(Part::Span(Span { first: skip, last: skip.saturating_add(left - 1) }));
                        self.state = State::Opening(opening);
                    }
                },
                State::Opening(opening) => {
                    let opened = ready!(opening.as_mut().poll(cx));
                    let Some(Part::Span(span)) = self.parts.pop_front() else {
                        return Poll::Ready(Some(Err(BodyError::Origin)));
                    };
                    let Ok((source, _)) = opened else { return Poll::Ready(Some(Err(BodyError::Origin))) };
                    self.state = State::Reading { source, skip: span.first, left: span.length() };
                }
                State::Reading { left: 0, .. } => self.state = State::Idle,
                State::Reading { source, skip, left } => {
                    let mut piece = match source {
                        Source::Memory(bytes) => bytes.split_to(bytes.len().min(PIECE)),
                        Source::Live(reader) => match ready!(reader.poll_piece(cx)) {
                            Some(Ok(piece)) => piece,
                            Some(Err(_)) | None => return Poll::Ready(Some(Err(BodyError::Origin))),
                        },
                    };
                    if piece.is_empty() {
                        return Poll::Ready(Some(Err(BodyError::Origin)));
                    }
                    let skipped = (*skip).min(piece.len() as u64);
                    *skip -= skipped;
                    let _ = piece.split_to(usize::try_from(skipped).unwrap_or(piece.len()));
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

impl Fetcher {
    /// A slice: in memory, under way, or fetched from now on.
    fn look_up_slice(&self, wanted: &Arc<Wanted>, stored: &Arc<Stored>, slice: u64) -> Option<(Source, Opened)> {
        let sliced = stored.sliced()?;
        sliced.span(slice)?;
        match self.cache.lookup(&sliced.key(&wanted.key, slice), &HeaderMap::new(), |_| true) {
            Lookup::Hit(found) => Some((Source::Memory(found.body.clone()), Opened::Shared)),
            Lookup::Join(reader) => Some((Source::Live(reader), Opened::Shared)),
            Lookup::Fill { writer, reader, .. } => {
                let (fetcher, wanted, stored) = (self.clone(), Arc::clone(wanted), Arc::clone(stored));
                let guard = self.shutdown.guard();
                tokio::spawn(async move {
                    fetcher.fill_slice(writer, &wanted, &stored, slice).await;
                    drop(guard);
                });
                Some((Source::Live(reader), Opened::Fetched))
            }
        }
    }

    async fn open_slice(
        self,
        wanted: Arc<Wanted>,
        stored: Arc<Stored>,
        slice: u64,
    ) -> Result<(Source, Opened), ReadError<FetchError>> {
        let (source, opened) = self.look_up_slice(&wanted, &stored, slice).ok_or(ReadError::Outdated)?;
        match source {
            Source::Live(reader) => match reader.begun().await?.stored {
                Some((found, _)) => Ok((Source::Memory(found.body.clone()), opened)),
                None => Ok((Source::Live(reader), opened)),
            },
            memory @ Source::Memory(_) => Ok((memory, opened)),
        }
    }
}

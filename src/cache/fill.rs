//! A response in transfer from one writer to any number of readers.
//!
//! While it is to be stored ([`FillPlan::Store`]), every piece is kept, so that a late reader starts at its beginning. Of
//! one that is not to be stored ([`FillPlan::Pass`]), or turns out too large, only the pieces are kept that the slowest
//! reader has not taken, and the writer waits when these fill the window. A reader that stalls is ended by the listener's
//! limits, not here.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::prefetch_budget::PrefetchTicket;
use crate::purge::PurgeTarget;
use crate::stored_response::StoredResponse;
use crate::vary::Vary;
use lyceum_http::freshness::Freshness;

/// Why a fill failed, as its caller sees it: each reader gets a copy.
pub trait FillError: Clone + std::fmt::Debug + Send + Sync + 'static {}

impl<E: Clone + std::fmt::Debug + Send + Sync + 'static> FillError for E {}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The end-to-end fields.
    pub headers: HeaderMap,
    /// The length of the body, where it is known.
    pub length: Option<u64>,
    /// The request fields that selected it.
    pub vary: Vary,
}

/// What is done with a response beside passing it to readers.
#[derive(Clone, Debug)]
pub enum FillPlan {
    /// It is stored once it is whole.
    Store {
        /// How long it may be used.
        freshness: Freshness,
        /// The tags that purges by tag match.
        tags: Vec<Box<str>>,
    },
    /// It goes to the first reader alone.
    Pass {
        /// Why it is not stored: what the reader is told.
        why: &'static str,
    },
}

/// What a fill gives its readers, known when it begins.
#[derive(Clone, Debug)]
pub enum FillOutcome {
    /// The body follows, and the response is stored once it is whole.
    Storing {
        /// The response's head.
        head: Arc<ResponseHead>,
        /// How long it may be used.
        freshness: Freshness,
    },
    /// The body follows, for the first reader alone.
    Passing {
        /// The response's head.
        head: Arc<ResponseHead>,
        /// Why it is not stored.
        why: &'static str,
    },
    /// A large response was fetched: its head is stored, and its body comes in slices.
    Sliced(Arc<StoredResponse>),
    /// A stored response was revalidated just now.
    Revalidated(Arc<StoredResponse>),
    /// A stored response was found on disk.
    FromDisk(Arc<StoredResponse>),
    /// The origin failed, and a stale response takes its place.
    StaleOnError(Arc<StoredResponse>),
}

impl FillOutcome {
    /// The stored response, where the fill has no body of its own.
    pub fn stored(&self) -> Option<&Arc<StoredResponse>> {
        match self {
            Self::Storing { .. } | Self::Passing { .. } => None,
            Self::Sliced(stored) | Self::Revalidated(stored) | Self::FromDisk(stored) | Self::StaleOnError(stored) => {
                Some(stored)
            }
        }
    }

    /// The request fields that selected the response.
    pub fn vary(&self) -> &Vary {
        match self {
            Self::Storing { head, .. } | Self::Passing { head, .. } => &head.vary,
            Self::Sliced(stored) | Self::Revalidated(stored) | Self::FromDisk(stored) | Self::StaleOnError(stored) => {
                &stored.vary
            }
        }
    }
}

/// Why a reader gets no more of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError<E> {
    /// The fill failed.
    Failed(E),
    /// The writer was dropped before the end.
    Abandoned,
    /// The body ended before its announced length.
    Short,
    /// The response is for the first reader alone: the others ask again, each for a fill of its own.
    Unshared,
    /// Look up again: a marker was found that leads to another key.
    Again,
    /// The response of which this was to be a slice has changed at the origin.
    Outdated,
}

/// A fill that is not stored has no reader left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoReaders;

#[derive(Debug)]
pub(super) struct Fill<E> {
    state: Mutex<State<E>>,
    /// How much may wait for the slowest reader where it is not stored, in bytes.
    pub(super) window_bytes: usize,
}

#[derive(Debug)]
pub(super) struct State<E> {
    pub(super) outcome: Option<FillOutcome>,
    /// Whether every piece is kept, or only those that some reader has not taken.
    pub(super) keep: bool,
    /// Whether further readers may join: it is still shared and its first piece is still there.
    pub(super) open: bool,
    pub(super) pieces: VecDeque<Bytes>,
    /// The number of the first piece in `pieces`.
    first: u64,
    /// Bytes in `pieces`.
    pub(super) held_bytes: usize,
    /// Bytes of the body so far.
    pub(super) total_bytes: u64,
    /// The tags that purges match, once the response has begun.
    pub(super) tags: Vec<Box<str>>,
    pub(super) ended: Option<Result<(), ReadError<E>>>,
    pub(super) readers: HashMap<u64, ReaderState>,
    next_reader: u64,
    /// Where it is fetched before any request for it; the first reader that joins redeems it.
    pub(super) prefetch: Option<PrefetchTicket>,
    /// The writer, where it waits for the slowest reader.
    pub(super) writer: Option<Waker>,
}

#[derive(Debug, Default)]
pub(super) struct ReaderState {
    /// The number of the piece that it reads next.
    pub(super) next_piece: u64,
    /// Whether it is the first reader, which gets the response even where it is not shared.
    pub(super) leads: bool,
    waker: Option<Waker>,
}

impl<E> Fill<E> {
    pub(super) fn new(window_bytes: usize) -> Arc<Self> {
        let state = State {
            outcome: None,
            keep: true,
            open: true,
            pieces: VecDeque::new(),
            first: 0,
            held_bytes: 0,
            total_bytes: 0,
            tags: Vec::new(),
            ended: None,
            readers: HashMap::new(),
            next_reader: 0,
            prefetch: None,
            writer: None,
        };
        Arc::new(Self { state: Mutex::new(state), window_bytes })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may bring a response that `target` names, so that later requests must not join it. One that has not
    /// begun may turn out to have any tag.
    pub(super) fn may_hold(&self, key: &str, target: &PurgeTarget) -> bool {
        if !matches!(target, PurgeTarget::Tag(_)) {
            return target.holds(key, &[]);
        }
        let state = self.lock();
        state.outcome.is_none() || target.holds(key, &state.tags)
    }

    /// Changes the state and wakes every reader once the lock is released.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State<E>) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let wakers: Vec<Waker> = state.readers.values_mut().filter_map(|reader| reader.waker.take()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }
}

impl<E> State<E> {
    fn reader(&mut self, leads: bool) -> u64 {
        let id = self.next_reader;
        self.next_reader += 1;
        self.readers.insert(id, ReaderState { next_piece: 0, leads, waker: None });
        id
    }

    /// Drops the pieces that every reader has taken; gives the writer to be woken.
    pub(super) fn trim(&mut self) -> Option<Waker> {
        if self.keep {
            return None;
        }
        let slowest = self.readers.values().map(|reader| reader.next_piece).min().unwrap_or(u64::MAX);
        while self.first < slowest
            && let Some(piece) = self.pieces.pop_front()
        {
            self.first += 1;
            self.held_bytes -= piece.len();
        }
        self.writer.take()
    }
}

/// Reads a fill from its beginning. Dropping it leaves the fill.
#[derive(Debug)]
pub struct Reader<E> {
    fill: Arc<Fill<E>>,
    id: u64,
}

impl<E: FillError> Reader<E> {
    pub(super) fn lead(fill: &Arc<Fill<E>>) -> Self {
        let id = fill.lock().reader(true);
        Self { fill: Arc::clone(fill), id }
    }

    pub(super) fn join(fill: &Arc<Fill<E>>) -> Option<Self> {
        let mut state = fill.lock();
        if !state.open {
            return None;
        }
        let id = state.reader(false);
        if let Some(ticket) = &state.prefetch {
            ticket.redeem();
        }
        drop(state);
        Some(Self { fill: Arc::clone(fill), id })
    }

    /// Waits until the fill begins.
    pub async fn outcome(&self) -> Result<FillOutcome, ReadError<E>> {
        poll_fn(|cx| self.poll_outcome(cx)).await
    }

    fn poll_outcome(&self, cx: &mut Context<'_>) -> Poll<Result<FillOutcome, ReadError<E>>> {
        let mut state = self.fill.lock();
        let leads = state.readers.get(&self.id).is_some_and(|reader| reader.leads);
        if let Some(outcome) = &state.outcome {
            let shared = leads || !matches!(outcome, FillOutcome::Passing { .. });
            return Poll::Ready(if shared { Ok(outcome.clone()) } else { Err(ReadError::Unshared) });
        }
        if let Some(Err(error)) = &state.ended {
            return Poll::Ready(Err(error.clone()));
        }
        state.wait(self.id, cx);
        Poll::Pending
    }

    /// The next piece of the body; none at its end.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReadError<E>>>> {
        let mut state = self.fill.lock();
        let Some(at) = state.readers.get(&self.id).map(|reader| reader.next_piece) else {
            return Poll::Ready(None);
        };
        let index = usize::try_from(at.saturating_sub(state.first)).unwrap_or(usize::MAX);
        if let Some(piece) = state.pieces.get(index).cloned() {
            if let Some(reader) = state.readers.get_mut(&self.id) {
                reader.next_piece = at + 1;
            }
            let writer = state.trim();
            drop(state);
            if let Some(writer) = writer {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(piece)));
        }
        match &state.ended {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error.clone()))),
            None => {
                state.wait(self.id, cx);
                Poll::Pending
            }
        }
    }
}

impl<E> State<E> {
    fn wait(&mut self, id: u64, cx: &Context<'_>) {
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.waker = Some(cx.waker().clone());
        }
    }
}

impl<E> Drop for Reader<E> {
    fn drop(&mut self) {
        let mut state = self.fill.lock();
        state.readers.remove(&self.id);
        let writer = state.trim();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

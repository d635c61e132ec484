//! A body under way from one writer to any number of readers.
//!
//! While it is to be stored ([`FillPlan::Store`]), every piece is kept, so that late readers start at its beginning. What is
//! not to be stored ([`FillPlan::Pass`]), or turns out too large, is kept only as far as its slowest reader has not
//! taken it, and the writer waits when that is a window's worth: a reader that stands still is ended by the
//! listener's limits, not here.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use super::stored_response::{EntryKind, own};
use super::{Cache, FillError, PrefetchTicket, PurgeTarget, SliceLayout, Stored, Vary};
use lyceum_http::freshness::Freshness;

/// The beginning of a response.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The end-to-end fields.
    pub headers: HeaderMap,
    /// The length of the body, where it is known.
    pub length: Option<u64>,
    /// The request fields that chose it.
    pub vary: Vary,
}

/// What becomes of a response beside being read.
#[derive(Clone, Debug)]
pub enum FillPlan {
    /// It is stored once it is whole.
    Store {
        /// How long it may be used.
        freshness: Freshness,
        /// What purges by tag go by.
        tags: Vec<Box<str>>,
    },
    /// It goes to the one who asked first, and to no one else.
    Pass {
        /// Why: what the one who asked is told.
        why: &'static str,
    },
}

/// How readers came to a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It was fetched just now.
    Fetched,
    /// It was validated just now.
    Renewed,
    /// It was found on disk.
    Recalled,
    /// It is stale, and the origin failed.
    OnError,
}

/// What readers see of a fill.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The response's beginning.
    pub head: Arc<ResponseHead>,
    /// The freshness, when it is to be stored.
    pub freshness: Option<Freshness>,
    /// Why it is not to be stored.
    pub why: Option<&'static str>,
    /// The stored response itself, when the fill came to nothing but that: a validation, stale for want of better, or
    /// one in slices.
    pub stored: Option<(Arc<Stored>, Came)>,
}

/// Why a reader gets no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError<E> {
    /// The fill failed.
    Failed(E),
    /// The writer was dropped before the end.
    Abandoned,
    /// The body ended before its announced length.
    Short,
    /// The response is for the one who asked first; ask again, apart.
    Unshared,
    /// Look again: what was found leads to where it lies.
    Again,
    /// What this was to be a part of has changed at the origin.
    Outdated,
}

/// No one reads any more what is not stored either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoReaders;

#[derive(Debug)]
pub(super) struct Fill<E> {
    state: Mutex<State<E>>,
    window: usize,
}

#[derive(Debug)]
struct State<E> {
    begun: Option<Begun>,
    /// Whether every piece is kept, or only what some reader has not taken.
    keep: bool,
    /// Whether further readers may join: the sharing has not ended and the first piece is still there.
    open: bool,
    pieces: VecDeque<Bytes>,
    /// The number of the first piece in `pieces`.
    first: u64,
    held: usize,
    total: u64,
    /// What purges by tag go by, once the response has begun.
    tags: Vec<Box<str>>,
    ended: Option<Result<(), ReadError<E>>>,
    readers: HashMap<u64, ReaderState>,
    next_reader: u64,
    /// Where it is fetched before anyone asked; the first who joins takes it.
    ahead: Option<PrefetchTicket>,
    writer: Option<Waker>,
}

#[derive(Debug, Default)]
struct ReaderState {
    /// The number of the next piece.
    at: u64,
    leads: bool,
    waker: Option<Waker>,
}

impl<E> Fill<E> {
    pub(super) fn new(window: usize) -> Arc<Self> {
        let state = State {
            begun: None,
            keep: true,
            open: true,
            pieces: VecDeque::new(),
            first: 0,
            held: 0,
            total: 0,
            tags: Vec::new(),
            ended: None,
            readers: HashMap::new(),
            next_reader: 0,
            ahead: None,
            writer: None,
        };
        Arc::new(Self { state: Mutex::new(state), window })
    }

    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may bring what `target` names, so that no one who asks from now on may be given it. What has not begun
    /// may have any tag.
    pub(super) fn may_hold(&self, key: &str, target: &PurgeTarget) -> bool {
        if !matches!(target, PurgeTarget::Tag(_)) {
            return target.holds(key, &[]);
        }
        let state = self.lock();
        state.begun.is_none() || target.holds(key, &state.tags)
    }

    /// Changes the state and wakes every reader, outside of the lock.
    fn change<T>(&self, change: impl FnOnce(&mut State<E>) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let wakers: Vec<Waker> = state.readers.values_mut().filter_map(|place| place.waker.take()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }
}

impl<E> State<E> {
    fn reader(&mut self, leads: bool) -> u64 {
        let id = self.next_reader;
        self.next_reader += 1;
        self.readers.insert(id, ReaderState { at: 0, leads, waker: None });
        id
    }

    /// Forgets the pieces that every reader has taken, and lets the writer go on.
    fn trim(&mut self) -> Option<Waker> {
        if self.keep {
            return None;
        }
        let slowest = self.readers.values().map(|place| place.at).min().unwrap_or(u64::MAX);
        while self.first < slowest
            && let Some(piece) = self.pieces.pop_front()
        {
            self.first += 1;
            self.held -= piece.len();
        }
        self.writer.take()
    }
}

/// Reads a fill from its beginning. Dropping it is leaving.
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
        if let Some(ahead) = &state.ahead {
            ahead.take();
        }
        drop(state);
        Some(Self { fill: Arc::clone(fill), id })
    }

    /// Waits for the response's beginning.
    pub async fn begun(&self) -> Result<Begun, ReadError<E>> {
        poll_fn(|cx| self.poll_begun(cx)).await
    }

    fn poll_begun(&self, cx: &mut Context<'_>) -> Poll<Result<Begun, ReadError<E>>> {
        let mut state = self.fill.lock();
        let leads = state.readers.get(&self.id).is_some_and(|place| place.leads);
        if let Some(begun) = &state.begun {
            let shared = leads || begun.freshness.is_some() || begun.stored.is_some();
            return Poll::Ready(if shared { Ok(begun.clone()) } else { Err(ReadError::Unshared) });
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
        let Some(at) = state.readers.get(&self.id).map(|place| place.at) else {
            return Poll::Ready(None);
        };
        let index = usize::try_from(at.saturating_sub(state.first)).unwrap_or(usize::MAX);
        if let Some(piece) = state.pieces.get(index).cloned() {
            if let Some(place) = state.readers.get_mut(&self.id) {
                place.at = at + 1;
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
        if let Some(place) = self.readers.get_mut(&id) {
            place.waker = Some(cx.waker().clone());
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

/// Writes a fill. Dropped before [`Writer::finish`], [`Writer::answer`] or [`Writer::fail`], it fails its readers.
#[derive(Debug)]
pub struct Writer<E: FillError> {
    cache: Arc<Cache<E>>,
    /// Where it is stored, or where the signpost to it is.
    primary: Box<str>,
    /// Under which it is shared.
    key: Box<str>,
    fill: Arc<Fill<E>>,
    epoch: u64,
    plan: Option<FillPlan>,
}

impl<E: FillError> Writer<E> {
    pub(super) fn new(cache: Arc<Cache<E>>, primary: &str, key: &str, fill: Arc<Fill<E>>, epoch: u64) -> Self {
        Self { cache, primary: primary.into(), key: key.into(), fill, epoch, plan: None }
    }

    /// Tells the readers how the response begins. What is larger than may be stored passes.
    pub fn begin(&mut self, head: ResponseHead, plan: FillPlan) {
        let too_large = head.length.is_some_and(|length| length > self.cache.object);
        let plan = match plan {
            FillPlan::Store { .. } if too_large => FillPlan::Pass { why: "too_large" },
            FillPlan::Store { .. } if self.is_private() => FillPlan::Pass { why: "apart" },
            plan => plan,
        };
        let (freshness, tags, why) = match &plan {
            FillPlan::Store { freshness, tags } => (Some(freshness.clone()), tags.clone(), None),
            FillPlan::Pass { why } => (None, Vec::new(), Some(*why)),
        };
        match &freshness {
            None => self.cache.leave(&self.key, &self.fill),
            // Those who asked with other fields are shown their way before this one has ended.
            Some(freshness) => self.cache.post(&self.primary, &head, freshness, self.epoch),
        }
        self.fill.change(|state| {
            state.keep = freshness.is_some();
            state.open = freshness.is_some();
            if !state.keep {
                // The others will be told to ask for themselves; no one waits for them to read.
                state.readers.values_mut().filter(|place| !place.leads).for_each(|place| place.at = u64::MAX);
            }
            state.tags = tags;
            state.begun = Some(Begun { head: Arc::new(head), freshness, why, stored: None });
        });
        self.plan = Some(plan);
    }

    /// Adds a piece to the body. Where pieces are not kept, waits for the slowest reader.
    ///
    /// # Errors
    /// [`NoReaders`] when nothing is stored and no one is left: the rest need not be fetched.
    pub async fn push(&mut self, piece: Bytes) -> Result<(), NoReaders> {
        if piece.is_empty() {
            return Ok(());
        }
        let most = self.cache.object;
        let outgrown = self.fill.change(|state| {
            state.total = state.total.saturating_add(piece.len() as u64);
            state.held += piece.len();
            state.pieces.push_back(piece);
            let outgrown = state.keep && state.total > most;
            if outgrown {
                state.keep = false;
                state.open = false;
            }
            let _ = state.trim();
            outgrown
        });
        if outgrown {
            self.plan = Some(FillPlan::Pass { why: "too_large" });
            self.cache.leave(&self.key, &self.fill);
        }
        poll_fn(|cx| self.poll_room(cx)).await
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<(), NoReaders>> {
        let mut state = self.fill.lock();
        if state.keep {
            return Poll::Ready(Ok(()));
        }
        if state.readers.is_empty() {
            return Poll::Ready(Err(NoReaders));
        }
        if state.held <= self.fill.window {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The body is whole. It is stored if that was the plan and its length is the announced one.
    pub fn finish(mut self) -> Option<Arc<Stored>> {
        let (head, total, pieces, ahead) = {
            let mut state = self.fill.lock();
            let keep = matches!(self.plan, Some(FillPlan::Store { .. }));
            let pieces: Vec<Bytes> = if keep { state.pieces.iter().cloned().collect() } else { Vec::new() };
            (state.begun.as_ref().map(|begun| Arc::clone(&begun.head)), state.total, pieces, state.ahead.take())
        };
        let head = head?;
        if let Some(ahead) = &ahead {
            ahead.weigh(total);
        }
        if head.length.is_some_and(|length| length != total) {
            self.end(Err(ReadError::Short));
            return None;
        }
        let stored = match self.plan.take() {
            Some(FillPlan::Store { freshness, tags }) => {
                let whole = Stored::whole(head.status, own(&head.headers), join(&pieces), freshness);
                let stored = Arc::new(Stored { vary: head.vary.clone(), tags, ahead, ..whole });
                self.cache.store(&self.primary, &stored, self.epoch);
                Some(stored)
            }
            _ => None,
        };
        self.end(Ok(()));
        stored
    }

    /// Answers all readers with a stored response; `keep` puts it (back) into the cache.
    pub fn answer(self, stored: Arc<Stored>, came: Came, keep: bool) {
        if keep {
            self.cache.store(&self.primary, &stored, self.epoch);
        }
        self.hand(stored, came);
    }

    /// Answers all readers with a response whose body comes in slices, and stores what leads to them.
    pub fn slice(
        self,
        head: ResponseHead,
        freshness: Freshness,
        tags: Vec<Box<str>>,
        sliced: SliceLayout,
    ) -> Arc<Stored> {
        self.cache.post(&self.primary, &head, &freshness, self.epoch);
        let ResponseHead { status, headers, vary, .. } = head;
        let whole = Stored::whole(status, own(&headers), Bytes::new(), freshness);
        let stored = Arc::new(Stored { vary, tags, kind: EntryKind::Sliced(sliced), ..whole });
        self.cache.store(&self.primary, &stored, self.epoch);
        self.hand(Arc::clone(&stored), Came::Fetched);
        stored
    }

    /// This is fetched before anyone asked for it.
    pub fn mark_prefetched(&mut self, ticket: PrefetchTicket) {
        self.fill.lock().ahead = Some(ticket);
    }

    /// What lies on disk where this is to be stored: such that requests with other fields are led elsewhere has led all
    /// readers there, and there is no writer any more.
    pub async fn load_from_disk(self) -> (Option<Self>, Option<Arc<Stored>>) {
        if self.is_private() {
            return (Some(self), None);
        }
        let found =
            self.cache.read_disk(&self.key).await.filter(|found| !self.cache.was_purged(self.epoch, &self.key, found));
        match found {
            Some(found) if found.signpost().is_some() => {
                self.cache.remember(&self.key, found, self.epoch);
                self.end(Err(ReadError::Again));
                (None, None)
            }
            found => (Some(self), found),
        }
    }

    /// Answers all readers with what was found on disk, and puts it into memory.
    pub fn answer_from_disk(self, stored: Arc<Stored>) {
        self.cache.remember(&self.key, Arc::clone(&stored), self.epoch);
        self.hand(stored, Came::Recalled);
    }

    fn hand(self, stored: Arc<Stored>, came: Came) {
        let head = ResponseHead {
            status: stored.status,
            headers: stored.headers.clone(),
            length: Some(stored.length()),
            vary: stored.vary.clone(),
        };
        self.fill.change(|state| {
            if state.begun.is_none() {
                let freshness = Some(stored.freshness.clone());
                state.begun = Some(Begun { head: Arc::new(head), freshness, why: None, stored: Some((stored, came)) });
            }
        });
        self.end(Ok(()));
    }

    /// Fails all readers.
    pub fn fail(self, error: E) {
        self.end(Err(ReadError::Failed(error)));
    }

    /// Tells all readers, the one who asked first too, to ask apart.
    pub fn fail_unshared(self) {
        self.end(Err(ReadError::Unshared));
    }

    /// Tells all readers that what this belongs to has changed.
    pub fn fail_outdated(self) {
        self.end(Err(ReadError::Outdated));
    }

    /// Whether it is shared with no one and stored nowhere.
    pub fn is_private(&self) -> bool {
        self.primary.is_empty()
    }

    fn end(&self, how: Result<(), ReadError<E>>) {
        self.cache.leave(&self.key, &self.fill);
        self.fill.change(|state| {
            state.open = false;
            if state.ended.is_none() {
                state.ended = Some(how);
            }
        });
    }
}

impl<E: FillError> Drop for Writer<E> {
    fn drop(&mut self) {
        self.end(Err(ReadError::Abandoned));
    }
}

/// One piece of all: a copy, once for each fill, for which every hit is spared the pieces. A single piece is copied too:
/// it may be a few bytes of a large buffer, all of which it would keep.
fn join(pieces: &[Bytes]) -> Bytes {
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
    whole.freeze()
}

//! The writing side of a fill: passes a response on to its readers and stores it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use crate::fill::{Fill, FillError, FillOutcome, FillPlan, NoReaders, ReadError, ResponseHead};
use crate::fill_table::FillTable;
use crate::prefetch_budget::PrefetchTicket;
use crate::slice_layout::SliceLayout;
use crate::store::Store;
use crate::stored_response::{EntryKind, StoredResponse, own};
use lyceum_http::freshness::Freshness;

/// Writes a fill. Dropped before an end such as [`Writer::finish`], [`Writer::answer_revalidated`] or [`Writer::fail`],
/// it fails its readers.
#[derive(Debug)]
pub struct Writer<E: FillError> {
    store: Arc<Store>,
    fills: Arc<FillTable<E>>,
    /// The key that it is stored under, or that leads to it by way of a marker. Empty: private.
    primary: Box<str>,
    /// The key that it is shared under.
    key: Box<str>,
    fill: Arc<Fill<E>>,
    /// The number of the next purge when the fill began.
    purge_epoch: u64,
    plan: Option<FillPlan>,
}

impl<E: FillError> Writer<E> {
    pub(super) fn new(
        store: &Arc<Store>,
        fills: &Arc<FillTable<E>>,
        primary: &str,
        key: &str,
        fill: Arc<Fill<E>>,
    ) -> Self {
        Self {
            store: Arc::clone(store),
            fills: Arc::clone(fills),
            primary: primary.into(),
            key: key.into(),
            fill,
            purge_epoch: store.purge_epoch(),
            plan: None,
        }
    }

    /// Gives the readers the head of the response. One that is too large to be stored is passed on alone.
    pub fn begin(&mut self, head: ResponseHead, plan: FillPlan) {
        let too_large = head.length.is_some_and(|length| length > self.fills.max_object_bytes);
        let plan = match plan {
            FillPlan::Store { .. } if too_large => FillPlan::Pass { why: "too_large" },
            FillPlan::Store { .. } if self.is_private() => FillPlan::Pass { why: "apart" },
            plan => plan,
        };
        let head = Arc::new(head);
        let (outcome, tags) = match &plan {
            FillPlan::Store { freshness, tags } => {
                self.fills.unstored.forget(&self.key);
                // Requests with other fields find the marker before this response has ended.
                self.store.store_vary_marker(&self.primary, head.status, &head.vary, freshness, self.purge_epoch);
                (FillOutcome::Storing { head, freshness: freshness.clone() }, tags.clone())
            }
            FillPlan::Pass { why } => {
                // An origin that fails is not asked by all at once.
                if !self.is_private() && !head.status.is_server_error() {
                    self.fills.unstored.note(&self.key);
                }
                self.fills.remove(&self.key, &self.fill);
                (FillOutcome::Passing { head, why }, Vec::new())
            }
        };
        let is_stored = matches!(plan, FillPlan::Store { .. });
        self.fill.change(|state| {
            state.keep = is_stored;
            state.open = is_stored;
            if !state.keep {
                // The other readers are told to ask for themselves: the writer does not wait for them.
                state
                    .readers
                    .values_mut()
                    .filter(|reader| !reader.leads)
                    .for_each(|reader| reader.next_piece = u64::MAX);
            }
            state.tags = tags;
            state.outcome = Some(outcome);
        });
        self.plan = Some(plan);
    }

    /// Appends a piece to the body. Where pieces are not kept, waits for the slowest reader.
    ///
    /// # Errors
    /// [`NoReaders`] when it is not to be stored and has no reader left: the rest need not be fetched.
    pub async fn push(&mut self, piece: Bytes) -> Result<(), NoReaders> {
        if piece.is_empty() {
            return Ok(());
        }
        let max_bytes = self.fills.max_object_bytes;
        let outgrown = self.fill.change(|state| {
            state.total_bytes = state.total_bytes.saturating_add(piece.len() as u64);
            state.held_bytes += piece.len();
            state.pieces.push_back(piece);
            let outgrown = state.keep && state.total_bytes > max_bytes;
            if outgrown {
                state.keep = false;
                state.open = false;
            }
            let _ = state.trim();
            outgrown
        });
        if outgrown {
            self.plan = Some(FillPlan::Pass { why: "too_large" });
            self.fills.remove(&self.key, &self.fill);
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
        if state.held_bytes <= self.fill.window_bytes {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the body. It is stored if that was the plan and its length is the announced one.
    pub fn finish(mut self) -> Option<Arc<StoredResponse>> {
        let (head, total, pieces, prefetch) = {
            let mut state = self.fill.lock();
            let keep = matches!(self.plan, Some(FillPlan::Store { .. }));
            let pieces: Vec<Bytes> = if keep { state.pieces.iter().cloned().collect() } else { Vec::new() };
            (
                match &state.outcome {
                    Some(FillOutcome::Storing { head, .. } | FillOutcome::Passing { head, .. }) => {
                        Some(Arc::clone(head))
                    }
                    _ => None,
                },
                state.total_bytes,
                pieces,
                state.prefetch.take(),
            )
        };
        let head = head?;
        if let Some(prefetch) = &prefetch {
            prefetch.set_bytes(total);
        }
        if head.length.is_some_and(|length| length != total) {
            self.end(Err(ReadError::Short));
            return None;
        }
        let stored = match self.plan.take() {
            Some(FillPlan::Store { freshness, tags }) => {
                let whole = StoredResponse::whole(head.status, own(&head.headers), join(&pieces), freshness);
                let stored = Arc::new(StoredResponse { vary: head.vary.clone(), tags, prefetch, ..whole });
                self.store.store(&self.primary, &stored, self.purge_epoch);
                Some(stored)
            }
            _ => None,
        };
        self.end(Ok(()));
        stored
    }

    /// Gives all readers a stored response that the origin has confirmed; `keep` puts it back into the cache.
    pub fn answer_revalidated(self, stored: Arc<StoredResponse>, keep: bool) {
        if keep {
            self.store.store(&self.primary, &stored, self.purge_epoch);
        }
        self.hand(FillOutcome::Revalidated(stored));
    }

    /// Gives all readers a stale response in place of the origin's error.
    pub fn answer_stale(self, stored: Arc<StoredResponse>) {
        self.hand(FillOutcome::StaleOnError(stored));
    }

    /// Gives all readers a response whose body is fetched in slices, and stores its head with their layout.
    pub fn slice(
        self,
        head: ResponseHead,
        freshness: Freshness,
        tags: Vec<Box<str>>,
        slices: SliceLayout,
    ) -> Arc<StoredResponse> {
        self.store.store_vary_marker(&self.primary, head.status, &head.vary, &freshness, self.purge_epoch);
        let ResponseHead { status, headers, vary, .. } = head;
        let whole = StoredResponse::whole(status, own(&headers), Bytes::new(), freshness);
        let stored = Arc::new(StoredResponse { vary, tags, kind: EntryKind::Sliced(slices), ..whole });
        self.store.store(&self.primary, &stored, self.purge_epoch);
        self.hand(FillOutcome::Sliced(Arc::clone(&stored)));
        stored
    }

    /// Marks the response as fetched before any request for it.
    pub fn mark_prefetched(&mut self, ticket: PrefetchTicket) {
        self.fill.lock().prefetch = Some(ticket);
    }

    /// Looks on disk for what this fill is to fetch. A marker found there is put into memory and ends the fill: its
    /// readers look again under their variant keys, and no writer is left.
    pub async fn load_from_disk(self) -> (Option<Self>, Option<Arc<StoredResponse>>) {
        if self.is_private() {
            return (Some(self), None);
        }
        match self.store.read_disk(&self.key, self.purge_epoch).await {
            Some(found) if found.vary_marker().is_some() => {
                self.store.insert_in_memory(&self.key, found, self.purge_epoch);
                self.end(Err(ReadError::Again));
                (None, None)
            }
            found => (Some(self), found),
        }
    }

    /// Gives all readers what was found on disk, and puts it into memory.
    pub fn answer_from_disk(self, stored: Arc<StoredResponse>) {
        self.store.insert_in_memory(&self.key, Arc::clone(&stored), self.purge_epoch);
        self.hand(FillOutcome::FromDisk(stored));
    }

    fn hand(self, outcome: FillOutcome) {
        self.fill.change(|state| {
            if state.outcome.is_none() {
                state.outcome = Some(outcome);
            }
        });
        self.end(Ok(()));
    }

    /// Fails all readers.
    pub fn fail(self, error: E) {
        self.end(Err(ReadError::Failed(error)));
    }

    /// Tells all readers, the first one too, to ask for a fill of their own.
    pub fn fail_unshared(self) {
        if !self.is_private() {
            self.fills.unstored.note(&self.key);
        }
        self.end(Err(ReadError::Unshared));
    }

    /// Tells all readers of a slice that its response has changed at the origin.
    pub fn fail_outdated(self) {
        self.end(Err(ReadError::Outdated));
    }

    /// Whether it is neither shared nor stored.
    pub fn is_private(&self) -> bool {
        self.primary.is_empty()
    }

    fn end(&self, how: Result<(), ReadError<E>>) {
        self.fills.remove(&self.key, &self.fill);
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

/// All pieces in one: copied once for each fill, so that no hit has to deal with pieces. A single piece is copied too: it
/// may be a few bytes of a large buffer, which it would keep alive.
fn join(pieces: &[Bytes]) -> Bytes {
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
    whole.freeze()
}

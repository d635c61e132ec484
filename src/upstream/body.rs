//! The body of an answer, under a limit for standing still; and of a request, whose end and failures are its client's.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::watch;

use super::connect::{deepest, of_hyper};
use super::origin::{InFlight, Origin};
use super::{BoxError, Failure, FetchError, RequestBody};
use lyceum_core::time::monotonic;

/// A body that comes from an origin.
#[derive(Debug)]
pub struct Incoming {
    body: hyper::body::Incoming,
    idle: Duration,
    /// The fewest bytes that must come in as much waiting as `idle`; 0: any.
    least: u64,
    /// What was waited and what came since that was looked at last.
    waited: Duration,
    came: u64,
    origin: Arc<Origin>,
    _in_flight: InFlight,
}

impl Incoming {
    pub(super) fn new(body: hyper::body::Incoming, idle: Duration, origin: Arc<Origin>, in_flight: InFlight) -> Self {
        Self { body, idle, least: 0, waited: Duration::ZERO, came: 0, origin, _in_flight: in_flight }
    }

    /// From now on a body of which fewer than `least` bytes come in as much waiting as it may stand still is given up.
    pub fn hurry(&mut self, least: u64) {
        self.least = least;
    }

    /// The next piece; none at its end, which is the announced one. Trailers are passed over.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let start = monotonic();
            let frame = match tokio::time::timeout(self.idle, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(self.broke_off(of_hyper(Some(&error)), deepest(&error))),
                Err(_) => return Err(self.broke_off(Failure::Timeout, "the body stood still".to_owned())),
            };
            self.waited += start.elapsed();
            if let Ok(piece) = frame.into_data() {
                self.came = self.came.saturating_add(piece.len() as u64);
                if self.waited >= self.idle {
                    if self.came < self.least {
                        return Err(self.broke_off(Failure::Timeout, "the body trickles".to_owned()));
                    }
                    (self.waited, self.came) = (Duration::ZERO, 0);
                }
                return Ok(Some(piece));
            }
        }
    }

    fn broke_off(&self, failure: Failure, cause: String) -> FetchError {
        self.origin.broke_off(monotonic());
        FetchError { failure, origin: Arc::clone(&self.origin.label), cause: cause.into() }
    }
}

/// How far the body of a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    UnderWay,
    /// All of it, or as much as was taken.
    Done,
    /// Its client broke off, or sent what is no body.
    Broken,
}

/// The body of a request on its way, which tells how far it has come: an origin is not to blame for its client.
pub(super) struct Upload {
    body: RequestBody,
    told: watch::Sender<Sent>,
}

impl Upload {
    pub(super) fn new(body: RequestBody) -> (Self, watch::Receiver<Sent>) {
        let (told, heard) = watch::channel(Sent::UnderWay);
        (Self { body, told }, heard)
    }

    fn tell(&self, how: Sent) {
        self.told.send_if_modified(|sent| *sent == Sent::UnderWay && std::mem::replace(sent, how) != how);
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => self.tell(Sent::Done),
            Poll::Ready(Some(Err(_))) => self.tell(Sent::Broken),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.tell(Sent::Done);
    }
}

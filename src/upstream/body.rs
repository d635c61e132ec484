//! The body of an answer, under a limit for standing still.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;

use super::connect::{deepest, of_hyper};
use super::origin::{InFlight, Origin};
use super::{Failure, FetchError};
use crate::time::monotonic;

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

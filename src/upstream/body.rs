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
    origin: Arc<Origin>,
    _in_flight: InFlight,
}

impl Incoming {
    pub(super) fn new(body: hyper::body::Incoming, idle: Duration, origin: Arc<Origin>, in_flight: InFlight) -> Self {
        Self { body, idle, origin, _in_flight: in_flight }
    }

    /// The next piece; none at its end, which is the announced one. Trailers are passed over.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let frame = match tokio::time::timeout(self.idle, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(self.broke_off(of_hyper(Some(&error)), deepest(&error))),
                Err(_) => return Err(self.broke_off(Failure::Timeout, "the body stood still".to_owned())),
            };
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
    }

    fn broke_off(&self, failure: Failure, cause: String) -> FetchError {
        self.origin.broke_off(monotonic());
        FetchError { failure, origin: Arc::clone(&self.origin.label), cause: cause.into() }
    }
}

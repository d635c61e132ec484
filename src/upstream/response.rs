//! Responses of origins; their bodies are limited in how long they may stand still.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use lyceum_core::time::monotonic;

use crate::error::{Failure, FetchError, innermost};
use crate::origin::{InFlightGuard, Origin};

/// A response whose body is still to come.
#[derive(Debug)]
pub struct UpstreamResponse {
    /// Status and fields, as the origin sent them.
    pub head: http::response::Parts,
    /// The body.
    pub body: ResponseBody,
    /// The origin that responded (host and port).
    pub origin: Arc<str>,
}

/// A body that comes from an origin.
#[derive(Debug)]
pub struct ResponseBody {
    body: hyper::body::Incoming,
    /// For how long it may stand still.
    idle: Duration,
    /// The fewest bytes that must come within `idle` of waiting; 0 is no limit.
    min_progress_bytes: u64,
    /// Time waited, and bytes that came, since that was checked last.
    waited: Duration,
    progress_bytes: u64,
    origin: Arc<Origin>,
    _in_flight: InFlightGuard,
}

impl ResponseBody {
    pub(crate) fn new(
        body: hyper::body::Incoming,
        idle: Duration,
        origin: Arc<Origin>,
        in_flight: InFlightGuard,
    ) -> Self {
        let waited = Duration::ZERO;
        Self { body, idle, min_progress_bytes: 0, waited, progress_bytes: 0, origin, _in_flight: in_flight }
    }

    /// From now on the body fails if fewer than `bytes` come within as much waiting as it may stand still.
    pub fn require_progress(&mut self, bytes: u64) {
        self.min_progress_bytes = bytes;
    }

    /// The next piece; `None` after the last byte that was announced. Trailers are skipped.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let start = monotonic();
            let frame = match tokio::time::timeout(self.idle, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(self.fail(Failure::of_hyper(Some(&error)), innermost(&error))),
                Err(_) => return Err(self.fail(Failure::Timeout, "no body data in time".to_owned())),
            };
            self.waited += start.elapsed();
            if let Ok(piece) = frame.into_data() {
                self.progress_bytes = self.progress_bytes.saturating_add(piece.len() as u64);
                if self.waited >= self.idle {
                    if self.progress_bytes < self.min_progress_bytes {
                        return Err(self.fail(Failure::Timeout, "the body comes too slowly".to_owned()));
                    }
                    (self.waited, self.progress_bytes) = (Duration::ZERO, 0);
                }
                return Ok(Some(piece));
            }
        }
    }

    fn fail(&self, failure: Failure, cause: String) -> FetchError {
        self.origin.record_broken_body(monotonic());
        FetchError { failure, origin: Arc::clone(&self.origin.label), cause: cause.into() }
    }
}

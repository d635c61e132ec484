//! What fetching works with: the cache, the metrics, the clock, and the tasks that fills run in.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};

use crate::metrics::counters::Metrics;
use lyceum_cache::Cache;
use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::Clock;
use lyceum_http::fields;
use lyceum_upstream::FetchError;

/// Fetches through the cache. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    pub(crate) cache: Arc<Cache<FetchError>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) shutdown: Shutdown,
}

impl Fetcher {
    /// Runs a fill in a task of its own: it goes on when the client that caused it leaves, and a drain waits for it.
    pub(crate) fn spawn(&self, fill: impl Future<Output = ()> + Send + 'static) {
        let guard = self.shutdown.guard();
        tokio::spawn(async move {
            fill.await;
            drop(guard);
        });
    }

    /// Adds a missing `Date`, which every stored or forwarded response has (RFC 9110, section 6.6.1).
    pub(crate) fn date(&self, headers: &mut HeaderMap) {
        if !headers.contains_key(header::DATE)
            && let Ok(date) = HeaderValue::try_from(fields::format_date(self.clock.system_time()))
        {
            headers.insert(header::DATE, date);
        }
    }
}

//! The origin's metrics. Handles of counters are kept, since a look-up by label costs more than counting.

use std::time::Duration;

use http::StatusCode;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// How long an answer waited for news because its client asked for that; an extension of the response.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WaitedForNews(pub(crate) Duration);

/// The largest request body whose arrival is a part of the time to an answer, in bytes: that of a larger one is up to its
/// client's line.
const LARGEST_TIMED_BODY: u64 = 64 << 10;

/// Whether the time to an answer tells of the origin, by the request's length if that is known.
pub(crate) fn is_timed(length: Option<u64>) -> bool {
    length.is_some_and(|length| length <= LARGEST_TIMED_BODY)
}

pub(crate) struct Metrics {
    requests: [IntCounter; 5],
    seconds: Histogram,
    pub(crate) uploaded: IntCounter,
    pub(crate) uploads: IntGauge,
    pub(crate) playbacks: IntCounterVec,
    pub(crate) tasks: IntGaugeVec,
    pub(crate) delivered: IntCounter,
    pub(crate) content_keys: IntCounter,
    pub(crate) lessons: IntGaugeVec,
    pub(crate) writable: IntGaugeVec,
    /// Kept by the ingest, which sees lessons become playable.
    pub(crate) playable: Histogram,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("lyceum_origin_requests_total", "Requests answered, by class of status."),
            &["status"],
        )?;
        let seconds = Histogram::with_opts(
            HistogramOpts::new("lyceum_origin_request_seconds", "Time to the head of an answer, without what its client asked to wait for news; none for large bodies of requests.")
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0]),
        )?;
        let uploaded = IntCounter::new("lyceum_origin_uploaded_bytes_total", "Bytes of uploads acknowledged.")?;
        let uploads = IntGauge::new("lyceum_origin_uploads_active", "Requests that write an upload now.")?;
        let playbacks = IntCounterVec::new(
            Opts::new("lyceum_origin_playbacks_total", "Playback sessions asked for, by result."),
            &["result"],
        )?;
        let tasks = IntGaugeVec::new(Opts::new("lyceum_origin_tasks", "Tasks of the queue, by state."), &["state"])?;
        let delivered =
            IntCounter::new("lyceum_origin_delivered_bytes_total", "Bytes of media bodies offered to edges.")?;
        let content_keys =
            IntCounter::new("lyceum_origin_content_keys_total", "Keys of encrypted lessons given to edges.")?;
        registry.register(Box::new(content_keys.clone()))?;
        let lessons =
            IntGaugeVec::new(Opts::new("lyceum_origin_lessons", "Lessons of the catalogue, by state."), &["state"])?;
        let playable = Histogram::with_opts(
            HistogramOpts::new("lyceum_origin_playable_seconds", "Time from a complete upload to a lesson that plays.")
                .buckets(vec![1.0, 2.0, 4.0, 6.0, 9.0, 14.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0]),
        )?;
        registry.register(Box::new(lessons.clone()))?;
        let writable = IntGaugeVec::new(
            Opts::new("lyceum_origin_writable", "Whether a part takes writes (1) or not (0): database, store."),
            &["part"],
        )?;
        registry.register(Box::new(writable.clone()))?;
        registry.register(Box::new(playable.clone()))?;
        // A series that appears with its first count hides that count from rate().
        for result in ["ok", "not_entitled", "not_playable", "error"] {
            playbacks.with_label_values(&[result]);
        }
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(uploaded.clone()))?;
        registry.register(Box::new(uploads.clone()))?;
        registry.register(Box::new(playbacks.clone()))?;
        registry.register(Box::new(tasks.clone()))?;
        registry.register(Box::new(delivered.clone()))?;
        let class = |name: &str| requests.with_label_values(&[name]);
        let requests = [class("1xx"), class("2xx"), class("3xx"), class("4xx"), class("5xx")];
        Ok(Self {
            requests,
            seconds,
            uploaded,
            uploads,
            playbacks,
            tasks,
            delivered,
            content_keys,
            lessons,
            writable,
            playable,
        })
    }

    /// `took`: the time until then, where it tells of the origin.
    pub(crate) fn answered(&self, status: StatusCode, took: Option<Duration>) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.requests.get(class) {
            counter.inc();
        }
        if let Some(took) = took {
            self.seconds.observe(took.as_secs_f64());
        }
    }
}

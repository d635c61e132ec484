//! Totals over all viewers of a run, and their report.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::fetch::{Failure, Fetched, ResourceKind};
use super::playback::{State, Totals};
use crate::report::{Quantiles, Table, show_bytes, show_rate, show_time};

/// The most distinct errors, cache outcomes and heights that are counted separately.
const MAX_KEYS: usize = 64;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The lesson was played to its end.
    Ended,
    /// The run ended first.
    Stopped,
    /// A failure ended it.
    Failed(Failure),
}

/// Shared by all viewers.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    sessions: Sessions,
    watching: BTreeMap<&'static str, i64>,
    startup: Quantiles,
    seek: Quantiles,
    rebuffering: Quantiles,
    playback: Playback,
    throughput: Quantiles,
    requests: BTreeMap<ResourceKind, Requests>,
    cache: BTreeMap<String, u64>,
    heights: BTreeMap<u32, f64>,
    errors: BTreeMap<(ResourceKind, Option<u16>, String), u64>,
    examples: BTreeMap<String, String>,
    reports: Reports,
}

/// Sessions by outcome.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Sessions {
    /// Play was pressed.
    pub started: u64,
    /// The first frame was shown.
    pub played: u64,
    /// The lesson was played to its end.
    pub ended: u64,
    /// The run ended first.
    pub stopped: u64,
    /// A failure ended it.
    pub failed: u64,
}

/// Playback quality.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Playback {
    /// Media shown, over all viewers.
    pub played_seconds: f64,
    /// Time spent rebuffering.
    pub rebuffer_seconds: f64,
    /// How often.
    pub rebuffers: u64,
    /// Rebuffering over rebuffering and play together; `None` when nothing played.
    pub rebuffer_ratio: Option<f64>,
    /// Changes of rendition.
    pub switches: u64,
    /// Completed seeks.
    pub seeks: u64,
}

/// Requests of one kind.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Requests {
    /// Successful requests.
    pub count: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Time to the response's header.
    pub first_byte_seconds: Quantiles,
    /// Time to the last byte.
    pub total_seconds: Quantiles,
}

/// CMCD reports.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Reports {
    /// Accepted lines.
    pub sent: u64,
    /// Refused or lost lines.
    pub failed: u64,
    /// Lines dropped because the queue was full.
    pub dropped: u64,
}

/// One sort of error.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorCount {
    /// What was asked for.
    pub request: ResourceKind,
    /// The status, where there was one.
    pub status: Option<u16>,
    /// The server's code or ours.
    pub code: String,
    /// How often.
    pub count: u64,
}

/// The run that the figures belong to.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Without the token.
    pub urls: Vec<String>,
    /// As requested.
    pub viewers: u64,
    /// How long it lasted.
    pub seconds: f64,
    /// It was ended early by a signal.
    pub interrupted: bool,
}

/// All figures of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Which run.
    #[serde(flatten)]
    pub run: Run,
    /// Sessions by outcome.
    pub sessions: Sessions,
    /// From pressing play to the first frame.
    pub startup_seconds: Quantiles,
    /// From seeking to the first frame.
    pub seek_seconds: Quantiles,
    /// Playback quality.
    pub playback: Playback,
    /// How long each rebuffering lasted.
    pub rebuffering_seconds: Quantiles,
    /// Of each video segment, request to last byte, in megabits a second.
    pub throughput_megabits_per_second: Quantiles,
    /// All bodies of the run over its time.
    pub delivered_bits_per_second: f64,
    /// All of them.
    pub bytes: u64,
    /// Successful requests per second.
    pub requests_per_second: f64,
    /// By kind.
    pub requests: BTreeMap<&'static str, Requests>,
    /// Media requests by what the nearest cache said (RFC 9211).
    pub cache: BTreeMap<String, u64>,
    /// Seconds of video fetched, by the rendition's height; 0: not known.
    pub fetched_seconds_by_height: BTreeMap<u32, f64>,
    /// CMCD event reports.
    pub reports: Reports,
    /// Failed requests, including those retried successfully.
    pub errors: Vec<ErrorCount>,
    /// One sentence for each code.
    pub error_examples: BTreeMap<String, String>,
}

impl Tally {
    fn sums(&self) -> MutexGuard<'_, Sums> {
        // Nothing below panics half-way; and figures of a run that did are better than none.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Play was pressed.
    pub fn session_started(&self) {
        self.sums().sessions.started += 1;
    }

    /// A viewer's screen changed; `None` when it was switched on or off.
    pub fn screen(&self, from: Option<State>, to: Option<State>) {
        let mut sums = self.sums();
        for (state, step) in [(from, -1), (to, 1)] {
            if let Some(state) = state {
                *sums.watching.entry(state_name(state)).or_default() += step;
            }
        }
    }

    /// Records a rebuffering.
    pub fn rebuffered(&self, lasted: Duration) {
        self.sums().rebuffering.time(lasted);
    }

    /// Records the duration of a seek.
    pub fn sought(&self, took: Duration) {
        self.sums().seek.time(took);
    }

    /// Records the first frame.
    pub fn first_picture(&self, after: Duration) {
        let mut sums = self.sums();
        sums.sessions.played += 1;
        sums.startup.time(after);
    }

    /// Records a switch of rendition.
    pub fn switched(&self) {
        self.sums().playback.switches += 1;
    }

    /// Records the end of a session.
    pub fn session_over(&self, totals: Totals, end: &End) {
        let mut sums = self.sums();
        sums.playback.played_seconds += totals.played.as_secs_f64();
        sums.playback.rebuffer_seconds += totals.rebuffered.as_secs_f64();
        sums.playback.rebuffers += totals.rebuffers;
        sums.playback.seeks += totals.seeks;
        match end {
            End::Ended => sums.sessions.ended += 1,
            End::Stopped => sums.sessions.stopped += 1,
            End::Failed(_) => sums.sessions.failed += 1,
        }
    }

    /// Records a successful request.
    pub fn fetched(&self, kind: ResourceKind, fetched: &Fetched) {
        let mut sums = self.sums();
        let requests = sums.requests.entry(kind).or_default();
        requests.count += 1;
        requests.bytes += fetched.bytes;
        requests.first_byte_seconds.time(fetched.first_byte);
        requests.total_seconds.time(fetched.took);
        if matches!(kind, ResourceKind::Init | ResourceKind::Video | ResourceKind::Audio) {
            bump(&mut sums.cache, fetched.cache.clone(), "other".into(), 1);
        }
    }

    /// Records a video segment: its height and throughput.
    pub fn video(&self, height: u32, duration: Duration, fetched: &Fetched) {
        let mut sums = self.sums();
        let seconds = fetched.took.as_secs_f64().max(1e-6);
        sums.throughput.value(fetched.bytes as f64 * 8.0 / seconds / 1e6);
        let full = sums.heights.len() >= MAX_KEYS && !sums.heights.contains_key(&height);
        *sums.heights.entry(if full { 0 } else { height }).or_default() += duration.as_secs_f64();
    }

    /// Records a failed request.
    pub fn failed(&self, failure: &Failure) {
        let mut sums = self.sums();
        let key = (failure.kind, failure.status, failure.code.clone());
        bump(&mut sums.errors, key, (failure.kind, None, "other".into()), 1);
        if sums.examples.len() < MAX_KEYS && !failure.detail.is_empty() {
            sums.examples.entry(failure.code.clone()).or_insert_with(|| failure.detail.chars().take(300).collect());
        }
    }

    /// Reports went out, or did not.
    pub fn reported(&self, sent: u64, failed: u64, dropped: u64) {
        let mut sums = self.sums();
        sums.reports.sent += sent;
        sums.reports.failed += failed;
        sums.reports.dropped += dropped;
    }

    /// A POST of reports was answered.
    pub fn report_took(&self, took: Duration) {
        let mut sums = self.sums();
        let requests = sums.requests.entry(ResourceKind::Report).or_default();
        requests.count += 1;
        requests.first_byte_seconds.time(took);
        requests.total_seconds.time(took);
    }

    /// One line of progress.
    pub fn progress(&self) -> String {
        let sums = self.sums();
        let at = |state| sums.watching.get(state_name(state)).copied().unwrap_or(0);
        format!(
            "{} playing, {} starting, {} rebuffering, {} failed, {} received",
            at(State::Playing),
            at(State::Starting) + at(State::Seeking),
            at(State::Rebuffering),
            sums.sessions.failed,
            show_bytes(sums.requests.values().map(|r| r.bytes).sum()),
        )
    }

    /// The figures.
    pub fn summary(&self, run: Run) -> Summary {
        let sums = self.sums();
        let bytes = sums.requests.values().map(|r| r.bytes).sum::<u64>();
        let count = sums.requests.values().map(|r| r.count).sum::<u64>();
        let mut playback = sums.playback;
        let watched = playback.played_seconds + playback.rebuffer_seconds;
        playback.rebuffer_ratio = (watched > 0.0).then(|| playback.rebuffer_seconds / watched);
        let per_second = |value: f64| {
            if run.seconds > 0.0 { value / run.seconds } else { 0.0 }
        };
        Summary {
            sessions: sums.sessions,
            startup_seconds: sums.startup.clone(),
            seek_seconds: sums.seek.clone(),
            playback,
            rebuffering_seconds: sums.rebuffering.clone(),
            throughput_megabits_per_second: sums.throughput.clone(),
            delivered_bits_per_second: per_second(bytes as f64 * 8.0),
            bytes,
            requests_per_second: per_second(count as f64),
            requests: sums.requests.iter().map(|(kind, requests)| (kind.name(), requests.clone())).collect(),
            cache: sums.cache.clone(),
            fetched_seconds_by_height: sums.heights.clone(),
            reports: sums.reports,
            errors: (sums.errors.iter())
                .map(|((request, status, code), count)| ErrorCount {
                    request: *request,
                    status: *status,
                    code: code.clone(),
                    count: *count,
                })
                .collect(),
            error_examples: sums.examples.clone(),
            run,
        }
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Playing => "playing",
        State::Rebuffering => "rebuffering",
        State::Seeking => "seeking",
        State::Ended => "ended",
    }
}

/// Counts under `key`, or under `other` once there are too many keys.
fn bump<K: Ord>(map: &mut BTreeMap<K, u64>, key: K, other: K, by: u64) {
    let key = if map.len() < MAX_KEYS || map.contains_key(&key) { key } else { other };
    *map.entry(key).or_default() += by;
}

impl Summary {
    /// Whether the run succeeded: a first frame was shown, and no session failed.
    pub fn succeeded(&self) -> bool {
        self.sessions.failed == 0 && self.sessions.played > 0
    }

    /// For people.
    pub fn render(&self) -> String {
        let (s, p) = (self.sessions, self.playback);
        let startup = self.startup_seconds.figures();
        let throughput = self.throughput_megabits_per_second.figures();
        let rate = |megabits: Option<f64>| show_rate(megabits.map(|m| m * 1e6));
        let mut out = format!(
            "{} viewers, {:.1} s{}: {} sessions, {} saw a picture, {} to the end, {} failed\n",
            self.run.viewers,
            self.run.seconds,
            if self.run.interrupted { " (interrupted)" } else { "" },
            s.started,
            s.played,
            s.ended,
            s.failed
        );
        out += &format!(
            "start-up     p50 {}   p90 {}   p99 {}   max {}\n",
            show_time(startup.p50),
            show_time(startup.p90),
            show_time(startup.p99),
            show_time(startup.max)
        );
        let ratio = p.rebuffer_ratio.map_or("–".into(), |ratio| format!("{:.3} %", ratio * 100.0));
        out += &format!(
            "rebuffering  {ratio} of the time, {} times, {:.1} s; played {:.1} s; {} switches of rendition\n",
            p.rebuffers, p.rebuffer_seconds, p.played_seconds, p.switches
        );
        if p.seeks > 0 {
            let seek = self.seek_seconds.figures();
            out += &format!("seeks        {}   p50 {}   p99 {}\n", p.seeks, show_time(seek.p50), show_time(seek.p99));
        }
        out += &format!(
            "throughput   p50 {} of a video segment; of all viewers together {}\n",
            rate(throughput.p50),
            show_rate(Some(self.delivered_bits_per_second))
        );
        out += &format!(
            "requests     {:.1}/s, {} in all; CMCD reports {} taken, {} failed, {} dropped\n",
            self.requests_per_second,
            show_bytes(self.bytes),
            self.reports.sent,
            self.reports.failed,
            self.reports.dropped
        );
        let mut table = Table::new(&["request", "count", "bytes", "first byte p50", "p99", "whole p50", "p99", "max"]);
        for (kind, requests) in &self.requests {
            let (first, whole) = (requests.first_byte_seconds.figures(), requests.total_seconds.figures());
            let times = [first.p50, first.p99, whole.p50, whole.p99, whole.max].map(show_time);
            table
                .row([(*kind).into(), requests.count.to_string(), show_bytes(requests.bytes)].into_iter().chain(times));
        }
        out += &table.render();
        out += &counts("cache       ", self.cache.iter().map(|(outcome, n)| format!("{outcome} {n}")));
        out += &counts(
            "fetched     ",
            self.fetched_seconds_by_height.iter().map(|(height, seconds)| format!("{height}p {seconds:.0} s")),
        );
        if !self.errors.is_empty() {
            out += "errors\n";
            for error in &self.errors {
                let status = error.status.map_or(String::new(), |status| format!(" {status}"));
                let example = self.error_examples.get(&error.code).map_or(String::new(), |text| format!(": {text}"));
                out += &format!("  {:>6} × {}{status} {}{example}\n", error.count, error.request.name(), error.code);
            }
        }
        out
    }
}

fn counts(head: &str, parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<_> = parts.collect();
    if parts.is_empty() { String::new() } else { format!("{head} {}\n", parts.join(", ")) }
}

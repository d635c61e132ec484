//! Quality of experience as players report it (CMCD, CTA-5004), as metrics.
//!
//! Requests carry bitrate, buffer length and throughput; `ps` events of version 2 tell when a session started, stalled
//! and played. The start-up of a session is observed once, and where a player sends events, `bs` of its requests is
//! ignored, as it reports the same stalls.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use prometheus::{Counter, Histogram, IntCounter, IntGauge, Registry};

use crate::config;
use lyceum_core::telemetry;
use lyceum_core::time::Instant;
use lyceum_http::cmcd::{Event, ObjectType, PlayerState, Report};

/// The longest start-up, stall or stretch of play that is believed, in milliseconds: players' clocks jump.
const MAX_SPAN_MS: i64 = 600_000;

/// Tracks sessions and keeps the metrics.
#[derive(Debug)]
pub(crate) struct Playback {
    sessions: Mutex<HashMap<Box<str>, Session>>,
    most: usize,
    idle: Duration,
    report: usize,
    metrics: Metrics,
}

#[derive(Debug)]
struct Metrics {
    startup: Histogram,
    starts: IntCounter,
    failures: IntCounter,
    rebuffers: IntCounter,
    rebuffer_seconds: Counter,
    played_seconds: Counter,
    bitrate: Histogram,
    buffer: Histogram,
    throughput: Histogram,
    sessions: IntGauge,
}

#[derive(Debug)]
struct Session {
    heard: Instant,
    /// Whether it sends events.
    sends_events: bool,
    state: Option<PlayerState>,
    /// When `state` began, or was last accounted for, by the player's clock.
    since_ms: Option<i64>,
    starting_ms: Option<i64>,
    started: bool,
    failed: bool,
}

impl Playback {
    pub(crate) fn new(config: &config::Playback, registry: &Registry) -> Self {
        let bits = [1e5, 2.5e5, 5e5, 1e6, 1.5e6, 2e6, 3e6, 4e6, 6e6, 8e6, 1.2e7, 2e7, 5e7, 1e8, 1e9];
        let histogram = |name: &str, help: &str, buckets: &[f64]| telemetry::histogram(registry, name, help, buckets);
        Self {
            sessions: Mutex::default(),
            most: usize::try_from(config.sessions).unwrap_or(usize::MAX),
            idle: config.idle.get(),
            report: config.report.as_usize(),
            metrics: Metrics {
                startup: histogram(
                    "lyceum_playback_startup_seconds",
                    "Time from a viewer's play to the first picture.",
                    &[0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 30.0],
                ),
                starts: telemetry::counter(registry, "lyceum_playback_starts_total", "Sessions that began to start."),
                failures: telemetry::counter(
                    registry,
                    "lyceum_playback_failures_total",
                    "Sessions that ended in a fatal error.",
                ),
                rebuffers: telemetry::counter(
                    registry,
                    "lyceum_playback_rebuffers_total",
                    "Times that playback stalled.",
                ),
                rebuffer_seconds: telemetry::fractions(
                    registry,
                    "lyceum_playback_rebuffer_seconds_total",
                    "Seconds that playback stood still for want of data.",
                ),
                played_seconds: telemetry::fractions(
                    registry,
                    "lyceum_playback_played_seconds_total",
                    "Seconds that players played.",
                ),
                bitrate: histogram(
                    "lyceum_playback_bitrate_bits_per_second",
                    "Encoded bitrate of the video that players asked for.",
                    &bits,
                ),
                buffer: histogram(
                    "lyceum_playback_buffer_seconds",
                    "Length of players' buffers when they asked for more.",
                    &[0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0],
                ),
                throughput: histogram(
                    "lyceum_playback_throughput_bits_per_second",
                    "Throughput that players measured.",
                    &bits,
                ),
                sessions: telemetry::gauge(registry, "lyceum_playback_sessions", "Sessions heard of lately."),
            },
        }
    }

    /// The largest body of event reports, in bytes.
    pub(crate) fn largest_report(&self) -> usize {
        self.report
    }

    /// Takes in the report that a request carries, if any (CTA-5004: in the query or in header fields).
    pub(crate) fn heard_request(&self, query: Option<&str>, headers: &HeaderMap, now: Instant) {
        if let Some(report) = Report::of_request(query, headers) {
            self.heard(&report, now);
        }
    }

    /// Takes in one report.
    pub(crate) fn heard(&self, report: &Report, now: Instant) {
        if report.event.is_none() {
            self.observe_request(report);
        }
        let Some(id) = report.session.as_deref() else { return };
        let mut sessions = self.lock();
        if !sessions.contains_key(id) {
            if sessions.len() >= self.most {
                return;
            }
            sessions.insert(id.into(), Session::new(now));
            self.metrics.sessions.set(i64::try_from(sessions.len()).unwrap_or(i64::MAX));
        }
        if let Some(session) = sessions.get_mut(id) {
            session.heard = now;
            session.take(report, &self.metrics);
        }
    }

    fn observe_request(&self, report: &Report) {
        let bits = |kbps: u32| f64::from(kbps) * 1000.0;
        if let (Some(kbps), Some(ObjectType::Video)) = (report.bitrate_kbps, report.kind) {
            self.metrics.bitrate.observe(bits(kbps));
        }
        if let (Some(ms), Some(ObjectType::Video | ObjectType::Audio)) = (report.buffer_ms, report.kind) {
            self.metrics.buffer.observe(f64::from(ms) / 1000.0);
        }
        if let Some(kbps) = report.throughput_kbps.filter(|kbps| *kbps > 0) {
            self.metrics.throughput.observe(bits(kbps));
        }
    }

    /// Forgets sessions without a report for `idle`.
    pub(crate) fn expire(&self, now: Instant) {
        let mut sessions = self.lock();
        sessions.retain(|_, session| now.saturating_duration_since(session.heard) < self.idle);
        self.metrics.sessions.set(i64::try_from(sessions.len()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn new(now: Instant) -> Self {
        Self {
            heard: now,
            sends_events: false,
            state: None,
            since_ms: None,
            starting_ms: None,
            started: false,
            failed: false,
        }
    }

    fn take(&mut self, report: &Report, metrics: &Metrics) {
        let Some(event) = report.event else {
            if report.starved && !self.sends_events {
                metrics.rebuffers.inc();
            }
            return;
        };
        self.sends_events = true;
        self.account(report.at_ms, metrics);
        match (event, report.state) {
            (Event::PlayState, Some(state)) => self.enter(state, report.at_ms, metrics),
            // Players also report errors that they recovered from.
            (Event::Error, Some(PlayerState::FatalError)) => self.fail(metrics),
            _ => {}
        }
    }

    /// Adds the time since the last report to what the session was doing.
    fn account(&mut self, at_ms: Option<i64>, metrics: &Metrics) {
        let (Some(at), Some(since)) = (at_ms, self.since_ms) else { return };
        let seconds = f64::from(i32::try_from(at.saturating_sub(since).clamp(0, MAX_SPAN_MS)).unwrap_or(0)) / 1000.0;
        match self.state {
            Some(PlayerState::Playing) => metrics.played_seconds.inc_by(seconds),
            Some(PlayerState::Rebuffering) if self.started => metrics.rebuffer_seconds.inc_by(seconds),
            _ => {}
        }
        self.since_ms = Some(at.max(since));
    }

    fn enter(&mut self, state: PlayerState, at_ms: Option<i64>, metrics: &Metrics) {
        match state {
            PlayerState::Starting if !self.started && self.starting_ms.is_none() => {
                metrics.starts.inc();
                self.starting_ms = at_ms;
            }
            PlayerState::Playing if !self.started => {
                self.started = true;
                if let (Some(began), Some(at)) = (self.starting_ms, at_ms) {
                    let ms = at.saturating_sub(began).clamp(0, MAX_SPAN_MS);
                    metrics.startup.observe(f64::from(i32::try_from(ms).unwrap_or(0)) / 1000.0);
                }
            }
            // Buffering after a seek is not a stall.
            PlayerState::Rebuffering if self.state == Some(PlayerState::Seeking) => return,
            PlayerState::Rebuffering if self.started && self.state != Some(PlayerState::Rebuffering) => {
                metrics.rebuffers.inc()
            }
            PlayerState::FatalError => self.fail(metrics),
            _ => {}
        }
        self.state = Some(state);
        self.since_ms = at_ms.or(self.since_ms);
    }

    fn fail(&mut self, metrics: &Metrics) {
        if !std::mem::replace(&mut self.failed, true) {
            metrics.failures.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lyceum_core::time::monotonic;

    fn playback() -> Playback {
        Playback::new(&config::Playback { sessions: 3, ..config::Playback::default() }, &Registry::new())
    }

    fn say(playback: &Playback, lines: &str) {
        Report::events(lines).for_each(|report| playback.heard(&report, monotonic()));
    }

    #[tokio::test]
    async fn a_session_counts_once() {
        let playback = playback();
        say(
            &playback,
            "e=ps,sta=s,ts=1000,sid=\"a\"\ne=ps,sta=p,ts=1800,sid=\"a\"\ne=t,ts=3800,sid=\"a\"\n\
             e=ps,sta=r,ts=5800,sid=\"a\"\ne=ps,sta=p,ts=6300,sid=\"a\"\ne=ps,sta=s,ts=7300,sid=\"a\"\n\
             e=ps,sta=p,ts=7400,sid=\"a\"\ne=ps,sta=k,ts=8400,sid=\"a\"\ne=ps,sta=r,ts=8500,sid=\"a\"\n\
             e=ps,sta=p,ts=9500,sid=\"a\"\ne=ps,sta=f,ts=9500,sid=\"a\"\ne=e,ts=9500,sid=\"a\"\n",
        );
        // What requests say of the same stall is not counted again.
        playback.heard(&Report::parse("bs,sid=\"a\",ot=v,br=1000,bl=2000,mtp=5000").unwrap(), monotonic());
        let m = &playback.metrics;
        assert_eq!((m.starts.get(), m.startup.get_sample_count(), m.failures.get()), (1, 1, 1));
        assert!((m.startup.get_sample_sum() - 0.8).abs() < 1e-9);
        assert_eq!(m.rebuffers.get(), 1);
        assert!((m.rebuffer_seconds.get() - 0.5).abs() < 1e-9, "{}", m.rebuffer_seconds.get());
        assert!((m.played_seconds.get() - 6.0).abs() < 1e-9, "{}", m.played_seconds.get());
        assert_eq!(
            (m.bitrate.get_sample_count(), m.buffer.get_sample_count(), m.throughput.get_sample_count()),
            (1, 1, 1)
        );
        assert_eq!(m.sessions.get(), 1);
    }

    #[tokio::test]
    async fn stalls_of_players_without_events_come_from_their_requests() {
        let playback = playback();
        playback.heard(&Report::parse("bs,sid=\"b\"").unwrap(), monotonic());
        assert_eq!(playback.metrics.rebuffers.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_are_bounded_and_forgotten() {
        let playback = playback();
        for n in 0..10 {
            say(&playback, &format!("e=ps,sta=s,ts=1,sid=\"s{n}\""));
        }
        assert_eq!(playback.metrics.sessions.get(), 3);
        playback.expire(monotonic() + Duration::from_secs(61));
        assert_eq!(playback.metrics.sessions.get(), 0);
    }
}

//! One viewer watching one lesson, from pressing play to its end: follows playlists, keeps the buffer filled, chooses
//! renditions, and sends CMCD reports.
//!
//! A single loop starts all fetches that are due, then waits for the next event. [`Playback`] decides what the viewer
//! sees, [`Track`] what to fetch, [`Policy`](super::adaptation::Policy) at which quality.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lyceum_core::time::{Instant, monotonic};
use tokio::sync::watch;
use url::Url;

use super::adaptation::Throughput;
use super::boxes::Expected;
use super::cmcd::{self, Event, Ids, Now, Object};
use super::fetch::{Failure, Fetched, Fetcher, ResourceKind};
use super::ladder::{Ladder, Rung};
use super::opening::{backoff, first_position, lesson_of, open};
use super::playback::{Change, Playback, State, Totals};
use super::random::{random_below, uuid};
use super::reporter::Reporter;
use super::shared::Shared;
use super::tally::End;
use super::track::{Next, Part, Track};
use crate::hls::{self, ByteRange, Playlist};

/// The outcome of a request.
struct FetchOutcome {
    track: usize,
    asked: FetchTarget,
    result: Result<Fetched, Failure>,
}

enum FetchTarget {
    Playlist,
    Init(Url, Option<ByteRange>),
    Segment(Part, usize),
}

struct Session<'a> {
    shared: &'a Shared,
    fetcher: &'a Fetcher,
    ids: Ids,
    reporter: Reporter,
    ladder: Ladder,
    rung: usize,
    throughput: Throughput,
    playback: Playback,
    tracks: Vec<Track>,
    waiting: FuturesUnordered<BoxFuture<'static, FetchOutcome>>,
    seen: State,
    placed: bool,
    starved: bool,
    next_report: Instant,
    next_seek: Option<Instant>,
}

/// Watches the lesson at `url` until its end, a failure, or the end of the run.
pub async fn watch_lesson(shared: &Shared, fetcher: &Fetcher, url: &Url) -> End {
    let pressed = monotonic();
    shared.tally.session_started();
    shared.tally.screen(None, Some(State::Starting));
    let ids = Ids { sid: uuid(), cid: lesson_of(url) };
    let mut reporter = Reporter::new(ids.clone(), shared.clock.clone(), shared.behaviour.reports);
    reporter.push(
        &Event::State { stalled: None, delay: None },
        's',
        &Now::default(),
        Duration::ZERO,
        Duration::ZERO,
        &shared.tally,
    );
    // Set before the edge has answered, so that a refusal is reported too.
    reporter.send_beside(url);
    let mut stop = shared.stop.clone();
    let opened = tokio::select! {
        opened = open(shared, fetcher, url, &ids) => opened,
        _ = stop.wait_for(|stop| *stop) => {
            shared.tally.screen(Some(State::Starting), None);
            shared.tally.session_over(Totals::default(), &End::Stopped);
            return End::Stopped;
        }
    };
    let (base, ladder) = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            for event in [Event::Error(failure.code.clone()), Event::State { stalled: None, delay: None }] {
                reporter.push(&event, 'f', &Now::default(), Duration::ZERO, Duration::ZERO, &shared.tally);
            }
            reporter.flush(fetcher, &shared.tally).await;
            shared.tally.screen(Some(State::Starting), None);
            let end = End::Failed(failure);
            shared.tally.session_over(Totals::default(), &end);
            return end;
        }
    };
    reporter.send_beside(&base);
    let session = Session::new(shared, fetcher, ids, reporter, ladder, pressed);
    session.run(stop).await
}

impl<'a> Session<'a> {
    fn new(
        shared: &'a Shared,
        fetcher: &'a Fetcher,
        ids: Ids,
        reporter: Reporter,
        ladder: Ladder,
        pressed: Instant,
    ) -> Self {
        let behaviour = &shared.behaviour;
        let rung = behaviour.abr.choose(ladder.bandwidths(), 0, None, Duration::ZERO, Duration::ZERO);
        let first = ladder.rung(rung);
        let mut tracks = vec![Track::new(false, first.video.clone())];
        tracks.extend(first.audio.clone().map(|audio| Track::new(true, audio)));
        let playback = Playback::start(behaviour.buffer, tracks.len(), Duration::ZERO, pressed);
        let now = monotonic();
        Self {
            shared,
            fetcher,
            ids,
            reporter,
            ladder,
            rung,
            playback,
            tracks,
            throughput: Throughput::default(),
            waiting: FuturesUnordered::new(),
            seen: State::Starting,
            placed: false,
            starved: false,
            next_report: now + behaviour.report_interval,
            next_seek: behaviour.seek.map(|mean| now + spread(mean)),
        }
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) -> End {
        let end = loop {
            let now = monotonic();
            if let Some(change) = self.playback.advance(now) {
                self.changed(change);
            }
            if self.playback.state() == State::Ended {
                break End::Ended;
            }
            self.tick(now);
            let wake = match self.start_requests(now) {
                Ok(wake) => wake,
                Err(failure) => break End::Failed(failure),
            };
            tokio::select! {
                Some(answer) = self.waiting.next(), if !self.waiting.is_empty() => {
                    let now = monotonic();
                    if let Some(change) = self.playback.advance(now) {
                        self.changed(change);
                    }
                    if let Err(failure) = self.answered(answer, now) {
                        break End::Failed(failure);
                    }
                }
                () = self.reporter.turn(self.fetcher, &self.shared.tally) => {}
                () = tokio::time::sleep_until(wake) => {}
                _ = stop.wait_for(|stop| *stop) => break End::Stopped,
            }
        };
        self.close(end).await
    }

    /// Timed actions: interval reports and seeks.
    fn tick(&mut self, now: Instant) {
        if now >= self.next_report {
            self.next_report = now + self.shared.behaviour.report_interval;
            self.report(&Event::Interval, Duration::ZERO);
        }
        let (Some(at), Some(mean)) = (self.next_seek, self.shared.behaviour.seek) else {
            return;
        };
        if now < at || self.playback.state() != State::Playing {
            return;
        }
        self.next_seek = Some(now + spread(mean));
        let reach =
            self.tracks.iter().filter_map(|track| track.media().map(hls::Media::duration)).min().unwrap_or_default();
        let to = Duration::from_millis(random_below(u64::try_from(reach.as_millis()).unwrap_or(0)));
        let starts: Vec<Duration> = self.tracks.iter_mut().map(|track| track.seek(to)).collect();
        if let Some(change) = self.playback.seek(to, &starts) {
            // Answers to requests from before the seek would be taken for media at the new place.
            self.waiting.clear();
            self.tracks.iter_mut().for_each(|track| track.busy = false);
            self.changed(change);
        }
    }

    /// Starts the requests that tracks need. Returns when to look again.
    fn start_requests(&mut self, now: Instant) -> Result<Instant, Failure> {
        let mut wake = self.next_report;
        for at in self.playback.wake().into_iter().chain(self.next_seek.filter(|at| *at > now)) {
            wake = wake.min(at);
        }
        for index in 0..self.tracks.len() {
            // Sound waits until the pictures' playlist has said where to begin.
            let hungry = self.playback.wants(index) && (self.placed || index == 0);
            let Some(track) = self.tracks.get(index) else {
                continue;
            };
            let kind = if track.audio { ResourceKind::Audio } else { ResourceKind::Video };
            let next = track
                .next(now, hungry)
                .map_err(|what| self.fatal(Failure::new(kind, "playlist_invalid", what, false)))?;
            match next {
                Next::Idle => {}
                Next::Wait(at) => wake = wake.min(at),
                Next::Complete => {
                    let reached = self.playback.reaches(index);
                    if let Some(change) = self.playback.arrived(index, reached, true) {
                        self.changed(change);
                    }
                    wake = wake.min(self.playback.wake().unwrap_or(wake));
                }
                next => self.ask(index, kind, next),
            }
        }
        Ok(wake)
    }

    fn ask(&mut self, index: usize, kind: ResourceKind, next: Next) {
        let fetcher = self.fetcher.clone();
        let work = match next {
            Next::Playlist(url) => {
                let cmcd = self.cmcd(Object::Manifest);
                async move {
                    let result = fetcher.playlist(ResourceKind::Playlist, url, cmcd).await;
                    FetchOutcome { track: index, asked: FetchTarget::Playlist, result }
                }
                .boxed()
            }
            Next::Init(url, range) => {
                let cmcd = self.cmcd(Object::Init);
                async move {
                    let result = fetcher.media(ResourceKind::Init, url.clone(), range, cmcd, Expected::Init).await;
                    FetchOutcome { track: index, asked: FetchTarget::Init(url, range), result }
                }
                .boxed()
            }
            Next::Segment(part) => {
                let duration = part.end.saturating_sub(part.start);
                let cmcd = self.cmcd(Object::Segment {
                    audio: kind == ResourceKind::Audio,
                    duration,
                    next: part.next.as_deref(),
                });
                let expected = if part.opaque { Expected::Anything } else { Expected::Segment };
                let rung = self.rung;
                async move {
                    let result = fetcher.media(kind, part.url.clone(), part.range, cmcd, expected).await;
                    FetchOutcome { track: index, asked: FetchTarget::Segment(part, rung), result }
                }
                .boxed()
            }
            Next::Wait(_) | Next::Idle | Next::Complete => return,
        };
        if let Some(track) = self.tracks.get_mut(index) {
            track.busy = true;
        }
        self.waiting.push(work);
    }

    fn answered(&mut self, answer: FetchOutcome, now: Instant) -> Result<(), Failure> {
        let FetchOutcome { track: index, asked, result } = answer;
        let retries = self.shared.behaviour.retries;
        let Some(track) = self.tracks.get_mut(index) else {
            return Ok(());
        };
        track.busy = false;
        let fetched = match result {
            Ok(fetched) => fetched,
            Err(failure) => {
                self.shared.tally.failed(&failure);
                track.tries += 1;
                track.pause_until(now + backoff(track.tries));
                return if failure.retry && track.tries <= retries { Ok(()) } else { Err(failure) };
            }
        };
        track.tries = 0;
        let audio = track.audio;
        match asked {
            FetchTarget::Playlist => {
                self.shared.tally.fetched(ResourceKind::Playlist, &fetched);
                self.playlist_read(index, fetched, now)
            }
            FetchTarget::Init(url, range) => {
                self.shared.tally.fetched(ResourceKind::Init, &fetched);
                track.init_read(url, range);
                Ok(())
            }
            FetchTarget::Segment(part, rung) => {
                track.segment_read(&part);
                self.shared.tally.fetched(if audio { ResourceKind::Audio } else { ResourceKind::Video }, &fetched);
                let change = self.playback.arrived(index, part.end, part.last);
                if !audio {
                    let height = self.ladder.rung(rung).height;
                    self.shared.tally.video(height, part.end.saturating_sub(part.start), &fetched);
                    self.throughput.sample(fetched.bytes, fetched.took);
                    self.adapt();
                }
                if let Some(change) = change {
                    self.changed(change);
                }
                Ok(())
            }
        }
    }

    fn playlist_read(&mut self, index: usize, fetched: Fetched, now: Instant) -> Result<(), Failure> {
        let wrong = |code: &str, what: String| Failure::new(ResourceKind::Playlist, code, what, false);
        let media = match hls::parse(&fetched.body) {
            Ok(Playlist::Media(media)) => media,
            Ok(Playlist::Multivariant(_)) => {
                return Err(self.fatal(wrong("playlist_invalid", "renditions where segments should be".into())));
            }
            Err(error) => return Err(self.fatal(wrong("playlist_invalid", error.to_string()))),
        };
        let mut base = fetched.url;
        base.set_query(None);
        let Some(track) = self.tracks.get_mut(index) else {
            return Ok(());
        };
        if let Err((code, what)) = track.playlist_read(base, media, now) {
            return Err(self.fatal(wrong(code, what)));
        }
        if index == 0 && !self.placed {
            self.placed = true;
            let begin = self.tracks.first().and_then(Track::media).map_or(Duration::ZERO, first_position);
            let starts: Vec<Duration> = self.tracks.iter_mut().map(|track| track.seek(begin)).collect();
            self.playback.place(begin, &starts);
        }
        Ok(())
    }

    fn adapt(&mut self) {
        let behaviour = &self.shared.behaviour;
        let scarce = behaviour.buffer.startup.max(behaviour.buffer.target / 4);
        let (ladder, estimate) = (self.ladder.bandwidths(), self.throughput.estimate());
        let chosen = behaviour.abr.choose(ladder, self.rung, estimate, self.playback.buffered(), scarce);
        if chosen == self.rung {
            return;
        }
        self.rung = chosen;
        let rung = self.ladder.rung(chosen).clone();
        for track in &mut self.tracks {
            match (&rung.audio, track.audio) {
                (_, false) => track.switch(rung.video.clone()),
                (Some(audio), true) => track.switch(audio.clone()),
                (None, true) => {}
            }
        }
        self.shared.tally.switched();
        self.report(&Event::Bitrate, Duration::ZERO);
    }

    /// Records a change of the playback state.
    fn changed(&mut self, change: Change) {
        let tally = &self.shared.tally;
        let before = std::mem::replace(&mut self.seen, change.state);
        tally.screen(Some(before), Some(change.state));
        let playing = change.state == State::Playing;
        let (mut stalled, mut delay) = (None, None);
        match before {
            State::Starting if playing => {
                tally.first_picture(change.after);
                delay = Some(change.after);
            }
            State::Rebuffering => {
                tally.rebuffered(change.after);
                stalled = Some(change.after).filter(|_| playing);
            }
            State::Seeking if playing => tally.sought(change.after),
            _ => {}
        }
        self.starved |= change.state == State::Rebuffering;
        let ago = monotonic().saturating_duration_since(change.at);
        self.report(&Event::State { stalled, delay }, ago);
    }

    fn report(&mut self, event: &Event, ago: Duration) {
        let now = self.now();
        let position = self.playback.position();
        self.reporter.push(event, letter(self.playback.state()), &now, position, ago, &self.shared.tally);
    }

    fn now(&self) -> Now {
        let Rung { bandwidth, .. } = self.ladder.rung(self.rung);
        Now {
            buffered: self.playback.buffered(),
            throughput: self.throughput.estimate(),
            bitrate: *bandwidth,
            top_bitrate: self.ladder.bandwidths().last().copied().unwrap_or(0),
            growing: self.tracks.iter().any(|track| track.media().is_some() && track.growing()),
        }
    }

    fn cmcd(&mut self, object: Object<'_>) -> String {
        if !self.shared.behaviour.cmcd {
            return String::new();
        }
        let urgent = self.playback.state() != State::Playing;
        let starved = std::mem::take(&mut self.starved);
        cmcd::request(&self.ids, object, &self.now(), urgent, starved)
    }

    /// Counts a failure other than that of a request.
    fn fatal(&self, failure: Failure) -> Failure {
        self.shared.tally.failed(&failure);
        failure
    }

    async fn close(mut self, end: End) -> End {
        // What was shown since the loop last looked.
        if let Some(change) = self.playback.advance(monotonic()) {
            self.changed(change);
        }
        let tally = &self.shared.tally;
        tally.screen(Some(self.playback.state()), None);
        let totals = self.playback.totals();
        let now = self.now();
        let position = self.playback.position();
        let state = |letter| (Event::State { stalled: None, delay: None }, letter);
        let last = match &end {
            // Reaching the end was reported when it happened.
            End::Ended => None,
            End::Stopped => Some(state('q')),
            End::Failed(failure) => {
                let event = Event::Error(failure.code.clone());
                self.reporter.push(&event, 'f', &now, position, Duration::ZERO, tally);
                Some(state('f'))
            }
        };
        if let Some((event, letter)) = last {
            self.reporter.push(&event, letter, &now, position, Duration::ZERO, tally);
        }
        // Pending requests are cancelled before the last report.
        self.waiting.clear();
        self.reporter.flush(self.fetcher, tally).await;
        tally.session_over(totals, &end);
        end
    }
}

/// Between half of `mean` and one and a half times it.
fn spread(mean: Duration) -> Duration {
    let millis = u64::try_from(mean.as_millis()).unwrap_or(u64::MAX);
    mean / 2 + Duration::from_millis(random_below(millis))
}

fn letter(state: State) -> char {
    match state {
        State::Starting => 's',
        State::Playing => 'p',
        State::Rebuffering => 'r',
        State::Seeking => 'k',
        State::Ended => 'e',
    }
}

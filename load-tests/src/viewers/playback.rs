//! The playback state of a player, given the media that has arrived: start-up, play, rebuffering, seeking, end.
//!
//! No I/O: instants are passed in, and it knows nothing of requests. The definitions are the ones dashboards use:
//! *start-up* is from pressing play to the first picture, *rebuffering* is a picture that stopped for lack of media
//! after it had started (neither start-up nor a seek), and the *rebuffer ratio* is rebuffering over rebuffering and
//! play together.

use std::time::Duration;

use lyceum_core::time::Instant;

/// How much media a player wants to hold.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Media ahead of the playhead before play starts, or starts again after rebuffering or a seek.
    pub startup: Duration,
    /// Media ahead of the playhead at which it stops fetching.
    pub target: Duration,
}

/// What the viewer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Play was pressed, and there was no picture yet.
    Starting,
    /// The picture moves.
    Playing,
    /// The picture stopped for lack of media.
    Rebuffering,
    /// The viewer moved the playhead, and the picture is not there yet.
    Seeking,
    /// The end was reached.
    Ended,
}

/// A state that was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The new state.
    pub state: State,
    /// When, which may be before the call that reports it.
    pub at: Instant,
    /// How long the state before it had lasted.
    pub after: Duration,
}

/// Sums over the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// From play pressed to the first picture; `None` until then.
    pub startup: Option<Duration>,
    /// Media shown.
    pub played: Duration,
    /// Time spent rebuffering.
    pub rebuffered: Duration,
    /// How often.
    pub rebuffers: u64,
    /// Seeks that reached their picture.
    pub seeks: u64,
    /// Time from moving the playhead to the picture, of those.
    pub seeking: Duration,
}

/// One track's media: how far it reaches without a gap.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    until: Duration,
    complete: bool,
}

/// The screen and its buffer.
#[derive(Debug)]
pub struct Playback {
    settings: Settings,
    tracks: Vec<Track>,
    state: State,
    since: Instant,
    last: Instant,
    position: Duration,
    totals: Totals,
}

impl Playback {
    /// Play is pressed at `now`, on media of `tracks` parallel tracks (at least one), at `position`.
    pub fn start(settings: Settings, tracks: usize, position: Duration, now: Instant) -> Self {
        let track = Track { until: position, complete: false };
        Self {
            settings,
            tracks: vec![track; tracks.max(1)],
            state: State::Starting,
            since: now,
            last: now,
            position,
            totals: Totals::default(),
        }
    }

    /// The playlist says to begin at `to`. Before anything arrived; later it has no effect.
    pub fn place(&mut self, to: Duration, starts: &[Duration]) {
        let untouched = self.tracks.iter().all(|track| track.until == self.position && !track.complete);
        if self.state == State::Starting && untouched {
            self.position = to;
            for (index, track) in self.tracks.iter_mut().enumerate() {
                track.until = starts.get(index).copied().unwrap_or(to);
            }
        }
    }

    /// What the viewer sees.
    pub fn state(&self) -> State {
        self.state
    }

    /// Where the playhead is.
    pub fn position(&self) -> Duration {
        self.position
    }

    /// Sums so far, the state that lasts included.
    pub fn totals(&self) -> Totals {
        let mut totals = self.totals;
        if self.state == State::Rebuffering {
            totals.rebuffered += self.last.saturating_duration_since(self.since);
        }
        totals
    }

    /// Media that can be shown without anything more arriving.
    pub fn buffered(&self) -> Duration {
        self.end_of_buffer().saturating_sub(self.position)
    }

    /// How far `track` reaches.
    pub fn reaches(&self, track: usize) -> Duration {
        self.tracks.get(track).map_or(Duration::ZERO, |track| track.until)
    }

    /// Whether `track` should fetch its next segment.
    pub fn wants(&self, track: usize) -> bool {
        self.tracks
            .get(track)
            .is_some_and(|t| !t.complete && t.until.saturating_sub(self.position) < self.settings.target)
    }

    /// When the state will change, or a track will want more, if nothing arrives. `None`: not before something arrives.
    pub fn wake(&self) -> Option<Instant> {
        if self.state != State::Playing {
            return None;
        }
        let empty = self.end_of_buffer();
        let hungry = self
            .tracks
            .iter()
            .filter(|track| !track.complete)
            .map(|track| track.until.saturating_sub(self.settings.target));
        let next = hungry.filter(|at| *at > self.position).chain([empty]).min().unwrap_or(empty);
        // One millisecond behind: just short of a target is not short of it.
        Some(self.last + next.saturating_sub(self.position) + Duration::from_millis(1))
    }

    /// Time passes; tells what changed by itself, in order.
    pub fn advance(&mut self, now: Instant) -> Option<Change> {
        let passed = now.saturating_duration_since(self.last);
        if self.state != State::Playing {
            self.last += passed;
            return None;
        }
        let shown = passed.min(self.buffered());
        self.position += shown;
        self.totals.played += shown;
        let stopped = self.last + shown;
        self.last += passed;
        if self.buffered() > Duration::ZERO {
            return None;
        }
        let state = if self.complete() { State::Ended } else { State::Rebuffering };
        Some(self.enter(state, stopped))
    }

    /// Media of `track` arrived up to `until`; with `complete`, there is no more of it. Call `advance` first.
    pub fn arrived(&mut self, track: usize, until: Duration, complete: bool) -> Option<Change> {
        if let Some(track) = self.tracks.get_mut(track) {
            track.until = track.until.max(until);
            track.complete |= complete;
        }
        let waiting = matches!(self.state, State::Starting | State::Rebuffering | State::Seeking);
        if !waiting || !(self.complete() || self.buffered() >= self.settings.startup) {
            return None;
        }
        let state = if self.buffered() > Duration::ZERO { State::Playing } else { State::Ended };
        Some(self.enter(state, self.last))
    }

    /// The viewer moves the playhead to `to`: what is buffered is dropped, and each track goes on from where `starts`
    /// says that its segment under the new playhead begins. Call `advance` first.
    pub fn seek(&mut self, to: Duration, starts: &[Duration]) -> Option<Change> {
        if matches!(self.state, State::Starting | State::Ended) {
            return None;
        }
        for (index, track) in self.tracks.iter_mut().enumerate() {
            *track = Track { until: starts.get(index).copied().unwrap_or(to), complete: false };
        }
        self.position = to;
        Some(self.enter(State::Seeking, self.last))
    }

    fn complete(&self) -> bool {
        self.tracks.iter().all(|track| track.complete)
    }

    /// The shortest track that still grows holds the picture back; of complete ones the longest is played out.
    fn end_of_buffer(&self) -> Duration {
        let growing = self.tracks.iter().filter(|track| !track.complete).map(|track| track.until).min();
        growing.or_else(|| self.tracks.iter().map(|track| track.until).max()).unwrap_or(self.position)
    }

    fn enter(&mut self, state: State, at: Instant) -> Change {
        let after = at.saturating_duration_since(self.since);
        match self.state {
            State::Starting => self.totals.startup = Some(after),
            State::Rebuffering => self.totals.rebuffered += after,
            State::Seeking if state != State::Seeking => {
                self.totals.seeks += 1;
                self.totals.seeking += after;
            }
            _ => {}
        }
        self.totals.rebuffers += u64::from(state == State::Rebuffering);
        self.state = state;
        self.since = at;
        Change { state, at, after }
    }
}

#[cfg(test)]
mod tests {
    use lyceum_core::time::monotonic;
    use proptest::prelude::*;

    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn player(tracks: usize) -> (Playback, Instant) {
        let now = monotonic();
        (Playback::start(Settings { startup: ms(2000), target: ms(30_000) }, tracks, Duration::ZERO, now), now)
    }

    #[test]
    fn the_picture_starts_when_every_track_has_enough() {
        let (mut playback, t0) = player(2);
        playback.advance(t0 + ms(300));
        assert_eq!(playback.arrived(0, ms(4000), false), None);
        playback.advance(t0 + ms(450));
        let change = playback.arrived(1, ms(4000), false);
        assert_eq!(change, Some(Change { state: State::Playing, at: t0 + ms(450), after: ms(450) }));
        assert_eq!(playback.totals().startup, Some(ms(450)));
    }

    #[test]
    fn an_empty_buffer_stops_the_picture_at_the_moment_it_is_empty() {
        let (mut playback, t0) = player(2);
        playback.arrived(0, ms(8000), false);
        playback.arrived(1, ms(4000), false);
        assert_eq!(playback.wake(), Some(t0 + ms(4001)));
        // The loop that calls may be late; the model is not.
        let change = playback.advance(t0 + ms(4700));
        assert_eq!(change, Some(Change { state: State::Rebuffering, at: t0 + ms(4000), after: ms(4000) }));
        assert_eq!(playback.totals().rebuffered, ms(700));
        playback.advance(t0 + ms(5000));
        assert_eq!(playback.arrived(1, ms(8000), false).map(|c| c.after), Some(ms(1000)));
        let totals = playback.totals();
        assert_eq!((totals.played, totals.rebuffered, totals.rebuffers), (ms(4000), ms(1000), 1));
    }

    #[test]
    fn a_track_that_ends_early_does_not_hold_the_other_back() {
        let (mut playback, t0) = player(2);
        playback.arrived(0, ms(9000), true);
        playback.arrived(1, ms(6000), true);
        assert_eq!(playback.advance(t0 + ms(8999)), None);
        assert_eq!(playback.advance(t0 + ms(20_000)).map(|c| (c.state, c.at)), Some((State::Ended, t0 + ms(9000))));
        assert_eq!(playback.totals().played, ms(9000));
        assert_eq!(playback.totals().rebuffers, 0, "an end is no rebuffering");
    }

    #[test]
    fn less_than_the_threshold_is_enough_when_there_is_no_more() {
        let (mut playback, _) = player(1);
        assert_eq!(playback.arrived(0, ms(1000), true).map(|c| c.state), Some(State::Playing));
    }

    #[test]
    fn a_seek_is_neither_startup_nor_rebuffering() {
        let (mut playback, t0) = player(1);
        playback.arrived(0, ms(20_000), false);
        playback.advance(t0 + ms(1000));
        assert_eq!(playback.seek(ms(61_000), &[ms(60_000)]).map(|c| c.state), Some(State::Seeking));
        assert_eq!(playback.buffered(), Duration::ZERO);
        playback.advance(t0 + ms(1500));
        assert_eq!(playback.arrived(0, ms(64_000), false).map(|c| c.after), Some(ms(500)));
        assert_eq!(playback.buffered(), ms(3000));
        let totals = playback.totals();
        assert_eq!(
            (totals.seeks, totals.seeking, totals.rebuffers, totals.rebuffered),
            (1, ms(500), 0, Duration::ZERO)
        );
    }

    proptest! {
        /// Whatever arrives whenever: every moment since play was pressed is accounted for exactly once, and no
        /// more was shown than had arrived.
        #[test]
        fn time_adds_up(steps in prop::collection::vec((0u64..6000, 0usize..2, 0u64..6000), 1..60), finish in any::<bool>()) {
            let (mut playback, t0) = player(2);
            let mut now = t0;
            let mut ended = None;
            for (wait, track, more) in &steps {
                now += ms(*wait);
                let mut changes = vec![playback.advance(now)];
                let until = playback.reaches(*track) + ms(*more);
                changes.push(playback.arrived(*track, until, false));
                prop_assert!(changes.iter().flatten().all(|c| c.at >= t0 && c.at <= now));
            }
            if finish {
                for track in 0..2 {
                    playback.arrived(track, Duration::ZERO, true);
                }
                now += ms(1_000_000);
                ended = playback.advance(now).map(|c| c.at);
            }
            let totals = playback.totals();
            let shown = playback.reaches(0).max(playback.reaches(1));
            prop_assert!(totals.played <= shown);
            let until = ended.unwrap_or(now).saturating_duration_since(t0);
            if playback.state() != State::Starting && !(finish && ended.is_none()) {
                prop_assert_eq!(totals.startup.unwrap() + totals.played + totals.rebuffered, until);
            }
            if ended.is_some() {
                prop_assert_eq!(totals.played, shown, "all that arrived was shown");
            }
        }
    }
}

//! Which of a plan's objects exist so far: the input of playlists, growing and complete alike.

use std::collections::BTreeMap;

use crate::grid::Grid;
use crate::handover::{DeliveredObject, ObjectKind, TrackFacts};
use crate::plan::Plan;
use crate::task::TaskSpec;
use crate::track::{TrackPlan, ticks_ms};

/// The existing objects of a lesson's version.
#[derive(Clone, Debug)]
pub struct ObjectIndex<'a> {
    plan: &'a Plan,
    tracks: Vec<TrackIndex<'a>>,
    extras: Vec<String>,
}

/// The existing objects of one track.
#[derive(Clone, Debug)]
pub struct TrackIndex<'a> {
    /// The track as planned.
    pub plan: &'a TrackPlan,
    /// What its init segment declares, once that exists.
    pub facts: Option<TrackFacts>,
    /// The init segment's size in bytes.
    pub init_bytes: u64,
    grid: &'a Grid,
    segments: BTreeMap<u32, Segment>,
}

/// One existing segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// Its number.
    pub n: u32,
    /// Where it starts, in ticks.
    pub start: u64,
    /// How long it is, in ticks.
    pub duration: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// How many of its bytes hold its header and first key frame.
    pub key_bytes: Option<u64>,
    /// Its structural similarity to the source (SSIM), where measured.
    pub ssim: Option<f64>,
}

impl<'a> ObjectIndex<'a> {
    /// The index of `handovers`; those that do not belong to the plan are left out.
    pub fn new<'h>(plan: &'a Plan, handovers: impl IntoIterator<Item = &'h DeliveredObject>) -> Self {
        let grid = &plan.grid;
        let empty = |plan| TrackIndex { plan, facts: None, init_bytes: 0, grid, segments: BTreeMap::new() };
        let mut index = Self { plan, tracks: plan.tracks.iter().map(empty).collect(), extras: Vec::new() };
        for handover in handovers {
            index.add(handover);
        }
        index
    }

    fn add(&mut self, handover: &DeliveredObject) {
        if handover.check(self.plan).is_err() {
            return;
        }
        if matches!(handover.kind, ObjectKind::Image | ObjectKind::Text) {
            self.extras.push(handover.path.clone());
            return;
        }
        let Some(track) = self.tracks.iter_mut().find(|t| t.plan.name == handover.track) else { return };
        if handover.kind == ObjectKind::Init {
            track.facts = handover.facts.clone();
            track.init_bytes = handover.bytes;
            return;
        }
        let DeliveredObject { n, start, duration, bytes, key_bytes, ssim, .. } = *handover;
        track.segments.insert(n, Segment { n, start, duration, bytes, key_bytes, ssim });
    }

    /// The plan.
    pub fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// The tracks, in the plan's order.
    pub fn tracks(&self) -> &[TrackIndex<'a>] {
        &self.tracks
    }

    /// The track named `name`.
    pub fn track(&self, name: &str) -> Option<&TrackIndex<'a>> {
        self.tracks.iter().find(|t| t.plan.name == name)
    }

    /// Whether an object outside of tracks, such as `poster.jpg`, exists.
    pub fn has(&self, path: &str) -> bool {
        self.extras.iter().any(|p| p == path)
    }

    /// Whether the object of `handover` exists already.
    pub fn holds(&self, handover: &DeliveredObject) -> bool {
        let track = || self.track(&handover.track);
        match handover.kind {
            ObjectKind::Image | ObjectKind::Text => self.has(&handover.path),
            ObjectKind::Init => track().is_some_and(|track| track.facts.is_some()),
            ObjectKind::Segment => track().is_some_and(|track| track.segment(handover.n).is_some()),
        }
    }

    /// The path of the first object that a task must deliver and that does not exist. The poster and the storyboard are
    /// never missing: a blank video has none.
    pub fn first_missing(&self, spec: &TaskSpec) -> Option<String> {
        let of_track = |name: &str, first: u32, count: u32| {
            let Some(track) = self.track(name) else { return Some(name.to_owned()) };
            // Only the first task of a track makes the init segment; others may be done before it.
            if first == 0 && !track.has_init() {
                return Some(track.plan.init_path());
            }
            let last = first.saturating_add(count).min(track.plan.segments);
            let missing = (first..last).find(|n| track.segment(*n).is_none())?;
            Some(track.plan.segment_path(&self.plan.grid, missing))
        };
        match spec {
            TaskSpec::Probe | TaskSpec::Images(_) => None,
            TaskSpec::Video(task) => {
                task.renditions.iter().find_map(|r| of_track(&r.track, task.first_segment, task.segments))
            }
            TaskSpec::Audio(task) => of_track(&task.track, task.first_segment, task.segments),
            TaskSpec::Subtitles(task) => task.tracks.iter().find_map(|t| of_track(&t.track.name, 0, t.track.segments)),
        }
    }

    /// The tracks that a player needs: video and audio.
    fn required(&self) -> impl Iterator<Item = &TrackIndex<'a>> {
        self.tracks.iter().filter(|t| !t.plan.is_text())
    }

    /// Whether every segment of every track exists.
    pub fn complete(&self) -> bool {
        self.tracks.iter().all(TrackIndex::complete)
    }

    /// Whether video and audio have their init and first segments, so that the multivariant playlist can be written.
    pub fn begun(&self) -> bool {
        self.required().all(|t| t.facts.is_some() && t.segments.contains_key(&0))
    }

    /// How many milliseconds from the start can be played in every rendition.
    pub fn ready_ms(&self) -> u64 {
        self.required().map(TrackIndex::ready_ms).min().unwrap_or(0)
    }

    /// The share of all segments that exists, 0 to 1.
    pub fn progress(&self) -> f64 {
        let wanted: u64 = self.tracks.iter().map(|t| u64::from(t.plan.segments)).sum();
        let existing: u64 = self.tracks.iter().map(|t| t.segments.len() as u64).sum();
        if wanted == 0 { 0.0 } else { existing as f64 / wanted as f64 }
    }
}

impl TrackIndex<'_> {
    /// The segments from the first on without a gap.
    pub fn contiguous(&self) -> impl Iterator<Item = &Segment> {
        self.segments.values().zip(0u32..).take_while(|(segment, n)| segment.n == *n).map(|(segment, _)| segment)
    }

    /// Segment `n`, if it exists.
    pub fn segment(&self, n: u32) -> Option<&Segment> {
        self.segments.get(&n)
    }

    /// Whether its init segment exists; text needs none.
    pub fn has_init(&self) -> bool {
        self.facts.is_some() || self.plan.is_text()
    }

    /// Whether the init segment and all segments exist.
    pub fn complete(&self) -> bool {
        self.has_init() && self.segments.len() as u64 == u64::from(self.plan.segments)
    }

    fn ready_ms(&self) -> u64 {
        if self.facts.is_none() {
            return 0;
        }
        self.contiguous().last().map_or(0, |s| ticks_ms(s.start + s.duration, self.plan.timescale))
    }

    /// The target duration of its playlist in seconds: the longest segment, rounded to the nearest second (RFC 8216bis,
    /// section 4.4.3.1). It does not change while the playlist grows: audio segments differ by a frame, so
    /// planned durations stand for segments to come.
    pub fn target_duration(&self) -> u64 {
        let planned = (0..self.plan.segments.min(2)).chain(self.plan.segments.checked_sub(1));
        let planned = planned.map(|n| self.plan.segment(self.grid, n).1);
        let longest = planned.chain(self.contiguous().map(|s| s.duration)).max().unwrap_or(0);
        let timescale = u64::from(self.plan.timescale.max(1));
        ((longest + timescale / 2) / timescale).max(1)
    }

    /// The peak segment bit rate (RFC 8216bis, section 4.4.6.2), in bits per second; 0 while there is no segment.
    pub fn peak_bitrate(&self) -> u64 {
        self.peak_of(|segment| Some(segment.bytes))
    }

    /// The same of the key frames alone, which a scrubbing player reads; `None` where their sizes are not known.
    pub fn key_peak_bitrate(&self) -> Option<u64> {
        Some(self.peak_of(|segment| segment.key_bytes)).filter(|rate| *rate > 0)
    }

    /// The highest rate of any run of segments that lasts half to one and a half times the target duration: a short
    /// last segment, nearly all of which is a key frame, would overstate what a connection must carry.
    fn peak_of(&self, bytes: impl Fn(&Segment) -> Option<u64>) -> u64 {
        let target = self.target_duration().saturating_mul(u64::from(self.plan.timescale));
        let segments: Vec<(u64, u64)> = self.contiguous().filter_map(|s| Some((bytes(s)?, s.duration))).collect();
        let sums = |from: usize| {
            segments.iter().skip(from).scan((0u64, 0u64), |(bytes, duration), segment| {
                (*bytes, *duration) = (bytes.saturating_add(segment.0), duration.saturating_add(segment.1));
                Some((*bytes, *duration))
            })
        };
        let of_run = |(bytes, duration): (u64, u64)| rate(bytes, duration, self.plan.timescale);
        let within = |from: usize| {
            let runs = sums(from).take_while(|(_, duration)| duration.saturating_mul(2) <= target.saturating_mul(3));
            runs.filter(|(_, duration)| duration.saturating_mul(2) >= target).map(of_run).max()
        };
        let whole = || sums(0).last().map_or(0, of_run);
        (0..segments.len()).filter_map(within).max().unwrap_or_else(whole)
    }

    /// The mean structural similarity (SSIM) to the source over the measured segments; none where none was measured.
    pub fn ssim(&self) -> Option<f64> {
        let (sum, count) = self.segments.values().filter_map(|s| s.ssim).fold((0.0, 0u32), |(s, n), x| (s + x, n + 1));
        (count > 0).then(|| sum / f64::from(count))
    }

    /// The mean bit rate of the existing segments, in bits per second.
    pub fn average_bitrate(&self) -> u64 {
        let bytes = self.segments.values().map(|s| s.bytes).sum();
        let duration = self.segments.values().map(|s| s.duration).sum();
        rate(bytes, duration, self.plan.timescale)
    }
}

fn rate(bytes: u64, duration: u64, timescale: u32) -> u64 {
    let bits = u128::from(bytes) * 8 * u128::from(timescale);
    u64::try_from(bits.div_ceil(u128::from(duration.max(1)))).unwrap_or(u64::MAX)
}

/// The share of the measured speed that is relied on.
const TRUSTED_SPEED_SHARE: f64 = 0.7;

/// Whether a player that starts now plays to the end without catching up with the transcoding.
///
/// `ready_ms` can be played, `total_ms` is the lesson, `speed` is how many milliseconds of it became ready in each
/// millisecond so far, `segment_ms` the length of a segment. 30 % of the speed is not relied on, and at least two
/// segments beyond the playhead must be ready, or the whole lesson.
pub fn playable(ready_ms: u64, total_ms: u64, speed: f64, segment_ms: u64) -> bool {
    if ready_ms >= total_ms {
        return total_ms > 0;
    }
    let lead = segment_ms.saturating_mul(2);
    if ready_ms < lead || !speed.is_finite() || speed <= 0.0 {
        return false;
    }
    let trusted = speed * TRUSTED_SPEED_SHARE;
    // While the rest is transcoded the playhead advances by as much time; it must stay behind by the lead.
    let finished_after_ms = (total_ms - ready_ms) as f64 / trusted;
    trusted >= 1.0 || finished_after_ms + lead as f64 <= total_ms as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lead_suffices_when_playback_does_not_catch_up() {
        for (ready, total, speed, wanted) in [
            (0, 0, 1.0, false),
            (60_000, 60_000, 0.0, true),
            (4_000, 60_000, 9.0, false),
            (8_000, 60_000, 2.0, true),
            (8_000, 3_600_000, 2.0, true),
            (8_000, 60_000, 0.5, false),
            (48_000, 60_000, 0.5, true),
            (8_000, 60_000, f64::NAN, false),
        ] {
            assert_eq!(playable(ready, total, speed, 4000), wanted, "{ready} of {total} at {speed}");
        }
    }

    proptest! {
        #[test]
        fn at_seven_tenths_of_the_speed_the_playhead_stays_behind(ready in 0u64..600_000, total in 1u64..600_000, speed in 0.05f64..5.0) {
            prop_assume!(ready < total && playable(ready, total, speed, 4000));
            for step in 0..=100u32 {
                let at = total as f64 * f64::from(step) / 100.0;
                let there = (ready as f64 + at * speed * 0.7).min(total as f64);
                prop_assert!(there + 1.0 >= at.min(total as f64));
            }
        }
    }
}

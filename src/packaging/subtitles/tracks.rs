//! The subtitle tracks of a lesson: embedded ones and those of sidecar files.

use crate::grid::Grid;
use crate::info::{MediaInfo, Purpose};
use crate::language;
use crate::plan::{Plan, PlannedTask};
use crate::task::{SubtitleStream, SubtitlesTask, TaskSpec};
use crate::track::{TrackKind, TrackPlan};

/// The length of a subtitle segment in milliseconds. Text is small, so fewer and longer objects are better.
const SEGMENT_MS: u64 = 60_000;
/// The most subtitle tracks of a lesson.
const MAX_TRACKS: usize = 32;
/// An upper bound of the bit rate of subtitles, a few lines a second, in bits per second.
const PEAK_BITRATE: u64 = 64_000;

/// Adds the tracks of embedded subtitles and the task that extracts them.
pub(crate) fn plan_embedded(info: &MediaInfo, grid: &Grid, tracks: &mut Vec<TrackPlan>, tasks: &mut Vec<PlannedTask>) {
    let mut streams = Vec::new();
    for found in info.subtitles.iter().take(MAX_TRACKS) {
        let track = track(tracks, grid, &found.language, &found.title, found.purpose);
        tracks.push(track.clone());
        streams.push(SubtitleStream { stream: found.stream, codec: found.codec.clone(), track });
    }
    if streams.is_empty() {
        return;
    }
    let breaks = info.breaks.clone();
    let task = SubtitlesTask { origin_us: info.start_us, breaks, grid: grid.clone(), tracks: streams };
    // After the first video task: they are ready when the lesson becomes playable.
    let first_ms = grid.frame_time(grid.first_frame(1), 1000);
    tasks.push(PlannedTask { spec: TaskSpec::Subtitles(task), first_ms, duration_ms: 0, priority: 0 });
}

fn track(others: &[TrackPlan], grid: &Grid, language: &str, title: &str, purpose: Purpose) -> TrackPlan {
    let tags = others.iter().filter_map(|track| match &track.kind {
        TrackKind::Subtitles { language, .. } => Some(language.as_str()),
        _ => None,
    });
    let language = language::named(language, "Subtitles", tags);
    let segment_ms = grid.frame_time(u64::from(grid.frames_per_segment), 1000).max(1);
    let every = u32::try_from(SEGMENT_MS.div_ceil(segment_ms).max(1)).unwrap_or(u32::MAX);
    let label = if title.is_empty() { language.label } else { title.to_owned() };
    let mut track = TrackPlan {
        name: format!("s-{}", language.slug),
        timescale: grid.timescale().0,
        segments: grid.segments().div_ceil(every),
        peak_bitrate: PEAK_BITRATE,
        kind: TrackKind::Subtitles { language: language.tag, label, every, purpose },
    };
    track.make_label_unique(others);
    track
}

impl Plan {
    /// Adds a track for a sidecar file. `language` is as its creator gives it (`en`, `pt-BR`, ISO 639-2 or empty), `title`
    /// is the name shown to viewers or empty. `None` when the lesson has 32 subtitle tracks already.
    pub fn add_subtitles(&mut self, language: &str, title: &str) -> Option<TrackPlan> {
        if self.tracks.iter().filter(|t| t.is_text()).count() >= MAX_TRACKS {
            return None;
        }
        let title: String = title.chars().filter(|c| !c.is_control()).take(120).collect();
        let track = track(&self.tracks, &self.grid, language, &title, Purpose::Dialogue);
        self.tracks.push(track.clone());
        Some(track)
    }
}

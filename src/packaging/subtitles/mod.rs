//! Subtitles: from what files hold (SubRip, WebVTT, MPEG-4 timed text, ASS) to segmented WebVTT (W3C WebVTT; in HLS
//! RFC 8216bis, section 3.1.4) and one whole file for DASH.
//!
//! A track is text, small, and made at once, so its playlist is `VOD` from the start and it holds no player up. Sidecar
//! files need no FFmpeg: [`parse`] a file, [`Plan::add_subtitles`] (also to a lesson that is finished), and hand the
//! [`objects`] over; the master playlist lists the track once all of them are there.

mod file;
mod packet;
mod text;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::grid::Grid;
use super::handover::{Handover, Kind};
use super::info::{MediaInfo, TimeBreak};
use super::language;
use super::plan::{Plan, PlannedTask, TrackKind, TrackPlan, ticks_ms};
use super::task::TaskSpec;

pub use file::{FileError, MAX_FILE_BYTES, parse};
pub use packet::{Packet, cues as packet_cues};

/// How long a segment of subtitles is, in milliseconds: text is small, and fewer objects are better.
const SEGMENT_MS: u64 = 60_000;
/// The most subtitle tracks of a lesson.
const MAX_TRACKS: usize = 32;
/// The most cues of a track.
const MAX_CUES: usize = 100_000;
/// The longest text of a cue, in bytes.
const MAX_TEXT: usize = 4096;
/// Subtitles of a few lines a second take no more, in bits per second.
const PEAK_BITRATE: u64 = 64_000;

/// Whom a track of subtitles is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// All that is said.
    #[default]
    Dialogue,
    /// Only what viewers who know the language must read too: signs, and words in another language.
    Forced,
    /// What is said and what is heard, for those who can't hear it.
    HardOfHearing,
}

impl Purpose {
    /// The name in descriptions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dialogue => "dialogue",
            Self::Forced => "forced",
            Self::HardOfHearing => "hard_of_hearing",
        }
    }

    pub(super) fn is_dialogue(&self) -> bool {
        *self == Self::Dialogue
    }
}

/// One subtitle. Times are milliseconds of the lesson.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cue {
    /// When it appears.
    pub start_ms: u64,
    /// When it goes; after `start_ms`.
    pub end_ms: u64,
    /// WebVTT cue settings such as `line:0`, or empty.
    pub settings: String,
    /// WebVTT cue text: lines without a blank one among them.
    pub text: String,
}

/// All embedded subtitles of a recording: it is read through once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubtitlesTask {
    /// The instant of the source that becomes 0, in microseconds.
    pub origin_us: i64,
    /// Where timestamps start again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breaks: Vec<TimeBreak>,
    /// The grid of the lesson.
    pub grid: Grid,
    /// The tracks.
    pub tracks: Vec<SubtitleStream>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubtitleStream {
    /// The stream's index in the file.
    pub stream: u32,
    /// Its codec by FFmpeg's name, such as `subrip`.
    pub codec: String,
    /// The track that it becomes.
    pub track: TrackPlan,
}

/// Tracks and the task for what is embedded.
pub(super) fn plan(info: &MediaInfo, grid: &Grid, tracks: &mut Vec<TrackPlan>, tasks: &mut Vec<PlannedTask>) {
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
    // After the first stretch: they are there when the lesson begins to play.
    let first_ms = grid.frame_time(grid.first_frame(1), 1000);
    tasks.push(PlannedTask { spec: TaskSpec::Subtitles(task), first_ms, duration_ms: 0, priority: 0 });
}

fn track(beside: &[TrackPlan], grid: &Grid, language: &str, title: &str, purpose: Purpose) -> TrackPlan {
    let tags = beside.iter().filter_map(|track| match &track.kind {
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
    track.set_label_apart(beside);
    track
}

impl Plan {
    /// Adds a track for a sidecar file: `language` as its creator says (`en`, `pt-BR`, ISO 639-2 or nothing), `title`
    /// for people or nothing. `None` when there are 32 already.
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

/// The path of a track's whole file, which DASH players take.
pub fn whole_path(track: &str) -> String {
    format!("{track}/subtitles.vtt")
}

/// What is published of a track: its segments, and the whole file last.
pub fn objects(grid: &Grid, track: &TrackPlan, cues: &[Cue]) -> Vec<(Handover, Vec<u8>)> {
    let mut cues: Vec<&Cue> = cues.iter().filter(|cue| cue.end_ms > cue.start_ms).take(MAX_CUES).collect();
    cues.sort_by_key(|cue| (cue.start_ms, cue.end_ms));
    let base = Handover {
        path: String::new(),
        kind: Kind::Segment,
        track: track.name.clone(),
        n: 0,
        start: 0,
        duration: 0,
        timescale: track.timescale,
        bytes: 0,
        key_bytes: None,
        ssim: None,
        facts: None,
    };
    let mut out = Vec::new();
    for n in 0..track.segments {
        let (start, duration) = track.segment(grid, n);
        let (from, to) = (ticks_ms(start, track.timescale), ticks_ms(start.saturating_add(duration), track.timescale));
        // What crosses a border stands on both sides of it, so that a player that begins there shows it.
        let here = cues.iter().copied().filter(|cue| cue.start_ms < to && cue.end_ms > from);
        let bytes = webvtt(here, true).into_bytes();
        let path = track.segment_path(grid, n);
        out.push((Handover { path, n, start, duration, bytes: bytes.len() as u64, ..base.clone() }, bytes));
    }
    let whole = webvtt(cues.iter().copied(), false).into_bytes();
    let path = whole_path(&track.name);
    out.push((Handover { path, kind: Kind::Text, bytes: whole.len() as u64, ..base }, whole));
    out
}

/// A WebVTT file. Segments say how their clock stands to the picture's, which begins at 0.
fn webvtt<'c>(cues: impl Iterator<Item = &'c Cue>, segment: bool) -> String {
    let mut out = String::from("WEBVTT\n");
    if segment {
        out.push_str("X-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000\n");
    }
    for cue in cues {
        let space = if cue.settings.is_empty() { "" } else { " " };
        let (start, end) = (timestamp(cue.start_ms), timestamp(cue.end_ms));
        let _ = write!(out, "\n{start} --> {end}{space}{}\n{}\n", cue.settings, cue.text);
    }
    out
}

/// A WebVTT timestamp.
pub(super) fn timestamp(ms: u64) -> String {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests;

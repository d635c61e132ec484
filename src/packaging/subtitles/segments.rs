//! A track of subtitles as objects: its WebVTT segments, and the whole file.

use crate::grid::Grid;
use crate::handover::{Handover, ObjectKind};
use crate::track::{TrackPlan, ticks_ms, whole_path};
use crate::webvtt::{Cue, MAX_CUES, webvtt};

/// What is published of a track: its segments, and the whole file last.
pub fn objects(grid: &Grid, track: &TrackPlan, cues: &[Cue]) -> Vec<(Handover, Vec<u8>)> {
    let mut cues: Vec<&Cue> = cues.iter().filter(|cue| cue.end_ms > cue.start_ms).take(MAX_CUES).collect();
    cues.sort_by_key(|cue| (cue.start_ms, cue.end_ms));
    let base = Handover {
        path: String::new(),
        kind: ObjectKind::Segment,
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
    out.push((Handover { path, kind: ObjectKind::Text, bytes: whole.len() as u64, ..base }, whole));
    out
}

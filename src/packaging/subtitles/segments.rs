//! The objects of a subtitle track: its WebVTT segments and the whole file.

use crate::grid::Grid;
use crate::handover::{DeliveredObject, ObjectKind};
use crate::track::{TrackPlan, ticks_ms, whole_path};
use crate::webvtt::{Cue, MAX_CUES, webvtt};

/// The objects to publish for a track: its segments, then the whole file.
pub fn objects(grid: &Grid, track: &TrackPlan, cues: &[Cue]) -> Vec<(DeliveredObject, Vec<u8>)> {
    let mut cues: Vec<&Cue> = cues.iter().filter(|cue| cue.end_ms > cue.start_ms).take(MAX_CUES).collect();
    cues.sort_by_key(|cue| (cue.start_ms, cue.end_ms));
    let base = DeliveredObject {
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
        // A cue that crosses a segment boundary is in both segments, so that a player that starts at the second shows it.
        let overlapping = cues.iter().copied().filter(|cue| cue.start_ms < to && cue.end_ms > from);
        let bytes = webvtt(overlapping, true).into_bytes();
        let path = track.segment_path(grid, n);
        out.push((DeliveredObject { path, n, start, duration, bytes: bytes.len() as u64, ..base.clone() }, bytes));
    }
    let whole = webvtt(cues.iter().copied(), false).into_bytes();
    let path = whole_path(&track.name);
    out.push((DeliveredObject { path, kind: ObjectKind::Text, bytes: whole.len() as u64, ..base }, whole));
    out
}

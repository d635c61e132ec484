//! `lesson.json`: what was found in the recording and what was made of it.

use serde_json::{Value, json};

use super::super::images::{POSTER, STORYBOARD};
use super::super::index::{Index, TrackIndex};
use super::super::info::MediaInfo;
use super::super::plan::TrackKind;

/// `lesson.json` at `/v/{lesson}/`.
pub fn lesson_json(index: &Index<'_>, info: &MediaInfo, version: &str) -> String {
    let plan = index.plan();
    let value = json!({
        "version": version,
        "duration": plan.duration_ms as f64 / 1000.0,
        "complete": index.complete(),
        "ready": index.ready_ms() as f64 / 1000.0,
        "segment_duration": plan.grid.frame_time(u64::from(plan.grid.frames_per_segment), 1000) as f64 / 1000.0,
        "frame_rate": plan.grid.rate.fps(),
        "source": info,
        "renditions": index.tracks().iter().map(track).collect::<Vec<_>>(),
        "poster": index.has(POSTER).then(|| format!("{version}/{POSTER}")),
        "storyboard": index.has(STORYBOARD).then(|| format!("{version}/{STORYBOARD}")),
        "warnings": info.warnings,
    });
    format!("{value:#}\n")
}

fn track(track: &TrackIndex<'_>) -> Value {
    let facts = track.facts.clone().unwrap_or_default();
    let mut value = json!({
        "track": track.plan.name,
        "codecs": facts.codec,
        "segments": track.plan.segments,
        "peak_bitrate": track.peak_bitrate(),
        "average_bitrate": track.average_bitrate(),
    });
    let more = match &track.plan.kind {
        TrackKind::Video { shorter_side, width, height, codec } => {
            json!({"type": "video", "height": shorter_side, "codec": codec, "size": [width, height]})
        }
        TrackKind::Audio { language, label, default } => {
            json!({"type": "audio", "language": language, "label": label, "default": default, "channels": facts.channels})
        }
        TrackKind::Subtitles { language, label, .. } => {
            json!({"type": "subtitles", "language": language, "label": label})
        }
    };
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

//! `lesson.json`: what the recording holds and which renditions exist.

use serde_json::{Value, json};

use crate::images::{POSTER, STORYBOARD};
use crate::index::{ObjectIndex, TrackIndex};
use crate::info::{Chapter, MediaInfo};
use crate::task::TaskSpec;
use crate::track::TrackKind;

/// `lesson.json` at `/v/{lesson}/`.
pub fn lesson_json(index: &ObjectIndex<'_>, info: &MediaInfo, version: &str) -> String {
    let plan = index.plan();
    let value = json!({
        "version": version,
        "duration": plan.duration_ms as f64 / 1000.0,
        "complete": index.complete(),
        "ready": index.ready_ms() as f64 / 1000.0,
        "segment_duration": plan.grid.frame_time(u64::from(plan.grid.frames_per_segment), 1000) as f64 / 1000.0,
        "frame_rate": plan.grid.rate.fps(),
        "source": info,
        "renditions": index.tracks().iter().map(|found| track(index, found)).collect::<Vec<_>>(),
        "saved_bytes": index.complete().then(|| saved_bytes(index)),
        "poster": index.has(POSTER).then(|| format!("{version}/{POSTER}")),
        "storyboard": index.has(STORYBOARD).then(|| format!("{version}/{STORYBOARD}")),
        "chapters": info.chapters.iter().map(chapter).collect::<Vec<_>>(),
        "warnings": info.warnings,
        "warning_details": info.warning_sentences().map(|(code, detail)| json!({"code": code, "detail": detail})).collect::<Vec<_>>(),
    });
    format!("{value:#}\n")
}

/// A chapter, in seconds.
fn chapter(chapter: &Chapter) -> Value {
    let seconds = |us: i64| us as f64 / 1e6;
    json!({"start": seconds(chapter.start_us), "end": seconds(chapter.end_us), "title": chapter.title})
}

/// The maximum bit rate of a rendition in bits per second: what a constant bit rate would always use.
fn max_bitrate(index: &ObjectIndex<'_>, track: &str) -> Option<u64> {
    index.plan().tasks.iter().find_map(|task| match &task.spec {
        TaskSpec::Video(task) => task.renditions.iter().find(|r| r.track == track).map(|r| r.max_bitrate),
        _ => None,
    })
}

/// How many bytes all video renditions save over a constant bit rate at their maximum.
fn saved_bytes(index: &ObjectIndex<'_>) -> u64 {
    let videos = index.tracks().iter().filter(|t| t.plan.is_video());
    let bits = |t: &TrackIndex<'_>| {
        let saved = max_bitrate(index, &t.plan.name).unwrap_or(0).saturating_sub(t.average_bitrate());
        u128::from(saved) * u128::from(index.plan().duration_ms)
    };
    u64::try_from(videos.map(bits).sum::<u128>() / 8000).unwrap_or(u64::MAX)
}

fn track(index: &ObjectIndex<'_>, track: &TrackIndex<'_>) -> Value {
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
            let range = Some(&facts.video_range).filter(|range| !range.is_empty());
            json!({"type": "video", "height": shorter_side, "codec": codec, "size": [width, height],
                "video_range": range, "max_bitrate": max_bitrate(index, &track.plan.name),
                "ssim": track.ssim().map(|ssim| (ssim * 1e4).round() / 1e4)})
        }
        TrackKind::Audio { language, label, default } => {
            json!({"type": "audio", "language": language, "label": label, "default": default, "channels": facts.channels})
        }
        TrackKind::Subtitles { language, label, purpose, .. } => {
            json!({"type": "subtitles", "language": language, "label": label, "purpose": purpose})
        }
    };
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

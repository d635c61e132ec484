//! What a worker delivers: one object with what playlists need to know about it.

use serde::{Deserialize, Serialize};

use crate::images::{POSTER, STORYBOARD};
use crate::plan::Plan;
use crate::track::{TrackKind, whole_path};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A CMAF header: `init.mp4`.
    Init,
    /// A media segment.
    Segment,
    /// An image: poster, storyboard sheet.
    Image,
    /// Text: WebVTT.
    Text,
}

/// One object of a lesson, delivered once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveredObject {
    /// Relative to the version: `v720/00000-0.m4s`.
    pub path: String,
    /// What it is.
    pub kind: ObjectKind,
    /// The track that it belongs to; empty for images and the storyboard's index.
    #[serde(default)]
    pub track: String,
    /// The segment's number; 0 for other objects.
    #[serde(default)]
    pub n: u32,
    /// Where it starts, in ticks.
    #[serde(default)]
    pub start: u64,
    /// How long it is, in ticks.
    #[serde(default)]
    pub duration: u64,
    /// Ticks per second; 0 for images.
    #[serde(default)]
    pub timescale: u32,
    /// Its size in bytes.
    pub bytes: u64,
    /// For a video segment: how many of its bytes hold its header and its first key frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_bytes: Option<u64>,
    /// For a measured video segment: its structural similarity (SSIM) to the scaled source, at most 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssim: Option<f64>,
    /// For an init segment: the facts of its bitstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<TrackFacts>,
}

/// What a track's bitstream declares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrackFacts {
    /// The codec by RFC 6381, such as `avc1.64001f` or `mp4a.40.2`.
    pub codec: String,
    /// `SDR`, `PQ` or `HLG`; empty for audio.
    pub video_range: String,
    /// How many channels; 0 for video.
    pub channels: u32,
    /// In hertz; 0 for video.
    pub sample_rate: u32,
}

/// The largest object that is accepted, in bytes.
pub const MAX_OBJECT_BYTES: u64 = 256 << 20;

/// The object does not belong to the plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} is not of this plan: {what}")]
pub struct Mismatch {
    /// The object's path.
    pub path: String,
    /// What is wrong.
    pub what: &'static str,
}

impl DeliveredObject {
    /// The media type to serve it with.
    pub fn content_type(&self) -> &'static str {
        content_type(&self.path)
    }

    /// Checks that this object is one that `plan` asks for: a worker can add nothing else to a lesson.
    pub fn check(&self, plan: &Plan) -> Result<(), Mismatch> {
        let wrong = |what| Mismatch { path: self.path.clone(), what };
        if self.bytes == 0 || self.bytes > MAX_OBJECT_BYTES {
            return Err(wrong("its size is out of bounds"));
        }
        match self.kind {
            ObjectKind::Image | ObjectKind::Text => self.check_extra(plan).map_err(wrong),
            ObjectKind::Init | ObjectKind::Segment => {
                let track = plan.tracks.iter().find(|t| t.name == self.track).ok_or_else(|| wrong("no such track"))?;
                if self.timescale != track.timescale {
                    return Err(wrong("another timescale"));
                }
                if self.kind == ObjectKind::Init && !track.is_text() {
                    let facts = self.facts.as_ref().ok_or_else(|| wrong("an init without codec facts"))?;
                    if !is_codec_name(&facts.codec) {
                        return Err(wrong("an invalid codec name"));
                    }
                    if !matches!(facts.video_range.as_str(), "" | "SDR" | "PQ" | "HLG") {
                        return Err(wrong("an unknown dynamic range"));
                    }
                    return if self.path == track.init_path() { Ok(()) } else { Err(wrong("another path")) };
                }
                if self.kind != ObjectKind::Segment
                    || self.n >= track.segments
                    || self.path != track.segment_path(&plan.grid, self.n)
                {
                    return Err(wrong("another path or number"));
                }
                if (self.start, self.duration) != track.segment(&plan.grid, self.n) {
                    return Err(wrong("another start or duration"));
                }
                if self
                    .key_bytes
                    .is_some_and(|bytes| bytes > self.bytes || !matches!(track.kind, TrackKind::Video { .. }))
                {
                    return Err(wrong("a key frame larger than its segment"));
                }
                if self.ssim.is_some_and(|ssim| !(-1.0..=1.0).contains(&ssim)) {
                    return Err(wrong("a similarity out of bounds"));
                }
                Ok(())
            }
        }
    }

    fn check_extra(&self, plan: &Plan) -> Result<(), &'static str> {
        if !self.track.is_empty() {
            let whole =
                plan.tracks.iter().any(|t| t.is_text() && t.name == self.track) && self.kind == ObjectKind::Text;
            return if whole && self.path == whole_path(&self.track) { Ok(()) } else { Err("another path") };
        }
        if is_image_path(&self.path) { Ok(()) } else { Err("another path") }
    }
}

/// Whether a poster, a storyboard or a sheet of one has this path.
fn is_image_path(path: &str) -> bool {
    let sheet = path.strip_prefix("storyboard-").and_then(|rest| rest.strip_suffix(".jpg"));
    let numbered = |m: &str| (1..=5).contains(&m.len()) && m.bytes().all(|b| b.is_ascii_digit());
    matches!(path, POSTER | STORYBOARD) || sheet.is_some_and(numbered)
}

/// Whether an object of `plan` may have this path: nothing else is stored for a worker.
pub fn is_planned(path: &str, plan: &Plan) -> bool {
    let Some((name, file)) = path.split_once('/') else { return is_image_path(path) };
    let Some(track) = plan.tracks.iter().find(|track| track.name == name) else { return false };
    let number = || file.split_once('-')?.0.parse::<u32>().ok();
    path == track.init_path()
        || (track.is_text() && path == whole_path(name))
        || number().is_some_and(|n| n < track.segments && path == track.segment_path(&plan.grid, n))
}

fn is_codec_name(codec: &str) -> bool {
    (1..=64).contains(&codec.len()) && codec.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
}

/// The media type for a path of a lesson.
pub fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "m4s" | "mp4" => {
            let track = path.rsplit('/').nth(1).unwrap_or("");
            if track.starts_with("a-") { "audio/mp4" } else { "video/mp4" }
        }
        "m3u8" => "application/vnd.apple.mpegurl",
        "mpd" => "application/dash+xml",
        "vtt" => "text/vtt; charset=utf-8",
        "jpg" => "image/jpeg",
        "json" => "application/json",
        _ => "application/octet-stream",
    }
}

//! The description of a task: all that a task process needs to know, and nothing of who asks.

use serde::{Deserialize, Serialize};

use super::grid::Grid;
use super::images::ImagesTask;
use super::info::{ColorInfo, MediaInfo, TimeBreak};
use super::ladder::VideoCodec;
use super::protection::Protection;
use super::subtitles::SubtitlesTask;

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum TaskSpec {
    /// Find out what the file is; reports a [`MediaInfo`].
    Probe,
    /// A stretch of segments of the picture, in all renditions at once.
    Video(VideoTask),
    /// A stretch of segments of one sound track.
    Audio(AudioTask),
    /// The poster, or the storyboard.
    Images(ImagesTask),
    /// All embedded subtitles, whole.
    Subtitles(SubtitlesTask),
}

impl TaskSpec {
    /// A short name for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Video(_) => "video",
            Self::Audio(_) => "audio",
            Self::Images(_) => "images",
            Self::Subtitles(_) => "subtitles",
        }
    }
}

/// Where a task reads in the source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceStream {
    /// The stream's index in the file.
    pub stream: u32,
    /// The instant of the source that becomes 0, in microseconds ([`MediaInfo::start_us`]).
    pub origin_us: i64,
    /// Where timestamps start again ([`MediaInfo::breaks`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breaks: Vec<TimeBreak>,
}

impl SourceStream {
    /// A stream of the recording that `info` tells of.
    pub fn new(info: &MediaInfo, stream: u32) -> Self {
        Self { stream, origin_us: info.start_us, breaks: info.breaks.clone() }
    }
}

/// A stretch of segments of the picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoTask {
    /// What to read.
    pub source: SourceStream,
    /// Clockwise turns to apply: 0, 90, 180 or 270 degrees.
    pub rotation: u32,
    /// Whether to deinterlace.
    pub interlaced: bool,
    /// The source's colour, which renditions keep and name.
    pub color: ColorInfo,
    /// The grid of the lesson.
    pub grid: Grid,
    /// The first segment.
    pub first_segment: u32,
    /// How many segments, at least 1.
    pub segments: u32,
    /// The renditions, smallest first.
    pub renditions: Vec<Rendition>,
    /// Whether to measure how close the renditions of its first segment are to the source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub measure: bool,
    /// Whether segments are encrypted.
    #[serde(default, skip_serializing_if = "Protection::is_clear")]
    pub protection: Protection,
}

/// One rendition of the picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendition {
    /// The track's name, such as `v720`.
    pub track: String,
    /// The codec.
    pub codec: VideoCodec,
    /// Width in pixels, even.
    pub width: u32,
    /// Height in pixels, even.
    pub height: u32,
    /// The constant quality (CRF) that is aimed at.
    pub quality: u32,
    /// The cap in bits per second, over a buffer of one second.
    pub max_bitrate: u64,
}

/// A stretch of segments of one sound track.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AudioTask {
    /// What to read.
    pub source: SourceStream,
    /// The track's name, such as `a-en`.
    pub track: String,
    /// The grid of the lesson.
    pub grid: Grid,
    /// The first segment.
    pub first_segment: u32,
    /// How many segments, at least 1.
    pub segments: u32,
    /// Bits per second.
    pub bitrate: u64,
    /// One gain for the lesson, in decibels, with a limiter behind it.
    pub gain_db: f64,
    /// Whether segments are encrypted.
    #[serde(default, skip_serializing_if = "Protection::is_clear")]
    pub protection: Protection,
}

/// What a probe reports beside the refusals: the same type that the plan is made from.
pub type ProbeReport = MediaInfo;

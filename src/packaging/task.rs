//! The description of a task: all that a task process needs to know, and nothing of who asks for it.

use serde::{Deserialize, Serialize};

use crate::framing::Framing;
use crate::grid::Grid;
use crate::images::Storyboard;
use crate::info::{ColorInfo, MediaInfo, SourceStream, TimeBreak};
use crate::ladder::VideoCodec;
use crate::protection::{ContentKey, Protection};
use crate::track::TrackPlan;

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum TaskSpec {
    /// Probes the file; reports a [`MediaInfo`].
    Probe,
    /// A range of video segments, in all renditions at once.
    Video(VideoTask),
    /// A range of segments of one audio track.
    Audio(AudioTask),
    /// The poster or the storyboard.
    Images(ImagesTask),
    /// All embedded subtitles.
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

/// A range of video segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoTask {
    /// What to read.
    pub source: SourceStream,
    /// Clockwise turns to apply: 0, 90, 180 or 270 degrees.
    pub rotation: u32,
    /// The canvas, and how frames come onto it.
    #[serde(default)]
    pub framing: Framing,
    /// Whether the source is interlaced, or some of it. Each frame is judged by its own mark.
    pub interlaced: bool,
    /// The source's colour, which renditions keep and signal.
    pub color: ColorInfo,
    /// The grid of the lesson.
    pub grid: Grid,
    /// The first segment.
    pub first_segment: u32,
    /// How many segments, at least 1.
    pub segments: u32,
    /// The renditions, smallest first.
    pub renditions: Vec<Rendition>,
    /// Whether to measure the quality of its first segment against the source, in each rendition.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub measure: bool,
    /// Whether segments are encrypted.
    #[serde(default, skip_serializing_if = "Protection::is_clear")]
    pub protection: Protection,
}

/// One rendition of the video.
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

/// A range of segments of one audio track.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AudioTask {
    /// What to read.
    pub source: SourceStream,
    /// Further streams with one channel each of the same sound ([`AudioInfo::more_streams`](crate::info::AudioInfo)).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_streams: Vec<u32>,
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
    /// The gain in decibels, the same for the whole track; a limiter follows it.
    pub gain_db: f64,
    /// Whether segments are encrypted.
    #[serde(default, skip_serializing_if = "Protection::is_clear")]
    pub protection: Protection,
}

/// The poster or the storyboard of a lesson, from key frames alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImagesTask {
    /// What to read.
    pub source: SourceStream,
    /// Clockwise turns to apply: 0, 90, 180 or 270 degrees.
    pub rotation: u32,
    /// The canvas, and how frames come onto it.
    #[serde(default)]
    pub framing: Framing,
    /// Whether the source is interlaced, or some of it. Each frame is judged by its own mark.
    pub interlaced: bool,
    /// The source's colour.
    pub color: ColorInfo,
    /// The lesson's length in milliseconds.
    pub duration_ms: u64,
    /// What to make.
    pub images: Images,
}

/// What an [`ImagesTask`] makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "make", rename_all = "snake_case")]
pub enum Images {
    /// `poster.jpg`: of the frames near the start the one with the most detail.
    Poster {
        /// Width in pixels, even.
        width: u32,
        /// Height in pixels, even.
        height: u32,
    },
    /// `storyboard.vtt` and its sheets.
    Storyboard(Storyboard),
}

/// All embedded subtitles of a recording, extracted in one pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubtitlesTask {
    /// The instant of the source that becomes 0, in microseconds ([`MediaInfo::start_us`]).
    pub origin_us: i64,
    /// Where timestamps start again ([`MediaInfo::breaks`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breaks: Vec<TimeBreak>,
    /// The grid of the lesson.
    pub grid: Grid,
    /// The tracks.
    pub tracks: Vec<SubtitleStream>,
}

/// One embedded subtitle stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubtitleStream {
    /// The stream's index in the file.
    pub stream: u32,
    /// Its codec by FFmpeg's name, such as `subrip`.
    pub codec: String,
    /// The track that it becomes.
    pub track: TrackPlan,
}

/// What a successful probe reports: the type that the plan is made from.
pub type ProbeReport = MediaInfo;

impl TaskSpec {
    /// Puts the key into a protected task; other tasks stay as they are.
    pub fn set_key(&mut self, content_key: &ContentKey) {
        if let Some(Protection::Aes128 { key }) = self.protection_mut() {
            *key = Some(content_key.clone());
        }
    }

    /// Whether the task still lacks the key of [`TaskSpec::set_key`].
    pub fn wants_key(&self) -> bool {
        let protection = match self {
            Self::Video(task) => &task.protection,
            Self::Audio(task) => &task.protection,
            Self::Probe | Self::Images(_) | Self::Subtitles(_) => return false,
        };
        matches!(protection, Protection::Aes128 { key: None })
    }

    pub(crate) fn protection_mut(&mut self) -> Option<&mut Protection> {
        match self {
            Self::Video(task) => Some(&mut task.protection),
            Self::Audio(task) => Some(&mut task.protection),
            Self::Probe | Self::Images(_) | Self::Subtitles(_) => None,
        }
    }
}

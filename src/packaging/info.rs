//! What a probe found in a recording, and why a recording is refused.

use serde::{Deserialize, Serialize};

use crate::grid::FrameRate;

/// What a probe found. Times are microseconds; those of streams are relative to `start_us`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MediaInfo {
    /// The demuxer's name, such as `mov` or `matroska`.
    pub container: String,
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// The earliest timestamp of video and audio: this instant becomes 0.
    pub start_us: i64,
    /// From `start_us` to the end of the longest of video and audio.
    pub duration_us: u64,
    /// The video, where there is one.
    pub video: Option<VideoInfo>,
    /// The audio tracks, in the order of the file.
    pub audio: Vec<AudioInfo>,
    /// Embedded text subtitles, in the order of the file.
    pub subtitles: Vec<SubtitleInfo>,
    /// Where the file's timestamps start again, in the order of the file; nearly always empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub breaks: Vec<TimeBreak>,
    /// The chapters that the recording names, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chapters: Vec<Chapter>,
    /// Stable codes of [`Warning`]s, such as `media_truncated`.
    pub warnings: Vec<String>,
}

/// A position in a file where its timestamps start again, as in concatenated transport streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeBreak {
    /// The first byte with the new timestamps.
    pub byte: u64,
    /// What is added to timestamps from there on, in microseconds, to make time continuous.
    pub shift_us: i64,
    /// When that position is shown, in microseconds of the continuous time.
    pub start_us: i64,
}

/// A chapter of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Chapter {
    /// When it begins.
    pub start_us: i64,
    /// When it ends: at the next one, or with the recording.
    pub end_us: i64,
    /// Its name; `Chapter 3` where the file gives none.
    pub title: String,
}

/// The video of a recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VideoInfo {
    /// The stream's index in the file.
    pub stream: u32,
    /// The decoder's name, such as `h264`.
    pub codec: String,
    /// Stored width in pixels, before rotation: of the shape that the lesson is planned by, where it changes.
    pub width: u32,
    /// Stored height in pixels, before rotation.
    pub height: u32,
    /// The shape of a pixel, `[width, height]`; `[1, 1]` is square.
    pub sample_aspect: [u32; 2],
    /// Clockwise rotation that shows it upright: 0, 90, 180 or 270 degrees.
    pub rotation: u32,
    /// Whether left and right are swapped, before it is turned.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mirrored: bool,
    /// Whether frames tell the shape of their pixels themselves, so that it may change.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub aspect_in_frames: bool,
    /// The constant frame rate of the renditions.
    pub rate: FrameRate,
    /// False for a variable frame rate.
    pub constant_rate: bool,
    /// Whether it is interlaced, or some of it.
    pub interlaced: bool,
    /// Whether it is interlaced by the word of the container alone: its frames are not marked, and all are deinterlaced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fields_unmarked: bool,
    /// The pixel format's name, such as `yuv420p10le`.
    pub pixel_format: String,
    /// Bits per sample: 8, 10, 12.
    pub bit_depth: u32,
    /// Colour as in the stream.
    pub color: ColorInfo,
    /// The mean distance between key frames in microseconds; 0 where not known.
    pub key_interval_us: u64,
    /// When it starts.
    pub start_us: i64,
    /// Its length.
    pub duration_us: u64,
}

/// Colour by the code points of ISO/IEC 23091-2; 2 is "unspecified".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ColorInfo {
    /// Colour primaries: 1 is BT.709, 9 is BT.2020.
    pub primaries: u16,
    /// Transfer characteristics: 1 is BT.709, 16 is PQ, 18 is HLG.
    pub transfer: u16,
    /// Matrix coefficients: 0 is RGB, 1 is BT.709, 6 is BT.601.
    pub matrix: u16,
    /// Full range in place of limited.
    pub full_range: bool,
}

impl Default for ColorInfo {
    fn default() -> Self {
        Self { primaries: 2, transfer: 2, matrix: 2, full_range: false }
    }
}

/// An audio track of a recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AudioInfo {
    /// The stream's index in the file.
    pub stream: u32,
    /// Further streams of the same sound, where a camera writes each of its channels as a track of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more_streams: Vec<u32>,
    /// The decoder's name, such as `aac`.
    pub codec: String,
    /// How many channels.
    pub channels: u32,
    /// In hertz.
    pub sample_rate: u32,
    /// The language code in the file, such as `eng`; empty where there is none.
    pub language: String,
    /// The track's title; empty where it has none.
    pub title: String,
    /// Whether the file marks it as the default track.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// When it starts.
    pub start_us: i64,
    /// Its length.
    pub duration_us: u64,
    /// Integrated loudness in LUFS (ITU-R BS.1770); none where not measured or silent.
    pub loudness_lufs: Option<f64>,
    /// The highest true peak, in dBTP.
    pub true_peak_dbtp: Option<f64>,
}

/// An embedded text subtitle track.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubtitleInfo {
    /// The stream's index in the file.
    pub stream: u32,
    /// The decoder's name, such as `subrip`.
    pub codec: String,
    /// The language code in the file; empty where there is none.
    pub language: String,
    /// The track's title; empty where it has none.
    pub title: String,
    /// The viewers it is made for, as the file says.
    #[serde(skip_serializing_if = "Purpose::is_dialogue")]
    pub purpose: Purpose,
}

impl VideoInfo {
    /// The display size in square pixels, upright. The ladder rounds it to even numbers.
    pub fn display_size(&self) -> (u32, u32) {
        let [aspect_width, aspect_height] = self.sample_aspect;
        let wide = if aspect_width == 0 || aspect_height == 0 {
            u64::from(self.width)
        } else {
            // An anamorphic video keeps its height; its width is scaled.
            u64::from(self.width) * u64::from(aspect_width) / u64::from(aspect_height)
        };
        let wide = u32::try_from(wide.clamp(1, 1 << 16)).unwrap_or(1);
        if self.rotation % 180 == 90 { (self.height, wide) } else { (wide, self.height) }
    }
}

/// The stream of the source that a task reads.
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
    /// Stream `stream` of the recording described by `info`.
    pub fn new(info: &MediaInfo, stream: u32) -> Self {
        Self { stream, origin_us: info.start_us, breaks: info.breaks.clone() }
    }
}

/// The viewers a subtitle track is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// All dialogue.
    #[default]
    Dialogue,
    /// Only what viewers who understand the language need too: signs and foreign dialogue.
    Forced,
    /// Dialogue and sounds, for viewers who can't hear them.
    HardOfHearing,
}

impl Purpose {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dialogue => "dialogue",
            Self::Forced => "forced",
            Self::HardOfHearing => "hard_of_hearing",
        }
    }

    pub(crate) fn is_dialogue(&self) -> bool {
        *self == Self::Dialogue
    }
}

/// A defect of a recording that became a lesson nonetheless, for its creator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The file ends early.
    Truncated,
    /// An audio track's codec can't be decoded.
    AudioNotDecodable,
    /// The timestamps of the video stand still or go back within the file.
    ClockDamaged,
}

impl Warning {
    /// The stable code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "media_truncated",
            Self::AudioNotDecodable => "media_audio_not_decodable",
            Self::ClockDamaged => "media_clock_damaged",
        }
    }

    /// One sentence for the creator.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Truncated => {
                "The file ends before the recording does: what is there was made, but the end is missing. The recording or its upload was probably cut off."
            }
            Self::AudioNotDecodable => "A sound track is of a kind that can't be decoded here, and was left out.",
            Self::ClockDamaged => {
                "The recording's clock stands still or goes back in the middle: what was recorded meanwhile has no time of its own and is missing. Export it again from the program that recorded it."
            }
        }
    }

    /// The warning with a stable code.
    pub fn of_code(code: &str) -> Option<Self> {
        [Self::Truncated, Self::AudioNotDecodable, Self::ClockDamaged].into_iter().find(|w| w.as_str() == code)
    }
}

impl MediaInfo {
    /// Adds a warning, once.
    pub fn warn(&mut self, warning: Warning) {
        if !self.warnings.iter().any(|code| code == warning.as_str()) {
            self.warnings.push(warning.as_str().to_owned());
        }
    }

    /// The sentences of its warnings, by their codes.
    pub fn warning_sentences(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.warnings.iter().map(|code| (code.as_str(), Warning::of_code(code).map_or("", Warning::sentence)))
    }
}

/// Why a recording can't become a lesson: the `media_*` codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefusalCode {
    /// The file is empty or has no duration.
    #[serde(rename = "media_empty")]
    Empty,
    /// Neither video nor audio.
    #[serde(rename = "media_not_video")]
    NotVideo,
    /// The recording is encrypted.
    #[serde(rename = "media_encrypted")]
    Encrypted,
    /// A container or codec that is not on the allow-list, such as a playlist.
    #[serde(rename = "media_forbidden_format")]
    ForbiddenFormat,
    /// It exceeds a limit: pixels, streams, time or output.
    #[serde(rename = "media_limit_exceeded")]
    LimitExceeded,
    /// The decoder crashed.
    #[serde(rename = "media_crashed")]
    Crashed,
}

impl RefusalCode {
    /// The stable code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "media_empty",
            Self::NotVideo => "media_not_video",
            Self::Encrypted => "media_encrypted",
            Self::ForbiddenFormat => "media_forbidden_format",
            Self::LimitExceeded => "media_limit_exceeded",
            Self::Crashed => "media_crashed",
        }
    }
}

/// A refusal: a stable code and a sentence that a creator understands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct Refusal {
    /// The stable code.
    pub code: RefusalCode,
    /// One sentence.
    pub detail: String,
}

impl Refusal {
    /// A refusal with `code` and a sentence.
    pub fn new(code: RefusalCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

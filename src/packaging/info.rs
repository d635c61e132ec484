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
    /// The earliest timestamp of what is shown or heard: this instant becomes 0.
    pub start_us: i64,
    /// From there to the end of the longest of picture and sound.
    pub duration_us: u64,
    /// The picture, where there is one.
    pub video: Option<VideoInfo>,
    /// The sound tracks, in the order of the file.
    pub audio: Vec<AudioInfo>,
    /// Embedded text subtitles, in the order of the file.
    pub subtitles: Vec<SubtitleInfo>,
    /// Where the file's timestamps start again, by their places; nearly always empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub breaks: Vec<TimeBreak>,
    /// Stable codes of what a creator should know, such as `media_truncated`.
    pub warnings: Vec<String>,
}

/// A place in a file where its timestamps start again, as in transport streams that were joined byte by byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeBreak {
    /// The first byte that follows the new timestamps.
    pub byte: u64,
    /// What is added to timestamps from there on, in microseconds.
    pub shift_us: i64,
    /// When that place is shown, on the clock that goes on.
    pub start_us: i64,
}

/// The picture of a recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VideoInfo {
    /// The stream's index in the file.
    pub stream: u32,
    /// The decoder's name, such as `h264`.
    pub codec: String,
    /// Stored width in pixels, before rotation.
    pub width: u32,
    /// Stored height in pixels, before rotation.
    pub height: u32,
    /// The shape of a pixel, `[width, height]`; `[1, 1]` is square.
    pub sample_aspect: [u32; 2],
    /// Clockwise turns needed to show it upright: 0, 90, 180 or 270 degrees.
    pub rotation: u32,
    /// The constant rate that the renditions get.
    pub rate: FrameRate,
    /// False where frames come at uneven times.
    pub constant_rate: bool,
    /// Whether it is stored as fields.
    pub interlaced: bool,
    /// The pixel format's name, such as `yuv420p10le`.
    pub pixel_format: String,
    /// Bits per sample: 8, 10, 12.
    pub bit_depth: u32,
    /// Colour as in the stream.
    pub color: ColorInfo,
    /// The mean distance between key frames in microseconds; 0 where not known.
    pub key_interval_us: u64,
    /// When it starts and how long it lasts.
    pub start_us: i64,
    /// Its length.
    pub duration_us: u64,
}

/// Colour by the code points of ISO/IEC 23091-2; 2 is "not said".
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

/// A sound track of a recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AudioInfo {
    /// The stream's index in the file.
    pub stream: u32,
    /// The decoder's name, such as `aac`.
    pub codec: String,
    /// How many channels.
    pub channels: u32,
    /// In hertz.
    pub sample_rate: u32,
    /// As the file says, such as `eng`; empty where it does not.
    pub language: String,
    /// The track's title; empty where it has none.
    pub title: String,
    /// Whether the file marks it as the one to play when the viewer has said nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// When it starts.
    pub start_us: i64,
    /// Its length.
    pub duration_us: u64,
    /// Integrated loudness in LUFS (ITU-R BS.1770), where it was measured and there is sound.
    pub loudness_lufs: Option<f64>,
    /// The highest true peak heard, in dBTP.
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
    /// As the file says; empty where it does not.
    pub language: String,
    /// The track's title; empty where it has none.
    pub title: String,
    /// Whom it is for, as the file says.
    #[serde(skip_serializing_if = "Purpose::is_dialogue")]
    pub purpose: Purpose,
}

impl VideoInfo {
    /// The size that it is shown at: square pixels, upright. Even rounding is left to the ladder.
    pub fn display_size(&self) -> (u32, u32) {
        let [aspect_width, aspect_height] = self.sample_aspect;
        let wide = if aspect_width == 0 || aspect_height == 0 {
            u64::from(self.width)
        } else {
            // An anamorphic picture keeps the side that has the most samples to show.
            u64::from(self.width) * u64::from(aspect_width) / u64::from(aspect_height)
        };
        let wide = u32::try_from(wide.clamp(1, 1 << 16)).unwrap_or(1);
        if self.rotation % 180 == 90 { (self.height, wide) } else { (wide, self.height) }
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

    pub(crate) fn is_dialogue(&self) -> bool {
        *self == Self::Dialogue
    }
}

/// What a creator should know of a recording that became a lesson all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The file ends early.
    Truncated,
    /// A sound track is of a kind that can't be decoded.
    AudioNotDecodable,
    /// The clock of the picture stood still or went back within the file.
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

    /// The warning with that code.
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

/// Why a recording can't be made into a lesson: the design's `media_*` codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefusalCode {
    /// There is nothing in the file.
    #[serde(rename = "media_empty")]
    Empty,
    /// Neither picture nor sound.
    #[serde(rename = "media_not_video")]
    NotVideo,
    /// Its samples are encrypted.
    #[serde(rename = "media_encrypted")]
    Encrypted,
    /// A container or codec that is not on the allow-list, such as a playlist.
    #[serde(rename = "media_forbidden_format")]
    ForbiddenFormat,
    /// More pixels, streams, time or output than the limits allow.
    #[serde(rename = "media_limit_exceeded")]
    LimitExceeded,
    /// Decoding it ended the process that tried.
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

//! One track of a lesson: its segments on the grid, and the paths of its objects.

use serde::{Deserialize, Serialize};

use crate::grid::{AAC_FRAME, Grid};
use crate::info::Purpose;
use crate::ladder::VideoCodec;

/// One track.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrackPlan {
    /// Its name, which is also its directory, such as `v720` or `a-en`.
    pub name: String,
    /// Ticks per second.
    pub timescale: u32,
    /// How many segments it will have.
    pub segments: u32,
    /// The highest bit rate of any of its segments, in bits per second, container included.
    pub peak_bitrate: u64,
    /// Video, audio or subtitles, with what is particular to each.
    pub kind: TrackKind,
}

/// What a track is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TrackKind {
    /// Video.
    Video {
        /// The shorter side in pixels, which names the rendition.
        shorter_side: u32,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The codec.
        codec: VideoCodec,
    },
    /// Audio.
    Audio {
        /// A BCP 47 tag, `und` where not known.
        language: String,
        /// The name shown to viewers.
        label: String,
        /// Whether it plays unless the viewer chooses another.
        default: bool,
    },
    /// Subtitles, as WebVTT.
    Subtitles {
        /// A BCP 47 tag, `und` where not known.
        language: String,
        /// The name shown to viewers.
        label: String,
        /// How many segments of the grid each of its segments covers, at least 1.
        every: u32,
        /// The viewers it is made for.
        #[serde(default, skip_serializing_if = "Purpose::is_dialogue")]
        purpose: Purpose,
    },
}

impl TrackPlan {
    /// Whether this is a video track.
    pub fn is_video(&self) -> bool {
        matches!(self.kind, TrackKind::Video { .. })
    }

    /// Whether this is an audio track.
    pub fn is_audio(&self) -> bool {
        matches!(self.kind, TrackKind::Audio { .. })
    }

    /// Whether this is a subtitle track: its segments are text and need no init segment.
    pub fn is_text(&self) -> bool {
        matches!(self.kind, TrackKind::Subtitles { .. })
    }

    /// Start and duration of segment `n`, in ticks of the track's timescale.
    pub fn segment(&self, grid: &Grid, n: u32) -> (u64, u64) {
        let frames = |from: u32, to: u32| {
            let (first, next, ticks) = (grid.first_frame(from), grid.first_frame(to), u64::from(grid.timescale().1));
            (first.saturating_mul(ticks), next.saturating_sub(first).saturating_mul(ticks))
        };
        match self.kind {
            TrackKind::Video { .. } => frames(n, n.saturating_add(1)),
            TrackKind::Subtitles { every, .. } => {
                let first = n.saturating_mul(every.max(1));
                frames(first, first.saturating_add(every.max(1)))
            }
            TrackKind::Audio { .. } => {
                let (first, next) = (grid.first_audio_frame(n), grid.first_audio_frame(n.saturating_add(1)));
                (first.saturating_mul(AAC_FRAME), next.saturating_sub(first).saturating_mul(AAC_FRAME))
            }
        }
    }

    /// Where segment `n` starts, in milliseconds rounded down: the number in its name.
    pub fn segment_ms(&self, grid: &Grid, n: u32) -> u64 {
        let (start, _) = self.segment(grid, n);
        ticks_ms(start, self.timescale)
    }

    /// The path of segment `n` relative to the version.
    pub fn segment_path(&self, grid: &Grid, n: u32) -> String {
        format!("{}/{}", self.name, self.segment_name(n, self.segment_ms(grid, n)))
    }

    /// The file name of segment `n`, which starts at `start_ms`.
    pub fn segment_name(&self, n: u32, start_ms: u64) -> String {
        if self.is_text() { format!("{n:05}-{start_ms}.vtt") } else { segment_name(n, start_ms) }
    }

    /// The name shown to viewers; none for video.
    pub fn label(&self) -> Option<&str> {
        match &self.kind {
            TrackKind::Video { .. } => None,
            TrackKind::Audio { label, .. } | TrackKind::Subtitles { label, .. } => Some(label),
        }
    }

    /// Gives it a label that no track of its kind in `others` has: players list tracks by label (RFC 8216bis, section
    /// 4.4.6.1.1).
    pub(crate) fn make_label_unique(&mut self, others: &[TrackPlan]) {
        let taken = |name: &str| {
            let same_kind = |t: &&TrackPlan| t.is_audio() == self.is_audio() && t.is_text() == self.is_text();
            others.iter().filter(same_kind).any(|track| track.label() == Some(name))
        };
        let own = self.label().unwrap_or_default().to_owned();
        let name = (2u32..).map(|n| format!("{own} {n}")).find(|name| !taken(name)).filter(|_| taken(&own));
        if let (Some(name), TrackKind::Audio { label, .. } | TrackKind::Subtitles { label, .. }) =
            (name, &mut self.kind)
        {
            *label = name;
        }
    }

    /// The path of the init segment relative to the version.
    pub fn init_path(&self) -> String {
        format!("{}/init.mp4", self.name)
    }
}

/// The file name of a segment.
pub fn segment_name(n: u32, start_ms: u64) -> String {
    format!("{n:05}-{start_ms}.m4s")
}

/// Ticks to milliseconds, rounded down.
pub fn ticks_ms(ticks: u64, timescale: u32) -> u64 {
    let ms = u128::from(ticks) * 1000 / u128::from(timescale.max(1));
    u64::try_from(ms).unwrap_or(u64::MAX)
}

/// The path of the file that holds a whole subtitle track, which DASH players read.
pub fn whole_path(track: &str) -> String {
    format!("{track}/subtitles.vtt")
}

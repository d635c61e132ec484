//! One track of a lesson: its segments on the grid, and the paths of its objects.

use serde::{Deserialize, Serialize};

use crate::grid::{AAC_FRAME, Grid};
use crate::info::Purpose;
use crate::ladder::VideoCodec;

/// One track.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrackPlan {
    /// Its name and directory, such as `v720` or `a-en`.
    pub name: String,
    /// Ticks per second.
    pub timescale: u32,
    /// How many segments it will have.
    pub segments: u32,
    /// The most bits per second that any of its segments takes, container and all.
    pub peak_bitrate: u64,
    /// What it is.
    pub kind: TrackKind,
}

/// What a track is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TrackKind {
    /// Picture.
    Video {
        /// The shorter side in pixels: the rendition's name.
        shorter_side: u32,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The codec.
        codec: VideoCodec,
    },
    /// Sound.
    Audio {
        /// A BCP 47 tag, `und` where not known.
        language: String,
        /// For people.
        label: String,
        /// Whether it is the one to play when the viewer has said nothing.
        default: bool,
    },
    /// Subtitles, as WebVTT.
    Subtitles {
        /// A BCP 47 tag, `und` where not known.
        language: String,
        /// For people.
        label: String,
        /// How many segments of the grid each of its own spans, at least 1.
        every: u32,
        /// Whom it is for.
        #[serde(default, skip_serializing_if = "Purpose::is_dialogue")]
        purpose: Purpose,
    },
}

impl TrackPlan {
    /// Whether this is a picture track.
    pub fn is_video(&self) -> bool {
        matches!(self.kind, TrackKind::Video { .. })
    }

    /// Whether this is a sound track.
    pub fn is_audio(&self) -> bool {
        matches!(self.kind, TrackKind::Audio { .. })
    }

    /// Whether this is a track of subtitles: text, whose segments need no init.
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

    /// Its name for people, where it has one.
    pub fn label(&self) -> Option<&str> {
        match &self.kind {
            TrackKind::Video { .. } => None,
            TrackKind::Audio { label, .. } | TrackKind::Subtitles { label, .. } => Some(label),
        }
    }

    /// Names it otherwise than all of its kind in `beside`: players list tracks by these names (RFC 8216bis, section
    /// 4.4.6.1.1).
    pub(crate) fn set_label_apart(&mut self, beside: &[TrackPlan]) {
        let taken = |name: &str| {
            let alike = |t: &&TrackPlan| t.is_audio() == self.is_audio() && t.is_text() == self.is_text();
            beside.iter().filter(alike).any(|track| track.label() == Some(name))
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

/// The path of a track's whole file, which DASH players take.
pub fn whole_path(track: &str) -> String {
    format!("{track}/subtitles.vtt")
}

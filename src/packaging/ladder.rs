//! The ladder: the renditions to make (`ladder.toml`).

use std::fmt;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

use lyceum_core::units::{self, Span};

/// Bits per second: a whole number, or text such as `800kbps` or `5Mbps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bitrate(pub u64);

/// The smallest and the largest bit rate that a ladder may name.
const BITRATES: std::ops::RangeInclusive<u64> = 8_000..=400_000_000;

impl std::str::FromStr for Bitrate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is no bit rate: write bits per second as a whole number, or such as \"800kbps\" or \"5Mbps\""
            )
        };
        let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, unit) = text.split_at(digits);
        let scale = match unit.trim() {
            "" | "bps" | "bit/s" => 1.0,
            "k" | "kbps" | "kbit/s" => 1e3,
            "M" | "Mbps" | "Mbit/s" => 1e6,
            _ => return Err(wrong()),
        };
        let value = number.parse::<f64>().map_err(|_| wrong())? * scale;
        Self::checked(value.round().min(1e15) as u64)
    }
}

impl Bitrate {
    fn checked(value: u64) -> Result<Self, String> {
        if BITRATES.contains(&value) {
            return Ok(Self(value));
        }
        Err(format!("{value} is out of bounds: from {} to {} bits per second", BITRATES.start(), BITRATES.end()))
    }
}

impl fmt::Display for Bitrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}kbps", self.0 / 1000) } else { write!(f, "{}bps", self.0) }
    }
}

impl<'de> Deserialize<'de> for Bitrate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(from)? {
            Either::Number(value) => Self::checked(value),
            Either::Text(text) => text.parse(),
        }
        .map_err(D::Error::custom)
    }
}

impl Serialize for Bitrate {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// The codec of a video rendition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VideoCodec {
    /// H.264 High (ISO/IEC 14496-10).
    #[default]
    H264,
    /// HEVC Main (ISO/IEC 23008-2).
    Hevc,
    /// AV1 Main.
    Av1,
}

impl VideoCodec {
    /// The name in configurations and paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Av1 => "av1",
        }
    }
}

/// One rung.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoRung {
    /// The shorter side in pixels, 16 to 4320.
    #[serde(deserialize_with = "units::number::<_, 16, 4320>")]
    pub height: u64,
    /// `h264` (default), `hevc` or `av1`.
    #[serde(default)]
    pub codec: VideoCodec,
    /// The constant quality (CRF) to aim at, 1 (best) to 63; default 23 for H.264, 26 for HEVC, 35 for AV1.
    #[serde(default, deserialize_with = "quality")]
    pub quality: Option<u64>,
    /// The maximum bit rate, over a buffer of one second.
    pub max_bitrate: Bitrate,
}

fn quality<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    units::number::<_, 1, 63>(from).map(Some)
}

impl VideoRung {
    /// The constant quality to aim at.
    pub fn crf(&self) -> u64 {
        self.quality.unwrap_or(match self.codec {
            VideoCodec::H264 => 23,
            VideoCodec::Hevc => 26,
            VideoCodec::Av1 => 35,
        })
    }
}

/// The audio renditions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AudioRung {
    /// AAC-LC, stereo; default 128kbps.
    pub bitrate: Bitrate,
    /// The integrated loudness of each track, in LUFS, -40 to -5; default -16.
    #[serde(deserialize_with = "loudness")]
    pub loudness: f64,
}

fn loudness<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(from)?;
    if (-40.0..=-5.0).contains(&value) {
        return Ok(value);
    }
    Err(D::Error::custom(format!("{value} is out of bounds: from -40 to -5 LUFS")))
}

impl Default for AudioRung {
    fn default() -> Self {
        Self { bitrate: Bitrate(128_000), loudness: -16.0 }
    }
}

/// `ladder.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ladder {
    /// How long a segment is, to the nearest frame: 1s to 10s; default 4s.
    #[serde(deserialize_with = "units::span::<_, 1000, 10_000>")]
    pub segment: Span,
    /// The rungs, 1 to 24 of them; default 240p to 2160p in H.264. Those above the source are left out.
    #[serde(deserialize_with = "rungs")]
    pub video: Vec<VideoRung>,
    /// The audio.
    pub audio: AudioRung,
    /// Whether the renditions of a few segments are compared with the source, for `lesson.json`: true or false; default
    /// true. It costs about a hundredth of the work.
    pub measure_quality: bool,
}

fn rungs<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<VideoRung>, D::Error> {
    let rungs = Vec::<VideoRung>::deserialize(from)?;
    if !(1..=24).contains(&rungs.len()) {
        return Err(D::Error::custom(format!("a ladder has 1 to 24 rungs, not {}", rungs.len())));
    }
    for (i, rung) in rungs.iter().enumerate() {
        if rungs.iter().take(i).any(|r| r.height == rung.height && r.codec == rung.codec) {
            return Err(D::Error::custom(format!("two rungs are {}p in {}", rung.height, rung.codec.as_str())));
        }
    }
    Ok(rungs)
}

/// Shorter side and cap in kbit/s of the default rungs.
const DEFAULT_RUNGS: &[(u64, u64)] =
    &[(240, 400), (360, 800), (480, 1400), (720, 3000), (1080, 5500), (1440, 10_000), (2160, 18_000)];

impl Default for Ladder {
    fn default() -> Self {
        let rung = |(height, kbps): &(u64, u64)| VideoRung {
            height: *height,
            codec: VideoCodec::H264,
            quality: None,
            max_bitrate: Bitrate(kbps * 1000),
        };
        Self {
            segment: Span::secs(4),
            video: DEFAULT_RUNGS.iter().map(rung).collect(),
            audio: AudioRung::default(),
            measure_quality: true,
        }
    }
}

/// A rung fitted to a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// Width in pixels, even.
    pub width: u32,
    /// Height in pixels, even.
    pub height: u32,
    /// The rung's settings; its `height` is the shorter side as made.
    pub rung: VideoRung,
}

impl Ladder {
    /// The rungs for a video shown at `width`×`height`, smallest first: none above it, its own size on top where that is
    /// more than a tenth above the highest rung that fits, and at least one in H.264.
    pub fn fit(&self, width: u32, height: u32) -> Vec<Fitted> {
        let own = u64::from(width.min(height));
        let mut rungs: Vec<VideoRung> = Vec::new();
        for codec in [VideoCodec::H264, VideoCodec::Hevc, VideoCodec::Av1] {
            let mut all: Vec<&VideoRung> = self.video.iter().filter(|r| r.codec == codec).collect();
            all.sort_by_key(|r| r.height);
            let fits: Vec<&VideoRung> = all.iter().copied().filter(|r| r.height <= own + 1).collect();
            let above = all.iter().copied().find(|r| r.height > own + 1);
            rungs.extend(fits.iter().copied().cloned());
            let top = fits.last().map_or(0, |r| r.height);
            if let Some(above) = above.filter(|_| top * 11 < own * 10) {
                rungs.push(VideoRung { height: own, ..above.clone() });
            }
        }
        if !rungs.iter().any(|r| r.codec == VideoCodec::H264) {
            // Every player plays H.264: a ladder without it gets one rung in it, as high as its highest.
            let best = rungs.iter().map(|r| (r.height, r.max_bitrate)).max_by_key(|(height, _)| *height);
            let (height, max_bitrate) = best.unwrap_or((own, Bitrate(3_000_000)));
            rungs.push(VideoRung { height, codec: VideoCodec::H264, quality: None, max_bitrate });
        }
        rungs.sort_by_key(|r| (r.height, r.codec as u8));
        let mut fitted: Vec<Fitted> = rungs.into_iter().map(|rung| fitted(width, height, rung)).collect();
        // Rungs that rounding made equal would share a path.
        fitted.dedup_by_key(|f| (f.rung.height, f.rung.codec));
        fitted
    }
}

/// Scales to the rung's shorter side, keeping the aspect ratio, with even sides.
fn fitted(width: u32, height: u32, rung: VideoRung) -> Fitted {
    let own = u64::from(width.min(height)).max(1);
    let target = rung.height.min(own);
    let even = |side: u32| {
        if target == own {
            return (side & !1).max(2);
        }
        let doubled = (u64::from(side) * target + own) / (own * 2) * 2;
        u32::try_from(doubled.clamp(2, 16_384)).unwrap_or(2)
    };
    let (width, height) = (even(width), even(height));
    Fitted { width, height, rung: VideoRung { height: u64::from(width.min(height)), ..rung } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sizes(width: u32, height: u32) -> Vec<(u32, u32)> {
        Ladder::default().fit(width, height).iter().map(|f| (f.width, f.height)).collect()
    }

    #[test]
    fn rungs_keep_the_aspect_ratio_and_stay_below_the_source() {
        assert_eq!(sizes(1280, 720), [(426, 240), (640, 360), (854, 480), (1280, 720)]);
        assert_eq!(sizes(1080, 1920), [(240, 426), (360, 640), (480, 854), (720, 1280), (1080, 1920)]);
        assert_eq!(sizes(800, 600), [(320, 240), (480, 360), (640, 480), (800, 600)]);
        assert_eq!(sizes(160, 121), [(160, 120)]);
        assert_eq!(sizes(1279, 719), [(426, 240), (640, 360), (854, 480), (1278, 718)]);
    }

    #[test]
    fn h264_is_always_kept() {
        let ladder: Ladder =
            toml::from_str("[[video]]\nheight = 720\ncodec = \"av1\"\nmax_bitrate = \"2Mbps\"").unwrap();
        let codecs: Vec<_> = ladder.fit(1280, 720).iter().map(|f| f.rung.codec).collect();
        assert_eq!(codecs, [VideoCodec::H264, VideoCodec::Av1]);
    }

    #[test]
    fn a_ladder_reads_with_units_and_bounds() {
        let ladder: Ladder = toml::from_str(
            "segment = \"2s\"\n[[video]]\nheight = 360\nquality = 21\nmax_bitrate = 900000\n[audio]\nbitrate = \"96kbps\"\nloudness = -18",
        )
        .unwrap();
        assert_eq!(ladder.video[0].max_bitrate, Bitrate(900_000));
        assert_eq!((ladder.audio.bitrate.0, ladder.audio.loudness), (96_000, -18.0));
        for (bad, says) in [
            ("segment = \"20s\"", "out of bounds"),
            ("video = []", "1 to 24 rungs"),
            ("[[video]]\nheight = 9\nmax_bitrate = 1000000", "out of bounds"),
            ("[[video]]\nheight = 90\nmax_bitrate = \"5MB\"", "no bit rate"),
            ("[audio]\nloudness = 3.0", "LUFS"),
            ("[[video]]\nheight = 90\nmax_bitrate = 100000\n[[video]]\nheight = 90\nmax_bitrate = 200000", "two rungs"),
            ("colour = 1", "unknown field"),
        ] {
            let error = toml::from_str::<Ladder>(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
        let written = toml::to_string(&ladder).unwrap();
        assert_eq!(toml::from_str::<Ladder>(&written).unwrap(), ladder);
    }

    proptest! {
        #[test]
        fn any_size_gets_even_sides_not_above_it(width in 16u32..8000, height in 16u32..8000) {
            let fitted = Ladder::default().fit(width, height);
            prop_assert!(!fitted.is_empty());
            for f in &fitted {
                prop_assert!(f.width % 2 == 0 && f.height % 2 == 0);
                prop_assert!(f.width <= width + 1 && f.height <= height + 1, "{:?}", f);
            }
            let names: std::collections::HashSet<_> = fitted.iter().map(|f| (f.rung.height, f.rung.codec)).collect();
            prop_assert_eq!(names.len(), fitted.len());
        }
    }
}

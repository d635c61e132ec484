//! Writes WebVTT (W3C WebVTT): cues, timestamps, files.

use std::fmt::Write as _;

/// The most cues of a track.
pub(crate) const MAX_CUES: usize = 100_000;

/// One subtitle. Times are milliseconds from the lesson's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cue {
    /// When it appears.
    pub start_ms: u64,
    /// When it disappears; after `start_ms`.
    pub end_ms: u64,
    /// WebVTT cue settings such as `line:0`, or empty.
    pub settings: String,
    /// WebVTT cue text: lines, none of them blank.
    pub text: String,
}

/// A WebVTT file. Segments map their clock to the video's, which begins at 0 (RFC 8216bis, section 3.1.4).
pub(crate) fn webvtt<'c>(cues: impl Iterator<Item = &'c Cue>, segment: bool) -> String {
    let mut out = String::from("WEBVTT\n");
    if segment {
        out.push_str("X-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000\n");
    }
    for cue in cues {
        let space = if cue.settings.is_empty() { "" } else { " " };
        let (start, end) = (timestamp(cue.start_ms), timestamp(cue.end_ms));
        let _ = write!(out, "\n{start} --> {end}{space}{}\n{}\n", cue.settings, cue.text);
    }
    out
}

/// A WebVTT timestamp.
pub(crate) fn timestamp(ms: u64) -> String {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

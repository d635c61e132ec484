//! Subtitles: from SubRip, WebVTT, MPEG-4 timed text and ASS to segmented WebVTT (W3C WebVTT; in HLS RFC 8216bis,
//! section 3.1.4) and one whole file for DASH.
//!
//! A track is small and made in one go, so its playlist is `VOD` from the start and no player waits for it. Sidecar
//! files need no FFmpeg: [`parse`] a file, [`Plan::add_subtitles`](crate::plan::Plan::add_subtitles) (also to a
//! finished lesson), and store the [`objects`]; the multivariant playlist lists the track once all of them are there.

mod cue_text;
mod embedded;
mod segments;
mod sidecar;
#[cfg(test)]
mod tests;
pub(crate) mod tracks;

pub use embedded::{Packet, cues as packet_cues};
pub use segments::objects;
pub use sidecar::{FileError, MAX_FILE_BYTES, parse};

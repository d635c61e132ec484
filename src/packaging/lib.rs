//! How a recording becomes a lesson, as data: the ladder, the plan of tasks, the objects that workers deliver, and the
//! playlists and manifests rendered from them.
//!
//! Pure: no I/O, no clock, no FFmpeg, nothing of the origin. These types are all that the origin, the worker and the
//! task process share. HLS follows RFC 8216bis, CMAF ISO/IEC 23000-19 and DASH ISO/IEC 23009-1.
#![forbid(unsafe_code)]

pub mod av1;
pub mod avc;
pub mod cmaf;
pub mod filter;
pub mod framing;
pub mod grid;
pub mod handover;
pub mod hevc;
pub mod images;
pub mod index;
pub mod info;
pub mod ladder;
mod language;
pub mod plan;
pub mod planner;
pub mod protection;
pub mod render;
pub mod report;
pub mod subtitles;
pub mod task;
pub mod track;
pub mod webvtt;

pub use grid::{FrameRate, Grid};
pub use handover::{DeliveredObject, Mismatch, ObjectKind, TrackFacts};
pub use index::{ObjectIndex, playable};
pub use info::{MediaInfo, Refusal, RefusalCode};
pub use ladder::{Bitrate, Ladder, VideoCodec};
pub use plan::{Plan, PlannedTask};
pub use planner::plan;
pub use protection::{ContentKey, Encryption, Protection};
pub use task::TaskSpec;
pub use track::{TrackKind, TrackPlan};

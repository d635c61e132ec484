//! `lyceum-load viewers`: virtual players that follow playlists through an edge like real ones, each over its own
//! connections, and report the quality of experience.
//!
//! Media is fetched, checked and dropped, not decoded; a simulated playhead advances in real time over what has arrived.
//! Unlike browsers, these players never abandon a segment for a smaller one, and fetch nothing before play is pressed.

pub mod adaptation;
pub mod behaviour;
pub mod boxes;
pub mod cmcd;
pub mod command;
pub mod fetch;
pub mod ladder;
pub mod opening;
pub mod playback;
pub mod random;
pub mod reporter;
pub mod session;
pub mod shared;
pub mod tally;
pub mod track;

pub use command::{Args, run};

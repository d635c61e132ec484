//! `lyceum-load viewers`: virtual players that follow playlists through an edge like real ones, each over connections
//! of its own, and report what their viewers would have felt.
//!
//! What is simulated is the screen: media is fetched, looked at and dropped, not decoded, and a playhead runs in real
//! time over what has arrived. Not simulated, and worth knowing when figures are compared with browsers: a segment
//! under way is never given up for a smaller one, and nothing is fetched before play is pressed.

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

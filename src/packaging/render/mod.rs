//! From an index to what players read. Pure functions: the same index gives the same bytes, whoever renders it.

mod dash;
mod hls;
mod lesson;
#[cfg(test)]
mod tests;

pub use dash::manifest;
pub use hls::{State, event_playlist, iframe_playlist, master, media_playlist};
pub use lesson::lesson_json;

//! Renders what players read from an index. Pure functions: the same index gives the same bytes in every process.

mod dash;
mod hls;
mod lesson;
#[cfg(test)]
mod tests;

pub use dash::manifest;
pub use hls::{event_playlist, iframe_playlist, master, media_playlist};
pub use lesson::lesson_json;

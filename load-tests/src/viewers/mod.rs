//! Virtual players.

pub mod adaptation;
pub mod playback;

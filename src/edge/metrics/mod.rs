//! What is counted: requests, fills, time to first byte, and playback as players report it.

pub(crate) mod counters;
pub(crate) mod first_byte;
pub(crate) mod playback;

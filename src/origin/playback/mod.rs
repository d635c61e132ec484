//! Playback: who may watch a lesson and for how long, as sessions with signed tokens, and how many streams of a viewer
//! run at once. The rules alone: `api::playback` reads requests and writes answers.

pub(crate) mod client_network;
pub(crate) mod error;
pub(crate) mod session;
pub(crate) mod stream;

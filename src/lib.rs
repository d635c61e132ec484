//! Lyceum delivers the videos of paid courses: an *origin* takes uploads, has them transcoded and signs
//! tokens; *edges* give each segment only to players whose token says that its lesson was paid for.
#![forbid(unsafe_code)]

pub mod app;
pub mod demo;

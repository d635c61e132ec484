//! What HTTP and media field values mean: paths, Cache-Control, freshness, ranges, conditionals, CMCD.
//!
//! Pure: no I/O, no clock, no state. Every parser is bounded and takes input from outside without failing
//! in any other way than by saying so.
#![forbid(unsafe_code)]

pub mod byte_set;
pub mod cache_control;
pub mod cmcd;
pub mod conditional;
pub mod fields;
pub mod forwarded;
pub mod freshness;
pub mod ip_network;
pub mod path;
pub mod problem;
pub mod proxy_protocol;
pub mod range;

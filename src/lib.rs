//! Lyceum delivers the videos of paid courses: an *origin* takes uploads, has them transcoded and signs
//! tokens; *edges* give each segment only to players whose token says that its lesson was paid for.
//!
//! Layers, each using only those below it (`tests/layering.rs` holds the code to this):
//!
//! ```text
//! app          the composition root of each role
//! edge origin demo  roles; they meet only over HTTP
//! front admin client    sockets, the operators' listener, HTTP client
//! token cache upstream store upload catalog jobs    one mechanism each
//! db telemetry packaging
//! semantics ids time units    pure
//! ```
#![deny(unsafe_code)]

pub mod admin;
pub mod app;
pub mod cache;
pub mod catalog;
pub mod client;
pub mod config;
pub mod db;
pub mod demo;
pub mod edge;
pub mod front;
pub mod ids;
pub mod jobs;
pub mod origin;
pub mod packaging;
pub mod semantics;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod token;
pub mod units;
pub mod upload;
pub mod upstream;

//! The edge: a shared HTTP cache (RFC 9111) that checks a token before it serves.
//!
//! A request goes through admit → authorize → lookup → fetch → deliver → record; `serve.rs` is the table of contents.
//! An edge reaches origins over HTTP only and must not depend on the origin's code.
#![forbid(unsafe_code)]

mod admin;
mod cache_status;
mod config;
mod config_check;
mod control;
mod edge;
mod error;
mod fast_path;
mod fetch;
mod header_block;
mod metrics;
mod pass_through;
mod record;
mod request;
mod response;
mod serve;
mod state;

pub use config::Config;
pub use edge::{Edge, FIXED, Parts};
pub use error::StartError;
pub use response::body::Body;
pub use response::piece::BodyError;

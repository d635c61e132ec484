//! What every part of Lyceum stands on: ids, time, units, configuration, telemetry and shutdown.
//!
//! Knows nothing of HTTP, media or any role.
#![forbid(unsafe_code)]

pub mod config;
pub mod ids;
pub mod shutdown;
pub mod telemetry;
pub mod time;
pub mod units;

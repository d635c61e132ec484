//! What every part of Lyceum stands on: ids, time, units, configuration, telemetry, shutdown, and what shells
//! and `man` know of a program.
//!
//! Knows nothing of HTTP, media or any role.
#![forbid(unsafe_code)]

pub mod config;
pub mod ids;
pub mod shell;
pub mod shutdown;
pub mod telemetry;
pub mod time;
pub mod units;

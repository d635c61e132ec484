//! The command line, and the composition root of each role.
//!
//! Exit codes: 0 done (also after a drain by signal), 2 usage, configuration or a missing input file, 1 anything else.

mod catalog;
mod cli;
mod config;
mod doctor;
mod failure;
mod origin_api;
mod reload_metrics;
mod roles;
mod scrape;
mod shell;
mod status;
mod table;
mod tokens;
mod upload;

pub use cli::main;
pub use failure::Failure;

//! The stories: what Lyceum does, told with real programs, sockets, stores and players.

mod demo;
mod layering;
mod shipped_configs;
mod support;

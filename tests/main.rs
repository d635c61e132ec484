//! The stories: what Lyceum does, told with real programs, sockets, stores and players.

mod layering;
mod shipped_configs;
mod support;

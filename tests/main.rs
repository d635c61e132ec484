//! The stories: what Lyceum does, told with real programs, sockets, stores and players.
#![allow(unreachable_pub, reason = "one binary of many modules exports nothing")]

mod demo;
mod front;
mod layering;
mod shipped_configs;
mod support;

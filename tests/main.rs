//! The stories: what Lyceum does, told with real programs, sockets, stores and players.

mod support;

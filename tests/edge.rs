//! The edge over real sockets, before origins that do as they are told.

#[path = "edge/harness.rs"]
mod harness;

#[path = "edge/ahead.rs"]
mod ahead;
#[path = "edge/bucket.rs"]
mod bucket;
#[path = "edge/cdni.rs"]
mod cdni;
#[path = "edge/clients.rs"]
mod clients;
#[path = "edge/control.rs"]
mod control;
#[path = "edge/delivery.rs"]
mod delivery;
#[path = "edge/fills.rs"]
mod fills;
#[path = "edge/hosts.rs"]
mod hosts;
#[path = "edge/intermediary.rs"]
mod intermediary;
#[path = "edge/liars.rs"]
mod liars;
#[path = "edge/logs.rs"]
mod logs;
#[path = "edge/pipelines.rs"]
mod pipelines;
#[path = "edge/playlists.rs"]
mod playlists;
#[path = "edge/purges.rs"]
mod purges;
#[path = "edge/reload.rs"]
mod reload;
#[path = "edge/rfc9111.rs"]
mod rfc9111;
#[path = "edge/slices.rs"]
mod slices;
#[path = "edge/tiers.rs"]
mod tiers;
#[path = "edge/tokens.rs"]
mod tokens;

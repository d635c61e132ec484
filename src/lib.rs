//! Lyceum delivers the videos of paid courses: an *origin* takes uploads, has them transcoded to HLS and DASH and signs
//! tokens; *edges* give each segment only to players whose token says that its lesson was paid for.
//!
//! This crate holds the command line ([`app`]) and the demo ([`demo`]). Everything else is a crate of its own below
//! `src/`, named here from the top to the bottom; each uses only crates of the floors below it.
//!
//! | floor | crate | what it is |
//! |---|---|---|
//! | 4 | [`origin`] | the API, ingest of recordings, delivery to edges, the pages |
//! | 3 | [`edge`] | a shared HTTP cache that asks every request for its token |
//! | 3 | [`catalog`] | courses, lessons, API keys, entitlements and sessions as rows of the database |
//! | 2 | [`packaging`] | ladder, plan of tasks, CMAF, playlists and manifests; pure |
//! | 2 | [`token`] | signed playback tokens: keys, claims, verification, revocation |
//! | 2 | [`client`] | a bounded HTTP client, and tus uploads over it |
//! | 2 | [`server`] | sockets, TLS, HTTP/1.1, 2 and 3, limits and drain |
//! | 2 | [`admin`] | the operators' listener: health, readiness, metrics, drain |
//! | 2 | [`cache`] | responses in memory and on disk, and the fills that bring them |
//! | 2 | [`upstream`] | pools of origins: balancing, health, retries, timeouts |
//! | 2 | [`storage`] | database, object store, resumable uploads, the queue of tasks |
//! | 1 | [`http`] | paths, Cache-Control, freshness, ranges, conditionals, CMCD; pure |
//! | 1 | [`core`] | ids, time, units, configuration, telemetry, shutdown |
//!
//! `ARCHITECTURE.md` follows a request, an upload and a task through their files; `tests/layering.rs` holds the order.
#![forbid(unsafe_code)]

pub mod app;
pub mod demo;

pub use lyceum_admin as admin;
pub use lyceum_cache as cache;
pub use lyceum_catalog as catalog;
pub use lyceum_client as client;
pub use lyceum_core as core;
pub use lyceum_edge as edge;
pub use lyceum_http as http;
pub use lyceum_origin as origin;
pub use lyceum_packaging as packaging;
pub use lyceum_server as server;
pub use lyceum_storage as storage;
pub use lyceum_token as token;
pub use lyceum_upstream as upstream;

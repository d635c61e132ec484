//! Stories of the origin, told with the real program: uploads that lose nothing, tasks, access, two origins as one.

#[path = "origin/access.rs"]
mod access;
#[path = "origin/clock.rs"]
mod clock;
#[path = "origin/conditions.rs"]
mod conditions;
#[path = "origin/disk.rs"]
mod disk;
#[path = "origin/encryption.rs"]
mod encryption;
#[path = "origin/entitlements.rs"]
mod entitlements;
#[path = "origin/faults.rs"]
mod faults;
#[path = "origin/keys.rs"]
mod keys;
#[path = "origin/kills.rs"]
mod kills;
#[path = "origin/limits.rs"]
mod limits;
#[path = "origin/openapi.rs"]
mod openapi;
#[path = "origin/queue.rs"]
mod queue;
#[path = "origin/requests.rs"]
mod requests;
#[path = "origin/services.rs"]
pub mod services;
#[path = "origin/subtitles.rs"]
mod subtitles;
#[path = "origin/tasks.rs"]
mod tasks;
#[path = "origin/tus.rs"]
mod tus;
#[path = "origin/workers.rs"]
mod workers;
#[path = "origin/world.rs"]
pub mod world;

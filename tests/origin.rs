//! Stories of the origin, told with the real program: uploads that lose nothing, tasks, access, two origins as one.

#[path = "origin/access.rs"]
mod access;
#[path = "origin/faults.rs"]
mod faults;
#[path = "origin/openapi.rs"]
mod openapi;
#[path = "origin/services.rs"]
pub mod services;
#[path = "origin/tasks.rs"]
mod tasks;
#[path = "origin/tus.rs"]
mod tus;
#[path = "origin/workers.rs"]
mod workers;
#[path = "origin/world.rs"]
pub mod world;

//! A response: how its head is derived from what was found, and the bodies that carry it.

pub(crate) mod body;
pub(crate) mod body_guard;
pub(crate) mod deliver;
pub(crate) mod piece;
mod plan;
pub(crate) mod sliced_body;

//! Numbers that tell the entries of one key apart.

use std::hash::{BuildHasher as _, RandomState};

/// A random number that no other entry has, over restarts too.
pub(super) fn random_id() -> u64 {
    RandomState::new().hash_one(0_u8)
}

//! Pauses between tries.

use std::time::Duration;

/// A random share of `most`, at least half of it, so that workers do not ask all at once.
pub(super) fn jittered(most: Duration) -> Duration {
    let [byte] = lyceum_core::ids::random_bytes::<1>();
    most.mul_f64(0.5 + f64::from(byte) / 512.0)
}

//! Pauses between retries.

use std::time::Duration;

/// A random duration between half of `most` and `most`, so that workers do not retry simultaneously.
pub(super) fn jittered(most: Duration) -> Duration {
    let [byte] = lyceum_core::ids::random_bytes::<1>();
    most.mul_f64(0.5 + f64::from(byte) / 512.0)
}

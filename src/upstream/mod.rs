//! The edge's way to its origins: balancing, health, retries.

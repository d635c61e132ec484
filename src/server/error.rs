//! The error type of bodies and connections.

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

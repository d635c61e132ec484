//! The keys that an origin holds: those that sign tokens, those that seal lessons' content keys at rest, and the API
//! key of the workers that it starts itself.

pub(crate) mod sealing;
pub(crate) mod signing;
pub(crate) mod worker_key;

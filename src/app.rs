//! The composition root of each role, and the command line that chooses it.

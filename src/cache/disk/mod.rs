//! The disk tier: stored responses in files, which survive a restart.
//!
//! Owns a directory with one file for each entry, whose header and body have a checksum each, and an index in memory
//! (about 300 bytes an entry) in order of use. Writes go through a bounded queue to one thread. A read takes a whole
//! file, on one of a bounded number of threads, and verifies it before a byte is passed on. A disk that is full or fails
//! is not used for a while, and the cache works with memory alone.
//!
//! Files have mode 0600, directories 0700. A lock file keeps a second process out.

pub(crate) mod config;
mod directory;
mod file;
mod index;
mod metrics;
mod private_files;
pub(crate) mod tier;

pub use config::DiskConfig;
pub use tier::DiskError;

#[cfg(test)]
mod tests;

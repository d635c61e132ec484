//! Why the demo ended, and the lines that say how far it is.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the demo ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory.
    #[error("{}: {cause}; choose a directory that can be written with --data", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// A second demo.
    #[error("{}: another demo runs over this directory; end it, or choose another with --data", .0.display())]
    Locked(PathBuf),
    /// The port that the user asked for.
    #[error("can't listen on {address}: {cause}; stop the program that uses it, or choose another with --listen")]
    Port {
        /// Which.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// A program that is not there.
    #[error("{}: is not there; build the whole workspace (cargo build --workspace)", .0.display())]
    Missing(PathBuf),
    /// A part that does not come up.
    #[error("{name} does not come up: {why}; its log is {}", log.display())]
    Part {
        /// Which.
        name: String,
        /// Why.
        why: String,
        /// Where to look.
        log: PathBuf,
    },
    /// A recording that can't be made a lesson.
    #[error("{file}: {what}")]
    Media {
        /// Which.
        file: String,
        /// Code and sentence.
        what: String,
    },
    /// A call to a part.
    #[error(transparent)]
    Http(#[from] lyceum_client::Error),
    /// An upload.
    #[error(transparent)]
    Upload(#[from] lyceum_client::tus::UploadError),
}

pub(super) fn step(what: &str) {
    println!("• {what}");
}

//! Why a pool can't be made, and why a fetch failed.

use std::path::PathBuf;
use std::sync::Arc;

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a pool can't be made from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// An origin's URL.
    #[error("the origin \"{0}\" is not an http or https URL of scheme, host and port only")]
    Url(String),
    /// An origin's path prefix.
    #[error(
        "the origin's prefix \"{0}\" must begin with a slash, end without one, and hold only letters, digits and -._~/"
    )]
    Prefix(String),
    /// The keys of a bucket.
    #[error(
        "the pool's auth.s3 needs region, access_key and secret_key, without blanks, slashes and commas in the first two"
    )]
    S3,
    /// The credentials.
    #[error("the pool's auth is either bearer or s3, and a bearer holds only characters that a header may hold")]
    Auth,
    /// The certificate authorities.
    #[error("{}: {what}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A pool without origins.
    #[error("the pool \"{0}\" has no origins")]
    Empty(String),
}

/// Why no response, or no complete body, came from an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No connection.
    Connect,
    /// No response or no body data in time.
    Timeout,
    /// The connection broke.
    Reset,
    /// The response is not valid HTTP.
    Protocol,
    /// The request can't be sent at all.
    Request,
    /// The request's body broke off or is malformed, for which its client is to blame.
    Client,
}

impl Failure {
    /// Its metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Request => "request",
            Self::Client => "client",
        }
    }

    /// Whether another origin, or the same one later, may succeed.
    pub fn retry(self) -> bool {
        !matches!(self, Self::Request | Self::Client)
    }

    /// The failure that an error of hyper means.
    pub(crate) fn of_hyper(cause: Option<&(dyn std::error::Error + 'static)>) -> Self {
        match cause.and_then(|cause| cause.downcast_ref::<hyper::Error>()) {
            Some(error) if error.is_parse() || error.is_user() => Self::Protocol,
            Some(error) if error.is_timeout() => Self::Timeout,
            _ => Self::Reset,
        }
    }
}

/// A failed fetch.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{origin}: {}: {cause}", failure.name())]
pub struct FetchError {
    /// What went wrong.
    pub failure: Failure,
    /// The origin (host and port) that was tried last.
    pub origin: Arc<str>,
    /// The cause, for the log.
    pub cause: Arc<str>,
}

/// The innermost cause of an error, which says more than the outer ones.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

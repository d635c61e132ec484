//! Why an edge can't start, and why a request is refused.
//!
//! The errors of the layers below know nothing of HTTP. One table here gives each its status and its stable code
//! (problem details, RFC 9457).

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use lyceum_cache::DiskError;
use lyceum_http::path::AmbiguousPath;
use lyceum_http::problem;
use lyceum_server::Refused;
use lyceum_token::Denied;
use lyceum_upstream::{Failure, FetchError, PoolError};

/// Why an edge can't start: always its configuration, or a file that the configuration names.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A route.
    #[error("route \"{prefix}\": {what}")]
    Route {
        /// Its prefix.
        prefix: String,
        /// What is wrong with it.
        what: String,
    },
    /// A pool.
    #[error("pool \"{pool}\": {cause}")]
    Pool {
        /// Its name.
        pool: String,
        /// What is wrong with it.
        cause: PoolError,
    },
    /// The cache's disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Keys.
    #[error("{0}")]
    Keys(String),
}

/// Why a request does not get what it asks for.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("{0}")]
    Ambiguous(AmbiguousPath),
    #[error("the request has no single valid host")]
    Host,
    #[error("the request's transfer coding is ambiguous")]
    Framing,
    #[error("only what is stored was asked for")]
    OnlyIfCached,
    #[error("nothing is served here")]
    NotFound,
    #[error("the method is not allowed here")]
    Method(&'static str),
    #[error("the route's bearer is needed")]
    Bearer,
    #[error("the reports are too large or no text")]
    Reports,
    #[error("none of the ranges lies inside")]
    Range(u64),
    #[error("a precondition failed")]
    Precondition,
    #[error("{0}")]
    Upstream(FetchError),
    #[error("the origin's answer broke off")]
    BrokenOff,
    #[error("the playlist is too large to be cut")]
    TooLarge,
    #[error(transparent)]
    Limit(Refused),
}

impl Refusal {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Denied(denied) => denied.code(),
            Self::Ambiguous(_) => "ambiguous_path",
            Self::Host => "bad_host",
            Self::Framing => "bad_framing",
            Self::OnlyIfCached => "not_cached",
            Self::NotFound => "not_found",
            Self::Method(_) => "method_not_allowed",
            Self::Bearer => "unauthorized",
            Self::Reports => "bad_reports",
            Self::Range(_) => "range_not_satisfiable",
            Self::Precondition => "precondition_failed",
            Self::Upstream(error) => match error.failure {
                Failure::Timeout => "origin_timeout",
                Failure::Connect => "origin_unreachable",
                Failure::Reset | Failure::Protocol | Failure::Request => "origin_failed",
                Failure::Client => "bad_body",
            },
            Self::BrokenOff => "origin_failed",
            Self::TooLarge => "playlist_too_large",
            Self::Limit(refused) => refused.code(),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Denied(Denied::Missing) | Self::Bearer => StatusCode::UNAUTHORIZED,
            Self::Denied(_) => StatusCode::FORBIDDEN,
            Self::Ambiguous(_) | Self::Host | Self::Framing => StatusCode::BAD_REQUEST,
            Self::OnlyIfCached => StatusCode::GATEWAY_TIMEOUT,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Reports => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Range(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Precondition => StatusCode::PRECONDITION_FAILED,
            Self::Upstream(error) => match error.failure {
                Failure::Timeout => StatusCode::GATEWAY_TIMEOUT,
                Failure::Connect => StatusCode::SERVICE_UNAVAILABLE,
                Failure::Reset | Failure::Protocol | Failure::Request => StatusCode::BAD_GATEWAY,
                Failure::Client => StatusCode::BAD_REQUEST,
            },
            Self::BrokenOff | Self::TooLarge => StatusCode::BAD_GATEWAY,
            Self::Limit(refused) => refused.status(),
        }
    }

    /// The sentence for the client. The cause of an origin's failure goes to the log only.
    fn detail(&self) -> String {
        match self {
            Self::Upstream(error) if error.failure == Failure::Client => {
                "The request's body broke off or is malformed.".to_owned()
            }
            Self::Upstream(_) | Self::BrokenOff => "The origin did not deliver; try again.".to_owned(),
            other => {
                let mut text = other.to_string();
                if let Some(first) = text.get_mut(..1) {
                    first.make_ascii_uppercase();
                }
                text.push('.');
                text
            }
        }
    }

    /// The whole response except for its CORS fields.
    pub(crate) fn response<B: From<Bytes>>(&self) -> Response<B> {
        let status = self.status();
        let mut response: Response<B> = problem::response(status, self.code(), &self.detail());
        let headers = response.headers_mut();
        match self {
            Self::Denied(Denied::Missing) | Self::Bearer => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"lyceum\""));
            }
            Self::Method(allow) => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allow));
            }
            Self::Range(length) => {
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{length}")) {
                    headers.insert(header::CONTENT_RANGE, value);
                }
            }
            // Two parties may read this message differently (request smuggling): nothing may follow it on the connection.
            Self::Host | Self::Framing => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Upstream(error) if error.failure == Failure::Client => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Limit(refused) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(refused.retry_after()));
            }
            Self::Upstream(_) | Self::BrokenOff => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            _ => {}
        }
        response
    }
}

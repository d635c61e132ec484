//! The HTTP client with which Lyceum's programs call each other: bounded, with errors that say whether to retry.
//!
//! It knows HTTP and JSON, not the API. [`tus`] uploads files with it; [`certificate`] says how long a server's certificate
//! is valid.
#![forbid(unsafe_code)]

pub mod certificate;
pub mod tus;

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStream;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use lyceum_core::units::{self, ByteSize, Span};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// An empty body.
pub fn empty() -> Body {
    full(Bytes::new())
}

/// A body in memory; it is sent with its length.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A streamed body. Set `Content-Length` on the request where the length is known.
pub fn stream<S, E>(pieces: S) -> Body
where
    S: TryStream<Ok = Bytes, Error = E> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    use futures_util::TryStreamExt;
    StreamBody::new(pieces.map_ok(Frame::data).map_err(Into::into)).boxed_unsync()
}

/// Limits of a call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Time to connect, TLS included. 10ms to 5m.
    #[serde(deserialize_with = "units::span::<_, 10, 300_000>")]
    pub connect: Span,
    /// Time from the call to the response's header, which includes sending the body. 10ms to 24h.
    #[serde(deserialize_with = "units::span::<_, 10, 86_400_000>")]
    pub response: Span,
    /// Time for the whole of a small (JSON) body. 10ms to 1h.
    #[serde(deserialize_with = "units::span::<_, 10, 3_600_000>")]
    pub body: Span,
    /// Bytes of a small (JSON) body. 1KiB to 1GiB.
    #[serde(deserialize_with = "units::size::<_, 1_024, 1_073_741_824>")]
    pub body_bytes: ByteSize,
    /// Idle connections kept for each host. 0 to 10,000.
    #[serde(deserialize_with = "units::number::<_, 0, 10_000>")]
    pub idle_connections: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Span::secs(5),
            response: Span::secs(60),
            body: Span::secs(30),
            body_bytes: ByteSize::mib(16),
            idle_connections: 32,
        }
    }
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL or request can't be sent at all.
    #[error("the request can't be made: {0}")]
    Request(String),
    /// No connection, or it broke before a response came.
    #[error("{host} can't be reached: {cause}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// Why.
        cause: BoxError,
    },
    /// No response in time.
    #[error("{host} did not answer within {}", Span(*.after))]
    Timeout {
        /// Host and port.
        host: String,
        /// The limit.
        after: Duration,
    },
    /// A status other than 2xx.
    #[error("{host} answered {status}{}", problem.suffix())]
    Status {
        /// Host and port.
        host: String,
        /// The status.
        status: StatusCode,
        /// The body, if it was problem+json.
        problem: Problem,
    },
    /// A body that broke off, is too large, or is not the expected JSON.
    #[error("{host} answered with a body that can't be used: {what}")]
    Body {
        /// Host and port.
        host: String,
        /// What is wrong with it.
        what: String,
    },
}

/// The members of a problem+json body (RFC 9457) that are used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// The stable error code.
    #[serde(default)]
    pub code: String,
    /// The explanation.
    #[serde(default)]
    pub detail: String,
}

impl Problem {
    fn suffix(&self) -> String {
        if self.code.is_empty() { String::new() } else { format!(" ({}): {}", self.code, self.detail) }
    }
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn retry(&self) -> bool {
        match self {
            Self::Request(_) => false,
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Body { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
        }
    }

    /// The response's status, if there was a response.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// The client. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    limits: Limits,
}

/// Trusted certificate authorities: the machine's (`SSL_CERT_FILE` names others), else those of the public web.
fn roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// TLS towards servers, on aws-lc.
fn tls() -> rustls::ClientConfig {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    match builder.with_safe_default_protocol_versions() {
        Ok(builder) => builder.with_root_certificates(roots()).with_no_client_auth(),
        // aws-lc supports both versions, so this arm is never reached.
        Err(_) => std::process::abort(),
    }
}

impl Http {
    /// A client with these limits.
    pub fn new(limits: Limits) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(limits.connect.get()));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls())
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(usize::try_from(limits.idle_connections).unwrap_or(32))
            .build(connector);
        Self { client, limits }
    }

    /// Sends a request and returns the response whatever its status, its body still to come.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let host = host_of(request.uri());
        let after = self.limits.response.get();
        match tokio::time::timeout(after, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(cause)) => Err(Error::Unreachable { host, cause: innermost(cause) }),
            Err(_) => Err(Error::Timeout { host, after }),
        }
    }

    /// Like [`Http::send`], but a status other than 2xx is an error with the server's problem.
    pub async fn send_ok(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let host = host_of(request.uri());
        let response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let problem = match self.collect(response, &host).await {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(_) => Problem::default(),
        };
        Err(Error::Status { host, status, problem })
    }

    /// Sends JSON (or nothing) and reads JSON; `None` for 204.
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        bearer: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Option<T>, Error> {
        let mut request = request(method, url, bearer)?;
        if let Some(body) = body {
            let text = serde_json::to_vec(body).map_err(|e| Error::Request(e.to_string()))?;
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = full(text);
        }
        let host = host_of(request.uri());
        let response = self.send_ok(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let bytes = self.collect(response, &host).await?;
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|e| Error::Body { host, what: format!("it is not the expected JSON: {e}") })
    }

    /// The whole of a small body, within the limits of size and time.
    pub async fn bytes(&self, response: Response<Incoming>) -> Result<Bytes, Error> {
        self.collect(response, "the server").await
    }

    async fn collect(&self, response: Response<Incoming>, host: &str) -> Result<Bytes, Error> {
        let limit = self.limits.body_bytes.as_usize();
        let after = self.limits.body.get();
        let collected = tokio::time::timeout(after, Limited::new(response.into_body(), limit).collect()).await;
        match collected {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(cause)) if cause.is::<LengthLimitError>() => Err(Error::Body {
                host: host.to_owned(),
                what: format!("it is larger than {}", self.limits.body_bytes),
            }),
            Ok(Err(cause)) => Err(Error::Body { host: host.to_owned(), what: cause.to_string() }),
            Err(_) => Err(Error::Timeout { host: host.to_owned(), after }),
        }
    }
}

/// A request without a body. An empty `bearer` sends none.
pub fn request(method: Method, url: &str, bearer: &str) -> Result<Request<Body>, Error> {
    let mut builder = Request::builder().method(method).uri(url);
    if !bearer.is_empty() {
        let value = HeaderValue::try_from(format!("Bearer {bearer}"));
        let mut value =
            value.map_err(|_| Error::Request("the bearer holds characters that no header may".to_owned()))?;
        value.set_sensitive(true);
        builder = builder.header(header::AUTHORIZATION, value);
    }
    builder.body(empty()).map_err(|e| Error::Request(e.to_string()))
}

/// Host and port only, as paths may hold tokens.
fn host_of(uri: &http::Uri) -> String {
    uri.authority().map(ToString::to_string).unwrap_or_else(|| "the server".to_owned())
}

/// The innermost cause, which says more than "client error (Connect)".
fn innermost(error: hyper_util::client::legacy::Error) -> BoxError {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string().into()
}

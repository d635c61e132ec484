//! Connections to origins: TCP, TLS, HTTP/1.1 and 2, kept for the next request.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{Failure, PoolConfig, RawResponse, RequestBody, S3};
use lyceum_core::time::Clock;

/// A pool that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// An origin's URL.
    #[error("the origin \"{0}\" is no http or https URL of a scheme, a host and a port alone")]
    Url(String),
    /// What stands before paths.
    #[error(
        "the origin's prefix \"{0}\" begins with a slash, ends without one, and holds letters, digits and -._~ alone"
    )]
    Prefix(String),
    /// The keys of a bucket.
    #[error(
        "the pool's auth.s3 needs region, access_key and secret_key, without blanks, slashes and commas in the first two"
    )]
    S3,
    /// The bearer.
    #[error("the pool's auth is one of bearer and s3, and a bearer holds no characters that a header may not")]
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

/// Sends requests over kept connections.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pooled: Pooled<HttpsConnector<HttpConnector>, RequestBody>,
    /// With the clock of the machine: a bucket refuses what is signed for another time than its own.
    s3: Option<(S3, Clock)>,
}

impl Client {
    pub(super) fn new(config: &PoolConfig) -> Result<Self, UpstreamError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        tcp.set_connect_timeout(Some(config.connect.get()));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls(config)?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = Pooled::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(55))
            .pool_max_idle_per_host(usize::try_from(config.idle_connections).unwrap_or(64))
            .http2_only(config.h2c)
            // Whole segments without a round trip for each 64 KiB, as RFC 9113 begins with.
            .http2_initial_stream_window_size(2 << 20)
            .http2_initial_connection_window_size(16 << 20)
            .http2_max_header_list_size(64 << 10)
            .http1_max_headers(100)
            .build(connector);
        let s3 = config.auth.as_ref().and_then(|auth| auth.s3.clone());
        s3.iter().try_for_each(S3::check)?;
        Ok(Self { pooled: client, s3: s3.map(|s3| (s3, Clock::system())) })
    }

    pub(super) async fn send(&self, mut request: Request<RequestBody>) -> Result<RawResponse, (Failure, String)> {
        if let Some((s3, clock)) = &self.s3 {
            s3.sign(&mut request, clock.unix_seconds());
        }
        self.pooled.request(request).await.map_err(|error| {
            let failure = if error.is_connect() { Failure::Connect } else { of_hyper(error.source()) };
            (failure, deepest(&error))
        })
    }
}

/// What a broken exchange comes to.
pub(super) fn of_hyper(cause: Option<&(dyn std::error::Error + 'static)>) -> Failure {
    match cause.and_then(|c| c.downcast_ref::<hyper::Error>()) {
        Some(error) if error.is_parse() || error.is_user() => Failure::Protocol,
        Some(error) if error.is_timeout() => Failure::Timeout,
        _ => Failure::Reset,
    }
}

/// The innermost cause, which says more than the outer ones.
pub(super) fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn tls(config: &PoolConfig) -> Result<rustls::ClientConfig, UpstreamError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = &config.ca {
        let wrong = |what: String| UpstreamError::Ca { path: path.clone(), what };
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| wrong(format!("no PEM certificate can be read: {e}")))?;
        for certificate in certificates {
            roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| UpstreamError::Ca { path: PathBuf::from("TLS"), what: e.to_string() })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

//! The HTTP client of a pool: TCP, TLS, HTTP/1.1 and 2, and connections that are kept for the next request.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use lyceum_core::time::Clock;

use crate::config::Pool as PoolConfig;
use crate::error::{Failure, PoolError, innermost};
use crate::request::RequestBody;
use crate::server_certificate::OriginCertificates;
use crate::sigv4::Signer;

/// Interval of TCP keep-alive probes.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a connection is kept without a request; less than most servers' minute.
const MAX_IDLE: Duration = Duration::from_secs(55);
/// Initial flow-control windows of HTTP/2, in bytes: whole segments without a round trip for each 64 KiB, which is the
/// default (RFC 9113, section 6.9.2).
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Limits of a response's header.
const MAX_HEADER_BYTES: u32 = 64 << 10;
const MAX_HEADER_FIELDS: usize = 100;

/// Sends requests over pooled connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pooled: Pooled<HttpsConnector<HttpConnector>, RequestBody>,
    /// Signs requests to buckets. With the machine's clock: a bucket refuses a signature for another time than its own.
    signer: Option<(Signer, Clock)>,
}

impl Client {
    pub(crate) fn new(config: &PoolConfig) -> Result<Self, PoolError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_connect_timeout(Some(config.connect.get()));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls(config)?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = Pooled::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(MAX_IDLE)
            .pool_max_idle_per_host(usize::try_from(config.idle_connections).unwrap_or(64))
            .http2_only(config.h2c)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .http1_max_headers(MAX_HEADER_FIELDS)
            .build(connector);
        let s3 = config.auth.as_ref().and_then(|auth| auth.s3.as_ref());
        let signer = s3.map(Signer::new).transpose()?;
        Ok(Self { pooled: client, signer: signer.map(|signer| (signer, Clock::system())) })
    }

    pub(crate) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<hyper::body::Incoming>, (Failure, String)> {
        if let Some((signer, clock)) = &self.signer {
            signer.sign(&mut request, clock.system_time());
        }
        self.pooled.request(request).await.map_err(|error| {
            let failure = if error.is_connect() { Failure::Connect } else { Failure::of_hyper(error.source()) };
            (failure, innermost(&error))
        })
    }
}

fn tls(config: &PoolConfig) -> Result<rustls::ClientConfig, PoolError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let mut pinned = Vec::new();
    if let Some(path) = &config.ca {
        let wrong = |what: String| PoolError::Ca { path: path.clone(), what };
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| wrong(format!("no PEM certificate can be read: {e}")))?;
        for certificate in certificates {
            roots.add(certificate.clone()).map_err(|e| wrong(e.to_string()))?;
            pinned.push(certificate);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let failed = |what: String| PoolError::Ca { path: PathBuf::from("TLS"), what };
    let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|e| failed(e.to_string()))?;
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(e.to_string()))?;
    let certificates = Arc::new(OriginCertificates::new(authorities, pinned));
    Ok(builder.dangerous().with_custom_certificate_verifier(certificates).with_no_client_auth())
}

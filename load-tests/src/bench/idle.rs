//! Memory of an idle TLS connection after one request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use super::account;
use super::error::BenchError;
use super::goals::Goal;
use super::load::{self, Protocol};
use super::servers::{Server, TestServers};

const OBJECT_BYTES: usize = 2 << 10;
/// Connections that stand idle.
const IDLE_CONNECTIONS: usize = 4_000;
/// How long they have stood when memory is looked at: longer than an edge keeps an HTTP/2 connection's buffers for the
/// next request (`rest`).
const IDLE_TIME: Duration = Duration::from_secs(20);

/// Kept open until it is dropped.
enum Held {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// The edge beside nginx, for both versions.
pub(super) fn measure() -> Result<Vec<Goal>, BenchError> {
    load::have_programs(&["nginx".to_owned()])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BenchError::new)?;
    let mut goals = Vec::new();
    for protocol in [Protocol::Tls, Protocol::Http2] {
        // Each server anew: what one version left in an allocator is not the other's.
        let setting = TestServers::new(&[OBJECT_BYTES])?;
        let mut costs = Vec::new();
        for name in ["edge", "nginx", "floor"] {
            let server = setting.start(name)?;
            let connector = connector(&setting, protocol)?;
            let cost = runtime.block_on(cost(&server, &connector, protocol))?;
            eprintln!("idle: {name} {protocol}: {:.1} KiB a connection", cost / 1024.0);
            costs.push(cost / 1024.0);
        }
        if let [edge, nginx, floor] = costs.as_slice() {
            goals.push(Goal {
                what: format!("memory of an idle connection, {protocol}; not above nginx"),
                found: *edge,
                most: *nginx,
                unit: "KiB",
                how: format!(
                    "resident memory with {IDLE_CONNECTIONS} of them after one request each; bare hyper and rustls {floor:.1} KiB"
                ),
            });
        }
    }
    Ok(goals)
}

fn connector(setting: &TestServers, protocol: Protocol) -> Result<TlsConnector, BenchError> {
    let mut roots = rustls::RootCertStore::empty();
    let cert = CertificateDer::from_pem_file(setting.file("cert.pem")).map_err(BenchError::new)?;
    roots.add(cert).map_err(BenchError::new)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(BenchError::new)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![if protocol == Protocol::Http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    // Each is a whole handshake, as clients of many come.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Bytes that each of many idle connections adds.
async fn cost(server: &Server, connector: &TlsConnector, protocol: Protocol) -> Result<f64, BenchError> {
    // Excludes what the server allocates once.
    let warm = open(server, connector, protocol, 100).await?;
    tokio::time::sleep(IDLE_TIME).await;
    let before = account::resident(server.pids())?;
    let held = open(server, connector, protocol, IDLE_CONNECTIONS).await?;
    tokio::time::sleep(IDLE_TIME).await;
    let after = account::resident(server.pids())?;
    drop((warm, held));
    Ok(after.saturating_sub(before) as f64 / IDLE_CONNECTIONS as f64)
}

async fn open(
    server: &Server,
    connector: &TlsConnector,
    protocol: Protocol,
    count: usize,
) -> Result<Vec<Held>, BenchError> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        held.push(used(server, connector, protocol).await?);
    }
    Ok(held)
}

/// A connection over which one body has come.
async fn used(server: &Server, connector: &TlsConnector, protocol: Protocol) -> Result<Held, BenchError> {
    let address = server.tls().ok_or_else(|| BenchError::new("a server without TLS"))?;
    let socket = tokio::net::TcpStream::connect(address).await.map_err(BenchError::new)?;
    socket.set_nodelay(true).map_err(BenchError::new)?;
    let name = ServerName::try_from("localhost").map_err(BenchError::new)?;
    let stream = connector.connect(name, socket).await.map_err(BenchError::new)?;
    let uri = format!("https://localhost{}", server.path(OBJECT_BYTES));
    let mut held = if protocol == Protocol::Http2 {
        let (send, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(BenchError::new)?;
        tokio::spawn(connection);
        Held::Http2(send)
    } else {
        let (send, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(BenchError::new)?;
        tokio::spawn(connection);
        Held::Http1(send)
    };
    let answer = match &mut held {
        Held::Http1(send) => {
            let request = Request::get(server.path(OBJECT_BYTES)).header(header::HOST, "localhost").body(Empty::new());
            send.send_request(request.map_err(BenchError::new)?).await
        }
        // The authority in the URI is the host, and nginx refuses both.
        Held::Http2(send) => send.send_request(Request::get(uri).body(Empty::new()).map_err(BenchError::new)?).await,
    };
    let body = answer.map_err(BenchError::new)?.into_body().collect().await.map_err(BenchError::new)?.to_bytes();
    if body.len() == OBJECT_BYTES {
        Ok(held)
    } else {
        Err(BenchError::new(format!("{} bytes in place of {OBJECT_BYTES}", body.len())))
    }
}

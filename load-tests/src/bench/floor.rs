//! The floor: bare hyper and rustls on one thread, with constant bodies from memory: the least that a server on these
//! libraries costs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// Answer constants from memory: the floor of `bench`, and the origin behind its servers
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Address and port
    #[arg(long)]
    listen: SocketAddr,
    /// PEM certificate; with `key`: TLS with HTTP/1.1 and 2 by ALPN
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// PEM private key
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Serves until the process ends.
pub fn run(args: &Args) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(BoxError::from).and_then(|runtime| runtime.block_on(serve(args)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lyceum-load floor: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: &Args) -> Result<(), BoxError> {
    let acceptor = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Some(tls(cert, key)?),
        _ => None,
    };
    let listener = tokio::net::TcpListener::bind(args.listen).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            match acceptor {
                None => requests(stream, false).await,
                Some(acceptor) => {
                    let stream = acceptor.accept(stream).await?;
                    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    requests(stream, is_h2).await
                }
            }
        });
    }
}

async fn requests(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, is_h2: bool) -> Result<(), BoxError> {
    let io = TokioIo::new(stream);
    if is_h2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(io, service_fn(answer)).await?;
    } else {
        http1::Builder::new().serve_connection(io, service_fn(answer)).await?;
    }
    Ok(())
}

/// `…/{size}…`: that many bytes.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    static BODY: [u8; 16 << 20] = [b'x'; 16 << 20];
    let name = request.uri().path().rsplit('/').next().unwrap_or("");
    let size = name.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let body = Bytes::from_static(BODY.get(..size).unwrap_or(&[]));
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("video/mp4"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    headers.insert(header::ETAG, HeaderValue::from_static("\"constant\""));
    Ok(response)
}

fn tls(cert: &PathBuf, key: &PathBuf) -> Result<TlsAcceptor, BoxError> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

//! The operators' listener: `/healthz`, `/readyz`, `/metrics`, `POST /drain`, and what a role adds.
//!
//! It is never on a public address. Where it isn't on loopback, its POSTs need the configured bearer. It stands on hyper
//! alone, so that a worker can have it without the server's protocols or the origin's router.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use lyceum_core::config::Fault;
use lyceum_core::shutdown::Shutdown;
use lyceum_core::telemetry;
use lyceum_http::problem;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower_service::Service;

/// Connections served at one time; further ones wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 256;

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the listener waits after `accept` failed, which it does when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// `[admin]` of a role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The token that a POST must send as `Authorization: Bearer`. Optional on loopback, required elsewhere.
    #[serde(default)]
    pub bearer: Option<String>,
}

impl Config {
    /// What can't work, by its key; `at` is the key of this table.
    pub fn fault(&self, at: &str) -> Option<Fault> {
        self.is_open().then(|| Fault::at(&format!("{at}.listen"), AdminError::Open(self.listen)))
    }

    /// Whether others than this machine's users could POST with no credential.
    fn is_open(&self) -> bool {
        !self.listen.ip().is_loopback() && self.bearer.as_deref().unwrap_or("").is_empty()
    }
}

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A response body of this listener.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Responds to requests for paths that are not the listener's own.
pub type Routes = Arc<dyn Fn(Request<Incoming>) -> RouteFuture + Send + Sync>;

/// The response of [`Routes`].
pub type RouteFuture = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// The routes of a role that answers through a tower service, such as an axum router.
pub fn routes<S, B>(service: S) -> Routes
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Arc::new(move |request| {
        let mut service = service.clone();
        Box::pin(async move {
            let answer = match poll_fn(|context| service.poll_ready(context)).await {
                Ok(()) => service.call(request).await,
                Err(never) => match never {},
            };
            match answer {
                Ok(response) => response.map(|body| body.map_err(Into::into).boxed_unsync()),
                Err(never) => match never {},
            }
        })
    })
}

/// Measures whether what serves comes to its work, within a limit of its own; the error says what does not.
pub type Serving = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// The role that the listener reports on.
#[derive(Clone)]
pub struct Role {
    /// Metrics.
    pub registry: prometheus::Registry,
    /// Whether the role can serve; the error says why not.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Whether what serves comes to its work, for `/healthz` and `/readyz`; none where this listener's own answer shows it.
    pub serving: Option<Serving>,
    /// Begun by `POST /drain`.
    pub shutdown: Shutdown,
    /// Further routes.
    pub routes: Option<Routes>,
}

/// The bound listener.
pub struct Admin {
    listener: TcpListener,
    bearer: Option<String>,
}

/// Why the listener can't be bound.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The socket can't be bound.
    #[error("[admin] {address}: can't listen: {cause}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// Reachable from other machines without a credential.
    #[error("[admin] listen = \"{0}\" is not on loopback: set admin.bearer, or listen on 127.0.0.1")]
    Open(SocketAddr),
}

impl Admin {
    /// Binds the listener.
    pub async fn bind(config: &Config) -> Result<Self, AdminError> {
        if config.is_open() {
            return Err(AdminError::Open(config.listen));
        }
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|cause| AdminError::Bind { address: config.listen, cause })?;
        Ok(Self { listener, bearer: config.bearer.clone() })
    }

    /// The URL, without a trailing slash.
    pub fn url(&self) -> String {
        self.listener.local_addr().map(|address| format!("http://{address}")).unwrap_or_default()
    }

    /// Serves until the process ends: an operator can watch a drain to its last request.
    pub async fn serve(self, role: Role) {
        let service = Arc::new(Answers { role, bearer: self.bearer });
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match self.listener.accept().await {
                Ok((socket, _)) => {
                    let service = Arc::clone(&service);
                    tokio::spawn(async move {
                        service.connection(socket).await;
                        drop(place);
                    });
                }
                Err(cause) => {
                    tracing::warn!(%cause, "the admin listener could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

struct Answers {
    role: Role,
    bearer: Option<String>,
}

impl Answers {
    async fn connection(self: Arc<Self>, socket: TcpStream) {
        let mut server = auto::Builder::new(TokioExecutor::new());
        server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        server.http2().timer(TokioTimer::new());
        let answer = service_fn(move |request| {
            let service = Arc::clone(&self);
            async move { Ok::<_, Infallible>(service.answer(request).await) }
        });
        if let Err(cause) = server.serve_connection(TokioIo::new(socket), answer).await {
            tracing::debug!(%cause, "a connection to the admin listener ended with an error");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if let Err(refusal) = self.authorize(&request) {
            return *refusal;
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match (request.uri().path(), reads) {
            ("/healthz", true) => told(self.serving().await, "ok\n"),
            ("/readyz", true) => told(self.ready().await, "ready\n"),
            ("/metrics", true) => self.metrics(),
            ("/drain", _) if request.method() == Method::POST => self.drain(),
            ("/healthz" | "/readyz" | "/metrics", false) => not_allowed("GET,HEAD"),
            ("/drain", _) => not_allowed("POST"),
            _ => match &self.role.routes {
                Some(routes) => routes(request).await,
                None => refusal(StatusCode::NOT_FOUND, "not_found", "Nothing is here."),
            },
        }
    }

    /// Whether the request may be answered.
    fn authorize(&self, request: &Request<Incoming>) -> Result<(), Box<Response<Body>>> {
        let refuse = |status, code, detail| Err(Box::new(refusal(status, code, detail)));
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return Ok(());
        }
        // Browsers send Origin with every POST of a page; no page has business here (cross-site request forgery).
        if request.headers().contains_key(header::ORIGIN) {
            return refuse(StatusCode::FORBIDDEN, "forbidden", "No page may use this listener.");
        }
        let Some(wanted) = self.bearer.as_deref() else { return Ok(()) };
        let shown =
            request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let same = shown
            .is_some_and(|shown| aws_lc_rs::constant_time::verify_slices_are_equal(shown, wanted.as_bytes()).is_ok());
        if same {
            return Ok(());
        }
        refuse(StatusCode::UNAUTHORIZED, "unauthorized", "This listener's POSTs need its bearer.")
    }

    async fn serving(&self) -> Result<(), String> {
        match &self.role.serving {
            Some(serving) => serving().await,
            None => Ok(()),
        }
    }

    async fn ready(&self) -> Result<(), String> {
        if self.role.shutdown.is_draining() {
            return Err("draining".to_owned());
        }
        (self.role.ready)()?;
        self.serving().await
    }

    fn metrics(&self) -> Response<Body> {
        let mut response = text(StatusCode::OK, telemetry::render(&self.role.registry).into());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(telemetry::MEDIA_TYPE));
        response
    }

    fn drain(&self) -> Response<Body> {
        tracing::info!("drain asked for by an operator");
        self.role.shutdown.begin();
        text(StatusCode::ACCEPTED, Bytes::new())
    }
}

fn boxed(body: Full<Bytes>) -> Body {
    body.map_err(|never| match never {}).boxed_unsync()
}

fn refusal(status: StatusCode, code: &str, detail: &str) -> Response<Body> {
    problem::response::<Full<Bytes>>(status, code, detail).map(boxed)
}

fn text(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(boxed(Full::new(body)));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// 200 with `good`, or 503 that says why.
fn told(found: Result<(), String>, good: &'static str) -> Response<Body> {
    match found {
        Ok(()) => text(StatusCode::OK, good.into()),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n").into()),
    }
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, Bytes::new());
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

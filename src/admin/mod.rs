//! The operators' listener: `/healthz`, `/readyz`, `/metrics`, `POST /drain`, and what a role adds.
//!
//! It is never on a public address. Where it isn't on loopback, its POSTs need the configured bearer.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::front::{BindError, Shutdown, problem};
use crate::telemetry;

/// `[admin]` of a role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What a POST must show as `Authorization: Bearer`. Optional on loopback, required elsewhere.
    #[serde(default)]
    pub bearer: Option<String>,
}

/// What the listener tells of its role.
#[derive(Clone)]
pub struct Role {
    /// Metrics.
    pub registry: prometheus::Registry,
    /// Whether the role can serve; else why not.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Its end.
    pub shutdown: Shutdown,
    /// Further routes.
    pub routes: Router,
}

/// The bound listener.
pub struct Admin {
    listener: TcpListener,
    bearer: Option<String>,
}

/// Why the listener can't be had.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The socket.
    #[error("[admin] {0}")]
    Bind(#[from] BindError),
    /// Open to others with no credential.
    #[error("[admin] listen = \"{0}\" is not on loopback: set admin.bearer, or listen on 127.0.0.1")]
    Open(SocketAddr),
}

impl Admin {
    /// Binds the listener.
    pub async fn bind(config: &Config) -> Result<Self, AdminError> {
        if !config.listen.ip().is_loopback() && config.bearer.as_deref().unwrap_or("").is_empty() {
            return Err(AdminError::Open(config.listen));
        }
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|cause| BindError::Address { address: config.listen, cause })?;
        Ok(Self { listener, bearer: config.bearer.clone() })
    }

    /// The URL, without a trailing slash.
    pub fn url(&self) -> String {
        self.listener.local_addr().map(|address| format!("http://{address}")).unwrap_or_default()
    }

    /// Serves until the process ends: an operator can watch a drain to its last request.
    pub async fn serve(self, role: Role) {
        let credential = Arc::new(self.bearer);
        let app = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .route("/drain", post(drain))
            .with_state(role.clone())
            .merge(role.routes)
            .layer(middleware::from_fn_with_state(credential, authorize));
        if let Err(cause) = axum::serve(self.listener, app).await {
            tracing::error!(%cause, "the admin listener ended");
        }
    }
}

async fn ready(State(role): State<Role>) -> Response {
    let verdict = if role.shutdown.is_draining() { Err("draining".to_owned()) } else { (role.ready)() };
    match verdict {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(role): State<Role>) -> Response {
    ([(header::CONTENT_TYPE, telemetry::MEDIA_TYPE)], telemetry::render(&role.registry)).into_response()
}

async fn drain(State(role): State<Role>) -> StatusCode {
    tracing::info!("drain asked for by an operator");
    role.shutdown.begin();
    StatusCode::ACCEPTED
}

async fn authorize(State(bearer): State<Arc<Option<String>>>, request: Request, next: Next) -> Response {
    let free = matches!(*request.method(), Method::GET | Method::HEAD);
    // Browsers send Origin with every POST of a page; no page has business here (cross-site request forgery).
    if !free && request.headers().contains_key(header::ORIGIN) {
        return problem::response(StatusCode::FORBIDDEN, "forbidden", "No page may use this listener.");
    }
    if let (false, Some(wanted)) = (free, bearer.as_deref()) {
        let shown =
            request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let same = shown
            .is_some_and(|shown| aws_lc_rs::constant_time::verify_slices_are_equal(shown, wanted.as_bytes()).is_ok());
        if !same {
            let detail = "This listener's POSTs need its bearer.";
            return problem::response(StatusCode::UNAUTHORIZED, "unauthorized", detail);
        }
    }
    next.run(request).await
}

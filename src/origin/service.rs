//! The running origin: how it is started, reloaded and asked whether it is ready, and how it answers a request.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use http_body::Body as _;
use tokio::sync::Notify;

use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::{Clock, Instant};
use lyceum_http::problem;
use lyceum_server::{DrainOnDrop, Handler, Peer, Refused, RequestBody, ResponseFuture};
use lyceum_storage::db::Db;
use lyceum_storage::store::Store;
use lyceum_storage::upload::Uploads;

use crate::attempts::Attempts;
use crate::config::{Config, Live};
use crate::ingest::context::Ingest;
use crate::ingest::snapshot::Snapshots;
use crate::keys::sealing::Sealer;
use crate::keys::signing::SigningKeys;
use crate::keys::worker_key::WorkerKey;
use crate::metrics::{Metrics, WaitedForNews, is_timed};
use crate::readiness::Readiness;
use crate::start_error::StartError;
use crate::state::App;
use crate::waiting::Waiting;
use crate::{api, background, bootstrap, local_workers, probes};

/// What the program gives an origin at its start.
pub struct Parts {
    /// The wall clock.
    pub clock: Clock,
    /// Where its metrics are registered.
    pub registry: prometheus::Registry,
    /// Tells it to drain and to end.
    pub shutdown: Shutdown,
}

/// A running origin; clones share it.
#[derive(Clone)]
pub struct Origin {
    app: Arc<App>,
    router: Router,
}

impl Origin {
    /// Connects database and store, makes what a first start needs, and starts the background work, which ends with
    /// `parts.shutdown`. Errors name the configuration key that leads to them.
    pub async fn start(config: Config, parts: Parts) -> Result<Self, StartError> {
        let Parts { clock, registry, shutdown } = parts;
        // Upload buffers are allocated and freed all the time: rounded up to huge pages, they took a third more memory than
        // their budget.
        if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
            tracing::debug!(%error, "huge pages can't be disabled");
        }
        let db = Db::open(&config.database, &config.database_pool).await?;
        let store = Store::open(&config.store, &clock).await?;
        store.ping().await?;
        let signing_keys = SigningKeys::open(&config.tokens).await?;
        let folder = config.sealing_keys();
        let sealer = tokio::task::spawn_blocking(move || Sealer::open(&folder)).await;
        let sealer = sealer.map_err(|error| StartError::Workers(error.to_string()))??;
        bootstrap::admin_key(&db, config.admin_key.as_ref(), &clock).await?;
        let uploads = Uploads::new(db.clone(), store.clone(), clock.clone(), config.uploads.clone());
        let metrics = Metrics::register(&registry)?;
        let live: Live = Arc::new(ArcSwap::from_pointee(config));
        let ingest = Arc::new(Ingest {
            db: db.clone(),
            store: store.clone(),
            uploads: uploads.clone(),
            clock: clock.clone(),
            config: Arc::clone(&live),
            sealer: sealer.clone(),
            snapshots: Snapshots::default(),
            playable: metrics.playable.clone(),
            changed: Notify::new(),
        });
        let app = Arc::new(App {
            metrics,
            worker_key: WorkerKey::random(),
            login_attempts: Attempts::default(),
            request_attempts: Attempts::default(),
            waiting: Waiting::default(),
            revoked: Notify::new(),
            readiness: Readiness::default(),
            config: live,
            clock,
            db,
            store,
            signing_keys,
            sealer,
            ingest,
            uploads,
            shutdown,
        });
        let router = api::router(app.clone());
        local_workers::start(&app)?;
        tokio::spawn(background::run(app.clone()));
        tokio::spawn(probes::run(app.clone()));
        Ok(Self { app, router })
    }

    /// Puts another configuration in force for requests that begin from now on, and reads the signing keys again.
    /// [`FIXED`](crate::config::FIXED) keys keep their old values.
    pub fn reload(&self, config: Config) {
        self.app.config.store(Arc::new(config));
        let app = Arc::clone(&self.app);
        tokio::spawn(async move { app.signing_keys.reload(&app.config().tokens).await });
    }

    /// Whether a write to the database and one to the object store went through lately.
    pub fn ready(&self) -> Result<(), String> {
        self.app.readiness.check(self.app.config().readiness)
    }

    async fn answer(&self, peer: Peer, request: Request<RequestBody>, began: Instant) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let is_timed = is_timed(body.size_hint().exact());
        let mut request = Request::from_parts(parts, Body::new(DrainOnDrop::new(body)));
        request.extensions_mut().insert(peer);
        let mut response = match api::cors::preflight(&self.app.config().cors, &request) {
            Some(response) => response,
            None => {
                let origin = request.headers().get(http::header::ORIGIN).cloned();
                let mut router = self.router.clone();
                let response = tower_service::Service::call(&mut router, request).await;
                let mut response = response.unwrap_or_else(|never| match never {});
                api::cors::allow(&self.app.config().cors, origin.as_ref(), response.headers_mut());
                response
            }
        };
        let waited = response.extensions_mut().remove::<WaitedForNews>().unwrap_or_default().0;
        self.app.metrics.answered(response.status(), is_timed.then(|| began.elapsed().saturating_sub(waited)));
        response.headers_mut().entry("x-content-type-options").or_insert(http::HeaderValue::from_static("nosniff"));
        response
    }
}

impl Handler for Origin {
    type Body = Body;

    /// For uploads: with 32 KiB they took a third longer; more than this costs memory with many at once and gains nothing.
    const BODY_READ: usize = 128 * 1024;

    fn call(&self, peer: Peer, request: Request<RequestBody>, began: Instant) -> ResponseFuture<Body> {
        let origin = self.clone();
        ResponseFuture::boxed(async move { origin.answer(peer, request, began).await })
    }

    fn refuse(&self, request: &http::request::Parts, refused: Refused) -> Response<Body> {
        let mut response = problem::response(refused.status(), refused.code(), &refused.to_string());
        response.headers_mut().insert(http::header::RETRY_AFTER, refused.retry_after().into());
        api::cors::allow(&self.app.config().cors, request.headers.get(http::header::ORIGIN), response.headers_mut());
        self.app.metrics.answered(response.status(), Some(std::time::Duration::ZERO));
        response
    }
}

//! What operators see and order: `GET /status`, `POST /purge`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use super::Edge;
use super::follow::PurgeOrder;
use crate::front::problem;

pub(super) fn routes(edge: Edge) -> Router {
    Router::new().route("/status", get(status)).route("/purge", post(purge)).with_state(edge)
}

async fn status(State(edge): State<Edge>) -> Response {
    let inner = edge.0.load_full();
    let (bytes, objects) = inner.fetcher.cache.size();
    let disk = inner.fetcher.cache.disk_size().map(|(bytes, objects)| json!({ "bytes": bytes, "objects": objects }));
    let pools: serde_json::Map<String, serde_json::Value> = inner
        .pools
        .all
        .iter()
        .map(|(pool, _)| {
            let origins: Vec<_> =
                pool.standing().into_iter().map(|(origin, up)| json!({ "origin": origin, "up": up })).collect();
            (pool.name().to_owned(), origins.into())
        })
        .collect();
    let issuers: Vec<_> = inner
        .guard
        .verifier
        .iter()
        .flat_map(|verifier| verifier.issuers())
        .map(|issuer| json!({ "name": issuer.name(), "keys": issuer.key_count() }))
        .collect();
    let routes: Vec<_> =
        inner.routes.all().map(|route| json!({ "prefix": route.prefix, "pool": route.pool.name() })).collect();
    let tokens = inner.guard.verifier.as_ref().map(|verifier| {
        json!({ "issuers": issuers, "remembered": verifier.remembered(), "revoked_sessions": verifier.revocations().len() })
    });
    Json(json!({
        "ready": edge.ready().err().map_or(json!(true), |why| json!(why)),
        "cache": { "bytes": bytes, "objects": objects, "fills": inner.fetcher.cache.filling(), "disk": disk },
        "pools": pools,
        "routes": routes,
        "tokens": tokens,
    }))
    .into_response()
}

async fn purge(
    State(edge): State<Edge>,
    body: Result<Json<PurgeOrder>, axum::extract::rejection::JsonRejection>,
) -> Response {
    let refuse = |detail: &str| problem::response(StatusCode::BAD_REQUEST, "bad_purge", detail);
    let order = match body {
        Ok(Json(order)) if order.is_one() => order,
        Ok(_) => return refuse("Name one of url, prefix and tag."),
        Err(error) => return refuse(&error.body_text()),
    };
    // A purge by prefix or tag looks at every entry, which is no work for a thread that serves.
    let swept = tokio::task::spawn_blocking(move || {
        order.purges().iter().map(|purge| edge.0.load().fetcher.cache.purge(purge)).sum::<usize>()
    });
    match swept.await {
        Ok(purged) => {
            tracing::info!(purged, "purged for an operator");
            Json(json!({ "purged": purged })).into_response()
        }
        Err(_) => problem::response(StatusCode::INTERNAL_SERVER_ERROR, "purge_failed", "The purge broke off."),
    }
}

//! What operators see and order: `GET /status` (of one URL with `?url=`: what is stored of it, and what would be done
//! with it now), `POST /purge`.

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use super::Edge;
use super::follow::PurgeOrder;
use super::serve::key_for;
use lyceum_cache::Stored;
use lyceum_http::freshness::Standing;
use lyceum_http::path::CleanPath;
use lyceum_http::problem;

pub(super) fn routes(edge: Edge) -> Router {
    Router::new().route("/status", get(status)).route("/purge", post(purge)).with_state(edge)
}

/// What of the status is asked for.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    url: Option<String>,
}

async fn status(State(edge): State<Edge>, Query(about): Query<About>) -> Response {
    match about.url {
        Some(url) => explain(&edge, &url),
        None => overview(&edge),
    }
}

/// What is stored of a URL, or of a path where hosts are no part of keys, and what a request for it would meet now.
fn explain(edge: &Edge, url: &str) -> Response {
    let inner = edge.0.load_full();
    let (host, target) = match url.split_once("://") {
        Some((_, rest)) => rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).unwrap_or((rest, "/")),
        None => ("", url),
    };
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let route = CleanPath::check(path).ok().and_then(|path| inner.routes.of(path));
    let Some(route) = route else {
        return problem::response(StatusCode::NOT_FOUND, "not_found", "No route takes this URL.");
    };
    let key = key_for(route, path, query, host);
    let cache = &inner.fetcher.cache;
    let now = inner.clock.unix_millis();
    let stored = cache.get(&key, &HeaderMap::new());
    let on_disk = cache.may_be_on_disk(&key);
    let would = match &stored {
        Some(stored) => would(stored.freshness.standing(now)),
        None if on_disk => "read it from disk",
        None => "fetch it",
    };
    Json(json!({
        "key": key,
        "route": route.prefix,
        "memory": stored.map(|stored| described(&stored, now)),
        "disk": on_disk,
        "would": would,
    }))
    .into_response()
}

fn would(standing: Standing) -> &'static str {
    match standing {
        Standing::Fresh => "serve it",
        Standing::StaleWhileRevalidate => "serve it stale and validate it beside",
        Standing::StaleIfError => "validate it, and serve it stale if the origin fails",
        Standing::Stale => "validate it",
    }
}

fn described(stored: &Stored, now: i64) -> serde_json::Value {
    let field = |name| stored.headers.get(name).and_then(|value| value.to_str().ok());
    json!({
        "status": stored.status.as_u16(),
        "length": stored.length(),
        "slice": stored.sliced().map(|sliced| sliced.size),
        "age": stored.freshness.age(now),
        "ttl": stored.freshness.left(now),
        "etag": field(header::ETAG),
        "last_modified": field(header::LAST_MODIFIED),
        "cache_control": field(header::CACHE_CONTROL),
        "tags": stored.tags,
    })
}

fn overview(edge: &Edge) -> Response {
    let inner = edge.0.load_full();
    let (bytes, objects) = inner.fetcher.cache.memory_size();
    let disk = inner.fetcher.cache.disk_size().map(|(bytes, objects)| json!({ "bytes": bytes, "objects": objects }));
    let pools: serde_json::Map<String, serde_json::Value> = inner
        .pools
        .all
        .iter()
        .map(|(pool, _)| {
            let origins: Vec<_> =
                pool.origin_states().into_iter().map(|(origin, up)| json!({ "origin": origin, "up": up })).collect();
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
        json!({ "issuers": issuers, "remembered": verifier.cached_tokens(), "revoked_sessions": verifier.revocations().len() })
    });
    Json(json!({
        "ready": edge.ready().err().map_or(json!(true), |why| json!(why)),
        "cache": { "bytes": bytes, "objects": objects, "fills": inner.fetcher.cache.fills_in_progress(), "disk": disk },
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
        let edge = edge.0.load();
        let now_ms = edge.clock.unix_millis();
        order.purges().iter().map(|purge| edge.fetcher.cache.purge(purge, now_ms)).sum::<usize>()
    });
    match swept.await {
        Ok(purged) => {
            tracing::info!(purged, "purged for an operator");
            Json(json!({ "purged": purged })).into_response()
        }
        Err(_) => problem::response(StatusCode::INTERNAL_SERVER_ERROR, "purge_failed", "The purge broke off."),
    }
}

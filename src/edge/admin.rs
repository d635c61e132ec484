//! The edge's admin API: `GET /status` (with `?url=`: what is stored under one URL, and what a request for it would meet
//! now) and `POST /purge`.

use axum::extract::{self, Query};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use crate::control::purge_order::PurgeOrder;
use crate::fetch::key::cache_key_of_path;
use crate::state::{Shared, State};
use lyceum_cache::StoredResponse;
use lyceum_http::freshness::FreshnessState;
use lyceum_http::path::CleanPath;
use lyceum_http::problem;

pub(crate) fn routes(state: Shared) -> Router {
    Router::new().route("/status", get(status)).route("/purge", post(purge)).with_state(state)
}

/// The query of `GET /status`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    url: Option<String>,
}

async fn status(extract::State(shared): extract::State<Shared>, Query(query): Query<StatusQuery>) -> Response {
    match query.url {
        Some(url) => explain(&shared.load_full(), &url),
        None => overview(&shared.load_full()),
    }
}

/// What is stored under a URL (or a path, where keys have no host), and what a request for it would meet now.
fn explain(state: &State, url: &str) -> Response {
    let (host, target) = match url.split_once("://") {
        Some((_, rest)) => rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).unwrap_or((rest, "/")),
        None => ("", url),
    };
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let route = CleanPath::check(path).ok().and_then(|path| state.routes.of(path));
    let Some(route) = route else {
        return problem::response(StatusCode::NOT_FOUND, "not_found", "No route takes this URL.");
    };
    let key = cache_key_of_path(route, path, query, host);
    let cache = &state.fetcher.cache;
    let now = state.clock.steady_millis();
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

fn would(standing: FreshnessState) -> &'static str {
    match standing {
        FreshnessState::Fresh => "serve it",
        FreshnessState::StaleWhileRevalidate => "serve it stale and validate it beside",
        FreshnessState::StaleIfError => "validate it, and serve it stale if the origin fails",
        FreshnessState::Stale => "validate it",
    }
}

fn described(stored: &StoredResponse, now: i64) -> serde_json::Value {
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

fn overview(state: &State) -> Response {
    let (bytes, objects) = state.fetcher.cache.memory_size();
    let disk = state.fetcher.cache.disk_size().map(|(bytes, objects)| json!({ "bytes": bytes, "objects": objects }));
    let pools: serde_json::Map<String, serde_json::Value> = state
        .pools
        .all
        .iter()
        .map(|(pool, _)| {
            let origins: Vec<_> =
                pool.origin_states().into_iter().map(|(origin, up)| json!({ "origin": origin, "up": up })).collect();
            (pool.name().to_owned(), origins.into())
        })
        .collect();
    let issuers: Vec<_> = state
        .guard
        .verifier
        .iter()
        .flat_map(|verifier| verifier.issuers())
        .map(|issuer| json!({ "name": issuer.name(), "keys": issuer.key_count() }))
        .collect();
    let routes: Vec<_> =
        state.routes.all().map(|route| json!({ "prefix": route.prefix, "pool": route.pool.name() })).collect();
    let tokens = state.guard.verifier.as_ref().map(|verifier| {
        json!({ "issuers": issuers, "remembered": verifier.cached_tokens(), "revoked_sessions": verifier.revocations().len() })
    });
    Json(json!({
        "ready": state.ready().err().map_or(json!(true), |why| json!(why)),
        "cache": { "bytes": bytes, "objects": objects, "fills": state.fetcher.cache.fills_in_progress(), "disk": disk },
        "pools": pools,
        "routes": routes,
        "tokens": tokens,
    }))
    .into_response()
}

async fn purge(
    extract::State(shared): extract::State<Shared>,
    body: Result<Json<PurgeOrder>, extract::rejection::JsonRejection>,
) -> Response {
    let refuse = |detail: &str| problem::response(StatusCode::BAD_REQUEST, "bad_purge", detail);
    let order = match body {
        Ok(Json(order)) if order.is_one() => order,
        Ok(_) => return refuse("Name one of url, prefix and tag."),
        Err(error) => return refuse(&error.body_text()),
    };
    // On a blocking thread: a purge by prefix or tag looks at every entry.
    let swept = tokio::task::spawn_blocking(move || {
        let state = shared.load();
        let now_ms = state.clock.steady_millis();
        order.purges().iter().map(|purge| state.fetcher.cache.purge(purge, now_ms)).sum::<usize>()
    });
    match swept.await {
        Ok(purged) => {
            tracing::info!(purged, "purged by an operator");
            Json(json!({ "purged": purged })).into_response()
        }
        Err(_) => problem::response(StatusCode::INTERNAL_SERVER_ERROR, "purge_failed", "The purge failed midway."),
    }
}

//! Bad days: a store that answers 500 and 503, is slow, or breaks off in the middle of a body. Nothing acknowledged is
//! lost, what failed says that a retry may help, and after it all the lesson is where it should be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http_body_util::BodyExt;
use lyceum::client::{self, Http};
use serde_json::json;

use super::services::{Postgres, S3};
use super::world::{World, noise};

/// A proxy before the S3 server that spoils answers while it is told to.
#[derive(Clone)]
struct Spoiler {
    upstream: String,
    http: Http,
    asked: Arc<AtomicU64>,
    spoiled: Arc<AtomicU64>,
    spoiling: Arc<AtomicBool>,
}

async fn forward(spoiler: &Spoiler, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = format!("{}{path}", spoiler.upstream).parse().unwrap();
    head.version = http::Version::HTTP_11;
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    // The signature covers Host, which stays as it was.
    match spoiler.http.send(http::Request::from_parts(head, client::full(body))).await {
        Ok(answer) => answer.map(Body::new),
        Err(_) => http::StatusCode::BAD_GATEWAY.into_response(),
    }
}

async fn spoil(State(spoiler): State<Spoiler>, request: Request) -> Response {
    let number = spoiler.asked.fetch_add(1, Ordering::SeqCst);
    let fault = if spoiler.spoiling.load(Ordering::SeqCst) { number % 7 } else { 0 };
    if fault != 0 && fault % 2 == 1 {
        spoiler.spoiled.fetch_add(1, Ordering::SeqCst);
    }
    match fault {
        1 => http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        3 => {
            let words = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
            (http::StatusCode::SERVICE_UNAVAILABLE, words).into_response()
        }
        5 => {
            // What was asked is done, but the answer breaks off in its middle.
            let answer = forward(&spoiler, request).await;
            let (head, body) = answer.into_parts();
            let whole = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let half = whole.slice(..whole.len() / 2);
            let broken = futures_util::stream::iter([Ok(half), Err(std::io::Error::other("spoiled"))]);
            Response::from_parts(head, Body::from_stream(broken.boxed()))
        }
        _ => forward(&spoiler, request).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_again_and_again_loses_nothing() {
    let spoiler = Spoiler {
        upstream: S3::shared().endpoint().to_owned(),
        http: Http::new(client::Limits::default()),
        asked: Arc::default(),
        spoiled: Arc::default(),
        spoiling: Arc::default(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(spoil).with_state(spoiler.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let store = S3::shared().store().replace(S3::shared().endpoint(), &proxy).replace("part =", "attempts = 2, part =");
    let world = tokio::task::spawn_blocking(|| {
        World::over(tempfile::tempdir().unwrap(), Postgres::shared().database(), store, 1, "")
    });
    let world = world.await.unwrap();
    let (_, lesson) = world.lesson().await;
    let bytes = noise(23_000_001, 12);
    let made = world.create(&lesson, bytes.len() as u64).send().await.expect(201);
    let upload = made.header("location").to_owned();
    spoiler.spoiling.store(true, Ordering::SeqCst);
    let mut offset = 0;
    let mut refused = 0;
    for round in 0.. {
        assert!(round < 200, "the upload does not come to its end: {offset}");
        let to = (offset + 6_300_000).min(bytes.len());
        let answer = world.patch(&upload, offset as u64, &bytes[offset..to]).send().await;
        if answer.status == 204 {
            offset = to;
        } else {
            refused += 1;
            assert_eq!((answer.status, answer.code().as_str()), (503, "store_unavailable"));
            assert!(!answer.header("retry-after").is_empty());
            let head = world.head(&upload).send().await.expect(200);
            let now: usize = head.header("upload-offset").parse().unwrap();
            assert!((offset..=to).contains(&now), "{offset} was acknowledged, then {now}");
            offset = now;
        }
        if offset == bytes.len() {
            break;
        }
    }
    // The last byte is acknowledged; that the recording is taken may need a sweep or two.
    world.until_lesson(&lesson, "the upload to be taken", |lesson| lesson["state"] == "queued").await;
    assert!(spoiler.spoiled.load(Ordering::SeqCst) > 3, "nothing was spoiled: {refused}");
    let task = world.post("/v1/tasks/lease").json(&json!({ "wait": 10 })).send().await.expect(200).json();
    spoiler.spoiling.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let source = world.get(task["source"]["url"].as_str().unwrap());
    let source = source.header("lyceum-lease", task["lease"].as_str().unwrap()).send().await.expect(200);
    assert!(source.body == bytes, "every byte in its place");
}

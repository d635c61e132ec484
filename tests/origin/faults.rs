//! Bad days: a store that answers 500 and 503, does not answer at all, or breaks off in the middle of a body. Nothing acknowledged is
//! lost, what failed says that a retry may help, and after it all the lesson is where it should be.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http_body_util::BodyExt;
use lyceum_client::{self as client, Http};
use serde_json::json;

use super::services::{Postgres, S3};
use super::world::{World, noise};
use crate::support::until_async;

/// A proxy before the S3 server that spoils answers while it is told to.
#[derive(Clone)]
struct Spoiler {
    upstream: String,
    http: Http,
    asked: Arc<AtomicU64>,
    spoiled: Arc<AtomicU64>,
    spoiling: Arc<AtomicBool>,
    /// Nothing that is written gets an answer.
    hanging: Arc<AtomicBool>,
    /// All is refused, with this code of S3.
    refusing: Arc<Mutex<Option<&'static str>>>,
    /// Parts that the server was told to copy by itself.
    copied: Arc<AtomicU64>,
    /// Bytes of recordings that were sent back.
    given: Arc<AtomicU64>,
}

impl Spoiler {
    /// One before the run's server, and an origin that knows no other. `s3` goes into the store's table.
    async fn start(s3: &str) -> (Self, World) {
        Self::start_with(s3, "").await
    }

    /// The same, with further lines of the origin's configuration.
    async fn start_with(s3: &str, extra: &'static str) -> (Self, World) {
        let spoiler = Self {
            upstream: S3::shared().endpoint().to_owned(),
            http: Http::new(client::Limits::default()),
            asked: Arc::default(),
            spoiled: Arc::default(),
            spoiling: Arc::default(),
            hanging: Arc::default(),
            refusing: Arc::default(),
            copied: Arc::default(),
            given: Arc::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(spoil).with_state(spoiler.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let store = S3::shared().store().replace(S3::shared().endpoint(), &proxy);
        let store = store.replace("part =", &format!("{s3}, part ="));
        let world = tokio::task::spawn_blocking(move || {
            World::over(tempfile::tempdir().unwrap(), Postgres::shared().database(), store, 1, extra)
        });
        (spoiler, world.await.unwrap())
    }
}

async fn forward(spoiler: &Spoiler, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = format!("{}{path}", spoiler.upstream).parse().unwrap();
    head.version = http::Version::HTTP_11;
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    // The signature covers Host, which stays as it was.
    if head.headers.contains_key("x-amz-copy-source") {
        spoiler.copied.fetch_add(1, Ordering::SeqCst);
    }
    let gives = head.method == http::Method::GET && path_is_upload(&head.uri);
    match spoiler.http.send(http::Request::from_parts(head, client::full(body))).await {
        Ok(answer) if gives => {
            let given = spoiler.given.clone();
            let (head, body) = answer.into_parts();
            let counted = body.map_frame(move |frame| {
                given.fetch_add(frame.data_ref().map_or(0, |data| data.len() as u64), Ordering::SeqCst);
                frame
            });
            Response::from_parts(head, Body::new(counted))
        }
        Ok(answer) => answer.map(Body::new),
        Err(_) => http::StatusCode::BAD_GATEWAY.into_response(),
    }
}

fn path_is_upload(uri: &http::Uri) -> bool {
    uri.path().contains("/uploads/")
}

async fn spoil(State(spoiler): State<Spoiler>, request: Request) -> Response {
    if let Some(code) = *spoiler.refusing.lock().unwrap() {
        let words = format!("<Error><Code>{code}</Code><Message>No.</Message></Error>");
        return (http::StatusCode::FORBIDDEN, words).into_response();
    }
    if spoiler.hanging.load(Ordering::SeqCst) && request.method() != http::Method::GET {
        return std::future::pending().await;
    }
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
    let (spoiler, world) = Spoiler::start("attempts = 2").await;
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
    let source = world.get(task["source"]["url"].as_str().unwrap());
    let source = source.header("lyceum-lease", task["lease"].as_str().unwrap()).send().await.expect(200);
    assert!(source.body == bytes, "every byte in its place");
}

/// The recording of the lesson that waits for its probe.
async fn recording(world: &World) -> Vec<u8> {
    let task = world.post("/v1/tasks/lease").json(&json!({ "wait": 10 })).send().await.expect(200).json();
    let source = world.get(task["source"]["url"].as_str().unwrap());
    source.header("lyceum-lease", task["lease"].as_str().unwrap()).send().await.expect(200).body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_holds_nobody_up_and_loses_nothing() {
    let (spoiler, world) = Spoiler::start("attempts = 1, attempt_timeout = \"3s\"").await;
    let (_, lesson) = world.lesson().await;
    let bytes = noise(12 << 20, 31);
    let made = world.create(&lesson, bytes.len() as u64).send().await.expect(201);
    let upload = made.header("location").to_owned();
    world.patch(&upload, 0, &bytes[..6 << 20]).send().await.expect(204);
    spoiler.hanging.store(true, Ordering::SeqCst);
    let start = lyceum_core::time::monotonic();
    let hung = world.patch(&upload, 6 << 20, &bytes[6 << 20..]).send().await.expect(503);
    assert_eq!(hung.code(), "store_unavailable");
    assert!(start.elapsed() < Duration::from_secs(15), "it waited {:?}", start.elapsed());
    let head = world.head(&upload).send().await.expect(200);
    assert_eq!(head.header("upload-offset"), (6 << 20).to_string(), "what was acknowledged, and no more");
    spoiler.hanging.store(false, Ordering::SeqCst);
    world.patch(&upload, 6 << 20, &bytes[6 << 20..]).send().await.expect(204);
    assert!(recording(&world).await == bytes, "every byte in its place");
}

async fn joined(s3: &str, sizes: &[usize]) -> (u64, u64) {
    let (spoiler, world) = Spoiler::start(s3).await;
    let (_, lesson) = world.lesson().await;
    let bytes = noise(sizes.iter().sum(), 32);
    let mut parts = Vec::new();
    let mut from = 0;
    for size in sizes {
        let ask = world.post("/v1/uploads").header("tus-resumable", "1.0.0").header("upload-concat", "partial");
        let part = ask.header("upload-length", size).send().await.expect(201).header("location").to_owned();
        world.patch(&part, 0, &bytes[from..from + size]).send().await.expect(204);
        from += size;
        parts.push(part);
    }
    let before = spoiler.given.load(Ordering::SeqCst);
    let ask = world.post("/v1/uploads").header("tus-resumable", "1.0.0");
    let ask = ask.header("upload-metadata", super::world::metadata(&lesson));
    ask.header("upload-concat", format!("final;{}", parts.join(" "))).send().await.expect(201);
    world.until_lesson(&lesson, "the parts to be joined", |lesson| lesson["state"] == "queued").await;
    let given = spoiler.given.load(Ordering::SeqCst) - before;
    assert!(recording(&world).await == bytes, "every byte in its place");
    (spoiler.copied.load(Ordering::SeqCst), given)
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_joined_by_the_store_where_it_can() {
    // Whole objects, so that what is sealed of each part's rest is no part of the count.
    let part = 5 << 20;
    let (copied, given) = joined("copy = true", &[2 * part, part, 1 << 20]).await;
    assert_eq!(copied, 3);
    assert!(given < 2 << 20, "{given} bytes went through the origin");
    // One that is too small for a part, and what lies behind it, goes through the origin.
    let (copied, given) = joined("copy = true", &[part, 1 << 20, part]).await;
    assert_eq!(copied, 1);
    assert!(given >= part as u64, "{given}");
    let (copied, given) = joined("copy = false", &[part, part]).await;
    assert_eq!(copied, 0);
    assert!(given >= 2 * part as u64, "{given}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_the_bucket_removed_ends_and_its_lesson_says_so() {
    let store = S3::shared().store();
    let (dir, database) = (tempfile::tempdir().unwrap(), Postgres::shared().database());
    let over = store.clone();
    let world = tokio::task::spawn_blocking(move || World::over(dir, database, over, 1, "")).await.unwrap();
    let bytes = noise(12 << 20, 33);
    let begin = async |first: usize| {
        let (_, lesson) = world.lesson().await;
        let made = world.create(&lesson, bytes.len() as u64).send().await.expect(201);
        let upload = made.header("location").to_owned();
        world.patch(&upload, 0, &bytes[..first]).send().await.expect(204);
        S3::shared().abort_unfinished(&store).await;
        (lesson, upload)
    };
    for (first, asks) in [(6 << 20, true), (6 << 20, false), (bytes.len() - 5, true), (bytes.len() - 5, false)] {
        let (lesson, upload) = begin(first).await;
        let lost = if asks {
            world.head(&upload).send().await.expect(410)
        } else {
            let lost = world.patch(&upload, first as u64, &bytes[first..]).send().await.expect(410);
            assert_eq!(lost.code(), "upload_lost");
            lost
        };
        assert!(lost.header("upload-offset").is_empty(), "nothing is acknowledged");
        let failed = world.get(&format!("/v1/lessons/{lesson}")).send().await.expect(200).json();
        assert_eq!((&failed["state"], &failed["error"]["code"]), (&json!("failed"), &json!("upload_lost")));
        world.head(&upload).send().await.expect(410);
        // The client begins again.
        let made = world.create(&lesson, 5).send().await.expect(201);
        world.patch(made.header("location"), 0, b"begin").send().await.expect(204);
        world.until_lesson(&lesson, "the next upload to be taken", |lesson| lesson["state"] == "queued").await;
        world.delete(&format!("/v1/lessons/{lesson}")).send().await.expect(204);
    }
    // Before the first whole part nothing is lost: what came lies in an object of its own.
    let (_, upload) = begin(1 << 20).await;
    assert_eq!(world.head(&upload).send().await.expect(200).header("upload-offset"), (1 << 20).to_string());
    world.patch(&upload, 1 << 20, &bytes[1 << 20..]).send().await.expect(204);
    assert!(recording(&world).await == bytes, "every byte in its place");
}

/// Waits until `/readyz` answers with this status.
async fn until_ready(world: &World, status: u16) -> String {
    let url = format!("{}/readyz", world.operators(0));
    until_async(&format!("/readyz to answer {status}"), Duration::from_secs(30), async || {
        let answer = world.get(&url).send().await;
        (answer.status == status).then(|| String::from_utf8_lossy(&answer.body).into_owned())
    })
    .await
}

/// Probes often, so that a story need not wait for them.
const READINESS: &str = "readiness = { interval = \"1s\", timeout = \"1s\" }\nadmin = { listen = \"127.0.0.1:0\" }";

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_whose_store_takes_no_writes_is_not_ready() {
    let (spoiler, world) = Spoiler::start_with("attempts = 1", READINESS).await;
    until_ready(&world, 200).await;
    for code in ["InvalidAccessKeyId", "RequestTimeTooSkewed", "NoSuchBucket"] {
        *spoiler.refusing.lock().unwrap() = Some(code);
        let why = until_ready(&world, 503).await;
        assert!(why.contains("object store") && !why.contains(code), "for whoever asks; the log says more: {why}");
        *spoiler.refusing.lock().unwrap() = None;
        until_ready(&world, 200).await;
    }
    spoiler.hanging.store(true, Ordering::SeqCst);
    until_ready(&world, 503).await;
    spoiler.hanging.store(false, Ordering::SeqCst);
    until_ready(&world, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_became_a_standby_is_left_once_there_is_another() {
    let postgres = Postgres::shared();
    let database = postgres.database();
    let dir = tempfile::tempdir().unwrap();
    let store = format!("{{ directory = \"{}\" }}", dir.path().join("objects").display());
    let over = database.clone();
    let world = tokio::task::spawn_blocking(move || World::over(dir, over, store, 1, READINESS)).await.unwrap();
    until_ready(&world, 200).await;
    let course = || world.post("/v1/courses").json(&json!({ "title": "C" }));
    course().send().await.expect(201);
    postgres.set_read_only(&database, true);
    let why = until_ready(&world, 503).await;
    assert!(why.contains("database"), "{why}");
    assert_eq!(course().send().await.expect(503).code(), "database_unavailable");
    world.get("/v1/courses").send().await.expect(200);
    // Sessions that began before stay read-only, as those with an old primary do.
    postgres.set_read_only(&database, false);
    until_ready(&world, 200).await;
    for _ in 0..20 {
        course().send().await.expect(201);
    }
}

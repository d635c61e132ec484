//! One fetch for many, each at its own pace; origins that die, lie and stall.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use lyceum_core::time::monotonic;
use tokio::sync::Notify;

use super::harness::*;
use crate::support::until_async;

#[tokio::test(flavor = "multi_thread")]
async fn many_askers_make_one_fetch_and_all_get_every_byte() {
    let body = pattern(300_000);
    let sent = body.clone();
    let go = Arc::new(Notify::new());
    let held = Arc::clone(&go);
    let origin = Origin::start(move |_| {
        let (a, b) = sent.split_at(100_000);
        Reply::head(sent.len(), &[IMMUTABLE]).bytes(a).then(Step::Until(Arc::clone(&held))).bytes(b)
    })
    .await;
    let edge = Arc::new(TestEdge::paid(&[&origin]).await);
    let path = format!("/t/{}/v/a/1/v720/00000-0.m4s", edge.token());
    let askers: Vec<_> = (0..300)
        .map(|_| {
            let (edge, path) = (Arc::clone(&edge), path.clone());
            tokio::spawn(async move { edge.get(&path).await })
        })
        .collect();
    until_async("all to be answered, from the first piece", Duration::from_secs(20), async || {
        (edge.metric("lyceum_edge_requests_total", &["status=\"200\""]) == 300.0).then_some(())
    })
    .await;
    go.notify_waiters();
    for asker in askers {
        let answer = asker.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.body.as_deref() == Some(&body));
    }
    assert_eq!(origin.seen().len(), 1);
    assert_eq!(edge.get(&path).await.field("cache-status"), "lyceum; hit");
    assert_eq!(edge.metric("lyceum_edge_fills_total", &["ok"]), 1.0);
    assert_eq!(edge.metric("lyceum_edge_requests_total", &["status=\"200\""]), 301.0);
    assert_eq!(edge.metric("lyceum_edge_response_bytes_total", &[]), 301.0 * 300_000.0);
}

#[tokio::test]
async fn a_late_reader_starts_at_the_beginning_while_the_fill_goes_on() {
    let go = Arc::new(Notify::new());
    let held = Arc::clone(&go);
    let origin = Origin::start(move |_| {
        Reply::head(20, &[IMMUTABLE]).bytes("first half").then(Step::Until(Arc::clone(&held))).bytes("other half")
    })
    .await;
    let edge = TestEdge::paid(&[&origin]).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    let mut early = begin(&edge.url, Method::GET, &path, &[], "").await;
    let first = early.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "first half");
    let mut late = begin(&edge.url, Method::GET, &path, &[], "").await;
    assert_eq!(late.headers()["cache-status"], "lyceum; fwd=uri-miss; collapsed; ttl=31536000");
    let first = late.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "first half", "before the rest has come");
    go.notify_waiters();
    assert_eq!(late.into_body().collect().await.unwrap().to_bytes(), "other half");
    assert_eq!(early.into_body().collect().await.unwrap().to_bytes(), "other half");
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_slow_reader_holds_no_one_up_and_gets_every_byte_still() {
    let body = Arc::new(pattern(6 << 20));
    let sent = Arc::clone(&body);
    let origin = Origin::start(move |_| Reply::new(200, &[IMMUTABLE], &*sent)).await;
    let edge = TestEdge::paid(&[&origin]).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    let slow = begin(&edge.url, Method::GET, &path, &[], "").await;
    for _ in 0..3 {
        assert!(edge.get(&path).await.body.as_deref() == Some(&body));
    }
    // What it reads late was purged meanwhile, and is still its own.
    let admin = edge.admin().await;
    send(&admin, Method::POST, "/purge", &[("content-type", "application/json")], r#"{"prefix": "/v/"}"#).await;
    assert!(slow.into_body().collect().await.unwrap().to_bytes() == **body);
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_ends_nothing() {
    let go = Arc::new(Notify::new());
    let held = Arc::clone(&go);
    let origin = Origin::start(move |_| {
        Reply::head(4, &[IMMUTABLE]).bytes("ab").then(Step::Until(Arc::clone(&held))).bytes("cd")
    })
    .await;
    let edge = TestEdge::paid(&[&origin]).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    drop(begin(&edge.url, Method::GET, &path, &[], "").await);
    until_async("the edge to see that it left", Duration::from_secs(5), async || {
        (edge.metric("lyceum_front_connections", &[]) == 0.0).then_some(())
    })
    .await;
    go.notify_waiters();
    let answer = edge.get(&path).await;
    assert_eq!(answer.text(), "abcd");
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn when_an_origin_dies_the_other_takes_over_with_no_error() {
    let serve = |_: &Seen| Reply::new(200, &[("cache-control", "no-store")], "media");
    let (one, two) = (Origin::start(serve).await, Origin::start(serve).await);
    let edge = TestEdge::paid(&[&one, &two]).await;
    let token = edge.token();
    for n in 0..60 {
        if n == 20 {
            one.kill();
        }
        let answer = edge.get(&format!("/t/{token}/v/a/{n}.m4s")).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "media"), "{n}");
    }
    assert!(!one.seen().is_empty() && two.seen().len() >= 40);
    assert!(edge.metric("lyceum_upstream_requests_total", &["result=\"connect\""]) >= 1.0);
    assert_eq!(edge.metric("lyceum_upstream_origin_up", &[&format!("{}", one.address)]), 0.0, "left alone");
}

#[tokio::test]
async fn a_body_that_breaks_off_goes_on_from_another_origin() {
    let body = Arc::new(pattern(50_000));
    let fields = [IMMUTABLE, ("etag", "\"one\"")];
    let script = |body: Arc<Vec<u8>>| {
        move |seen: &Seen| match seen.field("range") {
            None => Reply::head(body.len(), &fields).bytes(&body[..20_000]).then(Step::Break),
            Some(range) => {
                let from: usize = range.trim_start_matches("bytes=").split('-').next().unwrap().parse().unwrap();
                assert_eq!(seen.field("if-match"), Some("\"one\""));
                let content_range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
                Reply::new(206, &[fields[0], fields[1], ("content-range", &content_range)], &body[from..])
            }
        }
    };
    let (one, two) = (Origin::start(script(Arc::clone(&body))).await, Origin::start(script(Arc::clone(&body))).await);
    let edge = TestEdge::paid(&[&one, &two]).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    assert!(edge.get(&path).await.body.as_deref() == Some(&body));
    assert_eq!(edge.get(&path).await.field("cache-status"), "lyceum; hit");
    assert_eq!(one.seen().len() + two.seen().len(), 2);
}

#[tokio::test]
async fn a_rest_of_another_version_is_never_sewn_on() {
    let origin = Origin::start(|seen: &Seen| match seen.field("range") {
        None => Reply::head(10, &[IMMUTABLE, ("etag", "\"one\"")]).bytes("abcde").then(Step::Break),
        Some(_) => Reply::new(206, &[IMMUTABLE, ("etag", "\"two\""), ("content-range", "bytes 5-9/10")], "FGHIJ"),
    })
    .await;
    let edge = TestEdge::paid(&[&origin]).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    assert_eq!(edge.get(&path).await.body, None);
    assert_ne!(edge.get(&path).await.field("cache-status"), "lyceum; hit");
}

#[tokio::test]
async fn what_is_short_is_never_stored_and_never_passed_off_as_whole() {
    let origin = Origin::start(|_| Reply::head(10, &[IMMUTABLE]).bytes("short").then(Step::Break)).await;
    let edge = TestEdge::paid(&[&origin]).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    for _ in 0..2 {
        let answer = edge.get(&path).await;
        assert_eq!(answer.body, None, "the connection ends with the body");
    }
    assert_eq!(origin.seen().len(), 2);
    assert_eq!(edge.metric("lyceum_edge_fills_total", &["broken_off"]), 2.0);
    origin.now(|_| Reply::new(200, &[IMMUTABLE], "whole body"));
    assert_eq!(edge.get(&path).await.text(), "whole body");
    assert_eq!(edge.get(&path).await.field("cache-status"), "lyceum; hit");
}

#[tokio::test]
async fn stale_is_served_while_revalidated_and_on_errors_and_then_an_error() {
    let control = ("cache-control", "public, max-age=10, stale-while-revalidate=10, stale-if-error=60");
    let origin = Origin::start(move |seen: &Seen| match seen.field("if-none-match") {
        Some("\"1\"") => Reply::new(304, &[control, ("etag", "\"1\"")], ""),
        _ => Reply::new(200, &[control, ("etag", "\"1\"")], "one"),
    })
    .await;
    let edge = TestEdge::paid(&[&origin]).await;
    let path = format!("/t/{}/v/a/master.m3u8", edge.token());
    assert_eq!(edge.get(&path).await.text(), "one");
    edge.clock.advance(Duration::from_secs(12));
    let answer = edge.get(&path).await;
    assert!(answer.text() == "one" && answer.field("cache-status").contains("stale-while-revalidate"));
    until_async("the renewal", Duration::from_secs(5), async || {
        (edge.metric("lyceum_edge_fills_total", &["ok"]) >= 2.0).then_some(())
    })
    .await;
    assert_eq!(edge.get(&path).await.field("cache-status"), "lyceum; hit", "renewed beside");

    edge.clock.advance(Duration::from_secs(30));
    assert_eq!(edge.get(&path).await.field("cache-status"), "lyceum; fwd=stale; fwd-status=304; ttl=10");
    origin.now(|_| Reply::new(503, &[], "no"));
    edge.clock.advance(Duration::from_secs(30));
    let answer = edge.get(&path).await;
    assert!(answer.text() == "one" && answer.field("cache-status").contains("stale-if-error"), "{answer:?}");
    origin.kill();
    assert_eq!(edge.get(&path).await.text(), "one");
    edge.clock.advance(Duration::from_secs(60));
    let answer = edge.get(&path).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "origin_unreachable"));
    assert_eq!(answer.field("retry-after"), "2");
    assert_eq!(answer.field("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn an_origin_that_stands_still_is_given_up() {
    let origin = Origin::start(|_| Reply(vec![Step::Wait(Duration::from_secs(60))])).await;
    let toml = paid(&[&origin], "").replace(
        "name = \"origin\"",
        "name = \"origin\"\nfirst_byte = \"200ms\"\nconnect = \"100ms\"\nidle = \"200ms\"",
    );
    let edge = TestEdge::start(&toml).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    let start = monotonic();
    let answer = edge.get(&path).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::GATEWAY_TIMEOUT, "origin_timeout"));
    origin.now(|_| Reply::head(10, &[IMMUTABLE]).bytes("half").then(Step::Wait(Duration::from_secs(60))));
    assert_eq!(edge.get(&path).await.body, None);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn what_is_too_large_passes_through_whole() {
    let body = Arc::new(pattern(12 << 20));
    let sent = Arc::clone(&body);
    let origin = Origin::start(move |_| Reply::new(200, &[IMMUTABLE], &*sent)).await;
    let edge = TestEdge::paid(&[&origin]).await;
    let path = format!("/t/{}/v/a/whole.mp4", edge.token());
    for _ in 0..2 {
        assert!(edge.get(&path).await.body.as_deref() == Some(&body));
    }
    assert_eq!(edge.metric("lyceum_edge_cache_objects", &[]), 0.0);
}

/// The origin holds its answers back until all have asked: who waits for another would wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn askers_of_what_was_not_stored_lately_do_not_wait_for_one_another() {
    const ASKERS: usize = 5;
    let together = Arc::new(tokio::sync::Barrier::new(ASKERS));
    let origin = Origin::start(|_| Reply::new(200, &[("cache-control", "no-store")], "one")).await;
    let edge = Arc::new(TestEdge::open(&[&origin]).await);
    assert_eq!(edge.get("/api").await.field("cache-status"), "lyceum; fwd=uri-miss; fwd-status=200; detail=no_store");

    // The origin answers no one before all have asked.
    let go = Arc::new(Notify::new());
    let held = Arc::clone(&go);
    origin.now(move |_| {
        Reply(vec![Step::Until(Arc::clone(&held))])
            .bytes("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncache-control: no-store\r\n\r\ntwo")
    });
    let askers: Vec<_> = (0..ASKERS)
        .map(|_| {
            let (edge, together) = (Arc::clone(&edge), Arc::clone(&together));
            tokio::spawn(async move {
                together.wait().await;
                edge.get("/api").await.text()
            })
        })
        .collect();
    until_async("all to have reached the origin", Duration::from_secs(10), async || {
        (origin.count("/api") == 1 + ASKERS).then_some(())
    })
    .await;
    let answered = async {
        for asker in askers {
            assert_eq!(asker.await.unwrap(), "two");
        }
    };
    // Again and again, for a connection that began to wait after the first time.
    let opened = async {
        loop {
            go.notify_waiters();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = answered => {}
        () = opened => {}
    }

    // Once it may be stored it is, and is fetched once for all again.
    origin.now(|_| Reply::new(200, &[("cache-control", "max-age=60")], "three"));
    edge.get("/api").await;
    let asked = origin.count("/api");
    assert_eq!((edge.get("/api").await.field("cache-status"), origin.count("/api")), ("lyceum; hit", asked));
}

#[tokio::test]
async fn a_report_of_playback_in_the_query_is_no_part_of_the_key() {
    let origin = Origin::start(|_| Reply::new(200, &[("cache-control", "max-age=60")], "segment")).await;
    let edge = TestEdge::open(&[&origin]).await;
    let reports = ["CMCD=bl%3D1000%2Cot%3Dv%2Csid%3D%22a%22%2Cbr%3D3200", "CMCD=bl%3D2000", "CMCD=ot%3Dv%2Cbr%3D800"];
    for report in reports {
        edge.get(&format!("/trailer.m4s?{report}")).await;
        edge.get(&format!("/other.m4s?a=1&{report}&b=2")).await;
    }
    assert_eq!(edge.get("/trailer.m4s").await.field("cache-status"), "lyceum; hit");
    let targets: Vec<String> = origin.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/trailer.m4s", "/other.m4s?a=1&b=2"], "asked once each, without the report");
    let counted = edge.metric("lyceum_playback_bitrate_bits_per_second_count", &[]);
    assert_eq!(counted, 4.0, "the edge takes it for its metrics");
}

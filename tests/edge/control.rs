//! What the edge follows at its origins, and what operators order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::clients::certificate;
use super::harness::*;
use crate::server::http3;
use crate::support::until_async;

/// Media, the feed, and leases as `lease` says.
fn control(seen: &Seen, events: &str, lease: u16) -> Reply {
    if seen.target.starts_with("/v1/revocations") {
        assert_eq!(seen.field("authorization"), Some("Bearer secret"));
        if seen.target.contains("after=0&") && !events.is_empty() {
            return Reply::new(200, &[], format!("{{\"next\": 7, \"events\": [{events}]}}"));
        }
        return Reply(vec![Step::Wait(Duration::from_secs(60))]);
    }
    if seen.target.ends_with("/lease") {
        return Reply::new(lease, &[], "");
    }
    Reply::new(200, &[IMMUTABLE, ("surrogate-key", "lesson-a v1")], "media")
}

/// The answer to the first question for revocations, once `news` comes: `session1` is revoked.
fn revoked_on(news: &Arc<Notify>, seen: &Seen) -> Option<Reply> {
    let event = format!("{{\"next\": 1, \"events\": [{{\"session\": \"session1\", \"until\": {}}}]}}", NOW + 4000);
    let mut reply = Reply::new(200, &[], event);
    reply.0.insert(0, Step::Until(Arc::clone(news)));
    seen.target.contains("after=0&").then_some(reply)
}

fn follows(origins: &[&Origin], more: &str) -> String {
    let urls: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.url())).collect();
    let control = format!(
        "[control]\norigins = [{}]\nbearer = \"secret\"\nstate = \"{{dir}}/control.json\"\n{more}\n",
        urls.join(", ")
    );
    paid(origins, &control)
}

#[tokio::test]
async fn revoked_sessions_end_within_two_seconds_and_stay_so_over_a_restart() {
    let origin = Origin::start(|seen: &Seen| control(seen, "", 204)).await;
    let edge = TestEdge::start(&follows(&[&origin], "")).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    assert_eq!(edge.get(&path).await.status, StatusCode::OK);
    let event = format!("{{\"session\": \"session1\", \"until\": {}}}", NOW + 4000);
    origin.now(move |seen: &Seen| control(seen, &event, 204));
    // The question under way is held by the first script; a new edge asks anew.
    drop(edge);
    let edge = TestEdge::start(&follows(&[&origin], "")).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    until_async("the revocation", Duration::from_secs(2), async || {
        (edge.metric("lyceum_edge_follow_total", &["feed", "ok"]) >= 1.0).then_some(())
    })
    .await;
    assert_eq!(edge.get(&path).await.code(), "token_revoked");
    until_async("the revocation to be kept", Duration::from_secs(5), async || {
        let kept = std::fs::read_to_string(edge.dir.path().join("control.json")).ok()?;
        kept.contains("session1").then_some(())
    })
    .await;
    assert_eq!(
        edge.get(&format!("/t/{}/v/a/x.m4s", edge.sign(|c| c.jti = Some("other".into())))).await.status,
        StatusCode::OK
    );
    assert_eq!(edge.get(&format!("/t/{}/v/a/x.m4s", edge.sign(|c| c.jti = None))).await.code(), "token_malformed");

    // While all origins are away, what was seen is still known.
    origin.kill();
    let state = format!("{}\n", follows(&[&origin], ""))
        .replace("{dir}/control.json", edge.dir.path().join("control.json").to_str().unwrap());
    let restarted = TestEdge::start(&state).await;
    let path = format!("/t/{}/v/a/x.m4s", restarted.token());
    assert_eq!(restarted.get(&path).await.code(), "token_revoked");
}

#[tokio::test]
async fn a_revocation_comes_in_time_whichever_of_two_origins_is_lost() {
    for lost in 0..2 {
        let origins = [
            Origin::start(|seen: &Seen| control(seen, "", 204)).await,
            Origin::start(|seen: &Seen| control(seen, "", 204)).await,
        ];
        let news = Arc::new(Notify::new());
        for origin in &origins {
            let told = Arc::clone(&news);
            origin.now(move |seen: &Seen| revoked_on(&told, seen).unwrap_or_else(|| control(seen, "", 204)));
        }
        let edge = TestEdge::start(&follows(&[&origins[0], &origins[1]], "")).await;
        let path = format!("/t/{}/v/a/x.m4s", edge.token());
        assert_eq!(edge.get(&path).await.status, StatusCode::OK);
        until_async("both to be asked", Duration::from_secs(5), async || {
            let asked = |origin: &Origin| origin.seen().iter().any(|seen| seen.target.starts_with("/v1/revocations"));
            origins.iter().all(asked).then_some(())
        })
        .await;
        origins[lost].kill();
        until_async("the revocation", Duration::from_secs(2), async || {
            news.notify_waiters();
            (edge.get(&path).await.status == StatusCode::FORBIDDEN).then_some(())
        })
        .await;
        assert_eq!(edge.get(&path).await.code(), "token_revoked", "without origin {lost}");
    }
}

#[tokio::test]
async fn a_revocation_ends_a_response_under_way() {
    let (go, news) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (held, told) = (Arc::clone(&go), Arc::clone(&news));
    let origin = Origin::start(move |seen: &Seen| {
        if let Some(reply) = revoked_on(&told, seen) {
            return reply;
        }
        if seen.target.ends_with("x.m4s") {
            return Reply::head(10, &[IMMUTABLE]).bytes("first").then(Step::Until(Arc::clone(&held))).bytes("other");
        }
        control(seen, "", 204)
    })
    .await;
    let edge = TestEdge::start(&follows(&[&origin], "")).await;
    let mut under_way = begin(&edge.url, Method::GET, &format!("/t/{}/v/a/x.m4s", edge.token()), &[], "").await;
    assert_eq!(under_way.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    news.notify_waiters();
    until_async("the revocation", Duration::from_secs(2), async || {
        (edge.metric("lyceum_edge_follow_total", &["feed", "ok"]) >= 1.0).then_some(())
    })
    .await;
    go.notify_waiters();
    assert!(under_way.into_body().collect().await.is_err(), "broken off, not ended");
}

/// A client that takes nothing keeps the body from being asked for more, so that it can't notice by itself.
#[tokio::test]
async fn a_revocation_ends_a_response_that_stands_still() {
    let news = Arc::new(Notify::new());
    let told = Arc::clone(&news);
    let origin = Origin::start(move |seen: &Seen| {
        if let Some(reply) = revoked_on(&told, seen) {
            return reply;
        }
        match seen.target.as_str() {
            "/v/a/large.m4s" => Reply::new(200, &[IMMUTABLE], vec![b'x'; 32 << 20]),
            "/v/a/stalled.m4s" => {
                Reply::head(10, &[IMMUTABLE]).bytes("first").then(Step::Wait(Duration::from_secs(60)))
            }
            _ => control(seen, "", 204),
        }
    })
    .await;
    let edge = TestEdge::start(&follows(&[&origin], "[cache]\nobject = \"64MiB\"")).await;
    let open = || edge.metric("lyceum_front_connections", &[]);
    let ask = async |name: &str, session: &str| {
        let token = edge.sign(|c| c.jti = Some(session.to_owned()));
        let mut stream = TcpStream::connect(edge.url.trim_start_matches("http://")).await.unwrap();
        stream.write_all(format!("GET /t/{token}/v/a/{name} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        stream
    };
    // One that does not read, one whose origin stands still, and one of another session that does not read.
    let _held =
        [ask("large.m4s", "session1").await, ask("stalled.m4s", "session1").await, ask("large.m4s", "other").await];
    assert_eq!(open(), 3.0);
    news.notify_waiters();
    until_async("both to be ended", Duration::from_secs(2), async || {
        // Woken by the news, the body whose origin stands still notices by itself.
        let ended = edge.metric("lyceum_front_ended_total", &["revoked"]);
        (ended >= 1.0 && open() == 1.0).then_some(())
    })
    .await;
}

/// The same where streams have windows of their own: over HTTP/2 (in the clear) and HTTP/3, each with a session that goes
/// on beside.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_a_stream_whose_window_stays_shut() {
    let news = Arc::new(Notify::new());
    let told = Arc::clone(&news);
    let origin = Origin::start(move |seen: &Seen| {
        if let Some(reply) = revoked_on(&told, seen) {
            return reply;
        }
        match seen.target.as_str() {
            "/v/a/large.m4s" => Reply::new(200, &[IMMUTABLE], vec![b'x'; 32 << 20]),
            _ => control(seen, "", 204),
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let files = certificate(folder.path());
    let toml = follows(&[&origin], "[cache]\nobject = \"64MiB\"");
    let listener = format!(
        "address = \"127.0.0.1:0\", tls = {{ cert = {:?}, key = {:?} }}, http3 = true",
        files.cert.display().to_string(),
        files.key.display().to_string()
    );
    let (plain, quic) = (TestEdge::start(&toml).await, TestEdge::with_listener(&listener, &toml).await);
    let port: u16 = quic.url.rsplit(':').next().unwrap().parse().unwrap();
    let path = |edge: &TestEdge, session: &str| {
        format!("/t/{}/v/a/large.m4s", edge.sign(|claims| claims.jti = Some(session.to_owned())))
    };

    let mut connections = Vec::new();
    for session in ["session1", "other"] {
        let stream = TcpStream::connect(plain.url.trim_start_matches("http://")).await.unwrap();
        let (mut client, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2 in the clear");
        let connection = tokio::spawn(connection);
        let request = http::Request::get(format!("{}{}", plain.url, path(&plain, session)))
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!((answer.status(), answer.version()), (StatusCode::OK, http::Version::HTTP_2));
        connections.push((client, connection, answer));
    }
    let asks = ["session1", "other"].map(|session| {
        let (ca, path) = (files.cert.clone(), path(&quic, session));
        tokio::spawn(async move { http3::ask(port, &ca, json!([{ "path": path, "hold": true }])).await.remove(0) })
    });
    let [ended, other] = asks;
    let open = |edge: &TestEdge| edge.metric("lyceum_front_connections", &[]);
    until_async("all to be answered", Duration::from_secs(20), async || {
        let answered = |edge: &TestEdge| edge.metric("lyceum_edge_requests_total", &["status=\"200\""]);
        (answered(&plain) == 2.0 && answered(&quic) == 2.0).then_some(())
    })
    .await;
    assert_eq!((open(&plain), open(&quic)), (2.0, 2.0));
    for edge in [&plain, &quic] {
        until_async("the session's connection to end", Duration::from_secs(4), async || {
            // Who asks only now is told too.
            news.notify_waiters();
            (edge.metric("lyceum_front_ended_total", &["revoked"]) == 1.0 && open(edge) == 1.0).then_some(())
        })
        .await;
    }
    let told = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("told at once").unwrap();
    assert_eq!(told["closed"], 0x107, "H3_EXCESSIVE_LOAD: {told}");
    let (_, connection, answer) = connections.remove(0);
    assert!(answer.into_body().collect().await.is_err(), "broken off, not ended");
    let _ = tokio::time::timeout(Duration::from_secs(5), connection).await.expect("the connection ends");
    // A client that is dropped ends its connection itself.
    let (_client, connection, _answer) = connections.remove(0);
    assert!(!connection.is_finished() && !other.is_finished(), "another session's goes on");
    connection.abort();
    other.abort();
}

#[tokio::test]
async fn streams_are_leased_and_refused() {
    let status = Arc::new(AtomicU16::new(409));
    let answers = Arc::clone(&status);
    let origin = Origin::start(move |seen: &Seen| control(seen, "", answers.load(Ordering::SeqCst))).await;
    let edge = TestEdge::start(&follows(&[&origin], "")).await;
    let path = |session: &str| format!("/t/{}/v/a/x.m4s", edge.sign(|c| c.jti = Some(session.to_owned())));
    let refused = edge.get(&path("s1")).await;
    assert_eq!((refused.status, refused.code().as_str()), (StatusCode::FORBIDDEN, "too_many_streams"));
    status.store(204, Ordering::SeqCst);
    assert_eq!(edge.get(&path("s2")).await.status, StatusCode::OK);
    assert_eq!(edge.get(&path("s2")).await.status, StatusCode::OK);
    assert_eq!(origin.count("/v1/sessions/s2/lease"), 1, "one lease, not one a request");

    // A session that the origins don't know is another issuer's.
    status.store(404, Ordering::SeqCst);
    assert_eq!(edge.get(&path("s0")).await.status, StatusCode::OK);

    // Who plays goes on when the leases can't be had; what becomes of new ones is configured.
    status.store(500, Ordering::SeqCst);
    assert_eq!(edge.get(&path("s3")).await.status, StatusCode::OK);
    let strict = TestEdge::start(&follows(&[&origin], "when_unreachable = \"refuse\"")).await;
    let token = strict.sign(|c| c.jti = Some("s4".into()));
    assert_eq!(strict.get(&format!("/t/{token}/v/a/x.m4s")).await.code(), "too_many_streams");
}

#[tokio::test]
async fn purges_by_url_prefix_and_tag() {
    let origin = Origin::start(|seen: &Seen| control(seen, "", 204)).await;
    let edge = TestEdge::paid(&[&origin]).await;
    let admin = edge.admin().await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    let purge =
        async |order: &str| send(&admin, Method::POST, "/purge", &[("content-type", "application/json")], order).await;
    for (order, then) in [
        (r#"{"url": "/v/a/x.m4s"}"#, "lyceum; fwd=uri-miss; fwd-status=200; stored; ttl=31536000"),
        (r#"{"url": "https://edge.example/v/a/x.m4s"}"#, "lyceum; fwd=uri-miss; fwd-status=200; stored; ttl=31536000"),
        (r#"{"prefix": "/v/a/"}"#, "lyceum; fwd=uri-miss; fwd-status=200; stored; ttl=31536000"),
        (r#"{"tag": "lesson-a"}"#, "lyceum; fwd=uri-miss; fwd-status=200; stored; ttl=31536000"),
        (r#"{"tag": "v1", "soft": true}"#, "lyceum; fwd=stale; fwd-status=200; stored; ttl=31536000"),
        (r#"{"tag": "other"}"#, "lyceum; hit"),
    ] {
        edge.get(&path).await;
        assert_eq!(edge.get(&path).await.field("cache-status"), "lyceum; hit");
        assert_eq!(purge(order).await.status, StatusCode::OK);
        assert_eq!(edge.get(&path).await.field("cache-status"), then, "{order}");
    }
    for bad in ["{}", r#"{"url": "/a", "tag": "b"}"#, "x", r#"{"what": 1}"#] {
        assert_eq!(purge(bad).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let about = async |query: &str| -> serde_json::Value {
        serde_json::from_str(&send(&admin, Method::GET, &format!("/status{query}"), &[], "").await.text()).unwrap()
    };
    edge.get(&path).await;
    edge.clock.advance(Duration::from_secs(7));
    let explained = about("?url=/v/a/x.m4s").await;
    assert_eq!((&explained["memory"]["age"], &explained["memory"]["status"]), (&7.into(), &200.into()), "{explained}");
    assert_eq!((&explained["would"], &explained["memory"]["tags"][0]), (&"serve it".into(), &"lesson-a".into()));
    assert_eq!(about("?url=/v/a/other.m4s").await["would"], "fetch it");
    assert_eq!(about("?url=/nothing").await["code"], "not_found");
    let status = about("").await;
    assert_eq!(status["pools"]["origin"][0]["up"], true);
    assert_eq!(status["tokens"]["issuers"][0]["keys"], 1);
}

//! Ranges, conditions, HEAD, pages of other origins, protocols.

use std::process::Stdio;

use http::{Method, StatusCode};

use super::harness::*;

#[tokio::test]
async fn ranges_conditions_and_head() {
    let origin = Origin::start(|_| {
        Reply::new(
            200,
            &[IMMUTABLE, ("etag", "\"tag\""), ("content-type", "video/mp4"), ("x-own", "kept")],
            "0123456789",
        )
    })
    .await;
    let edge = TestEdge::paid(&[&origin]).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    let get = async |fields: &[(&str, &str)]| edge.send(Method::GET, &path, fields).await;
    // The first round is filled while it is read, the second is a hit: the same to the client.
    for _ in 0..2 {
        let answer = get(&[("range", "bytes=2-4")]).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::PARTIAL_CONTENT, "234"));
        assert_eq!((answer.field("content-range"), answer.field("content-length")), ("bytes 2-4/10", "3"));
    }
    assert_eq!(origin.seen().len(), 1);
    assert_eq!(origin.seen()[0].field("range"), Some("bytes=0-2097151"), "a slice, which is the whole of it");
    assert_eq!(get(&[("range", "bytes=-3")]).await.text(), "789");
    assert_eq!(get(&[("range", "bytes=7-")]).await.text(), "789");
    let answer = get(&[("range", "bytes=10-")]).await;
    assert_eq!((answer.status, answer.field("content-range")), (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */10"));
    assert_eq!(get(&[("range", "bytes=0-1"), ("if-range", "\"tag\"")]).await.text(), "01");
    assert_eq!(get(&[("range", "bytes=0-1"), ("if-range", "\"old\"")]).await.text(), "0123456789");
    let answer = get(&[("if-none-match", "\"tag\"")]).await;
    assert_eq!((answer.status, answer.body.as_ref().unwrap().len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(
        (answer.field("etag"), answer.field("cache-control")),
        ("\"tag\"", "private, max-age=31536000, immutable")
    );
    assert_eq!(get(&[("if-match", "\"other\"")]).await.status, StatusCode::PRECONDITION_FAILED);
    let answer = edge.send(Method::HEAD, &path, &[]).await;
    assert_eq!(
        (answer.status, answer.field("content-length"), answer.body.as_ref().unwrap().len()),
        (StatusCode::OK, "10", 0)
    );
    let answer = get(&[]).await;
    assert_eq!((answer.field("accept-ranges"), answer.field("age"), answer.field("x-own")), ("bytes", "0", "kept"));
    assert_eq!(answer.field("content-type"), "video/mp4");
    edge.clock.advance(std::time::Duration::from_secs(7));
    assert_eq!(get(&[]).await.field("age"), "7");
}

#[tokio::test]
async fn pages_of_other_origins_may_play() {
    let origin =
        Origin::start(|_| Reply::new(200, &[IMMUTABLE, ("access-control-allow-origin", "https://origin")], "x")).await;
    let edge = TestEdge::paid(&[&origin]).await;
    let answer = edge
        .send(
            Method::OPTIONS,
            "/v/a/x.m4s",
            &[
                ("origin", "https://shop.example"),
                ("access-control-request-method", "GET"),
                ("access-control-request-headers", "cmcd-request,cmcd-session,range"),
            ],
        )
        .await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    for name in ["cmcd-request", "cmcd-object", "cmcd-status", "cmcd-session", "range", "authorization"] {
        assert!(answer.field("access-control-allow-headers").contains(name), "{name}");
    }
    assert!(answer.field("access-control-allow-methods").contains("GET"));
    assert!(!answer.field("access-control-max-age").is_empty());
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    for _ in 0..2 {
        let answer = edge.send(Method::GET, &path, &[("origin", "https://shop.example")]).await;
        assert_eq!(answer.headers.get_all("access-control-allow-origin").iter().count(), 1);
        assert_eq!(answer.field("access-control-allow-origin"), "*");
        assert!(answer.field("access-control-expose-headers").contains("content-range"));
    }
}

#[tokio::test]
async fn named_pages_alone_where_they_are_named() {
    let origin = Origin::start(|_| Reply::new(200, &[IMMUTABLE], "x")).await;
    let toml = paid(&[&origin], "").replace("origins = [\"*\"]", "origins = [\"https://shop.example\"]");
    let edge = TestEdge::start(&toml).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    for (page, allowed) in [("https://shop.example", "https://shop.example"), ("https://evil.example", "")] {
        let answer = edge.send(Method::GET, &path, &[("origin", page)]).await;
        assert_eq!((answer.field("access-control-allow-origin"), answer.field("vary")), (allowed, "Origin"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_and_2_over_tls_and_in_the_clear() {
    let body = pattern(1 << 20);
    let sent = body.clone();
    let origin = Origin::start(move |_| Reply::new(200, &[IMMUTABLE], &sent)).await;
    let folder = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("cert.pem"), certified.cert.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    let files = folder.path().display();
    let listener =
        format!("address = \"127.0.0.1:0\", tls = {{ cert = \"{files}/cert.pem\", key = \"{files}/key.pem\" }}");
    let secure = TestEdge::with_listener(&listener, &paid(&[&origin], "")).await;
    let plain = TestEdge::paid(&[&origin]).await;
    for (edge, protocol, version) in [
        (&secure, "--http1.1", "1.1"),
        (&secure, "--http2", "2"),
        (&plain, "--http1.1", "1.1"),
        (&plain, "--http2-prior-knowledge", "2"),
    ] {
        let url = format!("{}/t/{}/v/a/x.m4s", edge.url, edge.token()).replace("127.0.0.1", "localhost");
        let out = folder.path().join("out");
        let output = tokio::process::Command::new("curl")
            .args(["-sS", "-o", out.to_str().unwrap(), "-w", "%{http_version} %{http_code}", protocol, "--cacert"])
            .arg(folder.path().join("cert.pem"))
            .arg(&url)
            .stderr(Stdio::inherit())
            .output()
            .await
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{version} 200"));
        assert!(std::fs::read(&out).unwrap() == body);
    }
}

#[tokio::test]
async fn a_route_with_a_bearer_and_one_without_anything() {
    let origin = Origin::start(|seen: &Seen| Reply::new(200, &[IMMUTABLE], &seen.target)).await;
    let toml = format!(
        "{}\n[[route]]\nprefix = \"/v/\"\npool = \"origin\"\nauth = \"bearer\"\nbearer = \"secret\"\n\
         [[route]]\nprefix = \"/open\"\npool = \"origin\"\nauth = \"none\"\n",
        pool(&[&origin], "auth = { bearer = \"towards the origin\" }").replace("auth = {", "#auth = {")
    );
    let edge = TestEdge::start(&toml).await;
    assert_eq!(edge.get("/v/a").await.code(), "unauthorized");
    assert_eq!(
        edge.send(Method::GET, "/v/a", &[("authorization", "Bearer wrong")]).await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(edge.send(Method::GET, "/v/a", &[("authorization", "Bearer secret")]).await.text(), "/v/a");
    assert_eq!(edge.get("/open?q=1").await.text(), "/open?q=1");
    assert_eq!(edge.get("/open?q=2").await.text(), "/open?q=2", "the query is part of the key");
    assert_eq!(edge.get("/opening").await.code(), "not_found", "whole segments");
    let answer = send(&edge.url, Method::POST, "/open", &[], "a body").await;
    assert_eq!(answer.text(), "/open");
    let posted = origin.seen().pop().unwrap();
    assert_eq!((posted.method.as_str(), posted.body.as_slice()), ("POST", b"a body".as_slice()));
}

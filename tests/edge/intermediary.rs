//! An intermediary before an origin that needs no token (RFC 9110, sections 7.6, 9.3 and 15.2; RFC 9111, sections 3.1,
//! 3.2, 3.5, 4.3.5 and 4.4): what is one client's alone, what ends here, what one answer may do to another.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::harness::*;
use crate::support::until_async;

#[tokio::test]
async fn what_is_for_one_alone_is_not_given_to_who_asked_meanwhile() {
    for (control, authorized, shared) in [
        ("max-age=60", false, true),
        ("max-age=60, no-store", false, false),
        ("max-age=60, private", false, false),
        ("max-age=60, private=\"x-user\"", false, false),
        ("max-age=60", true, false),
        ("max-age=60, proxy-revalidate", true, false),
        ("max-age=60, public", true, true),
        ("max-age=60, must-revalidate", true, true),
        ("s-maxage=60", true, true),
    ] {
        let go = Arc::new(Notify::new());
        let held = Arc::clone(&go);
        let origin = Origin::start(move |seen: &Seen| {
            let reply = Reply::new(200, &[("cache-control", control)], seen.field("x-user").unwrap_or("nobody"));
            match seen.field("x-user") {
                Some("first") => Reply([vec![Step::Until(Arc::clone(&held))], reply.0].into_iter().flatten().collect()),
                _ => reply,
            }
        })
        .await;
        let edge = Arc::new(TestEdge::open(&[&origin]).await);
        let ask = |user: &'static str| {
            let edge = Arc::clone(&edge);
            tokio::spawn(async move {
                let credentials = ("authorization", "Basic Zmlyc3Q6eA==");
                let fields = [("x-user", user), credentials];
                edge.send(Method::GET, "/x", &fields[..1 + usize::from(authorized && user == "first")]).await.text()
            })
        };
        let first = ask("first");
        until_async("the first to be on its way", Duration::from_secs(5), async || {
            (origin.count("/x") == 1).then_some(())
        })
        .await;
        let second = ask("second");
        until_async("both to wait or to be served", Duration::from_secs(5), async || {
            let waits = edge.metric("lyceum_edge_fills_open", &[]) >= 1.0;
            (waits && edge.metric("lyceum_front_connections", &[]) >= 2.0).then_some(())
        })
        .await;
        go.notify_one();
        assert_eq!(first.await.unwrap(), "first", "{control}");
        let given = second.await.unwrap();
        assert!(given == "second" || (shared && given == "first"), "{control}: {given}");
        let later = edge.send(Method::GET, "/x", &[("x-user", "third")]).await.text();
        assert_eq!(later == "third", !shared, "{control}: {later}");
    }
}

async fn raw(edge: &TestEdge, bytes: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(edge.url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut heard = String::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut heard)).await;
    heard
}

#[tokio::test]
async fn what_concerns_a_connection_ends_here() {
    let origin = Origin::start(|seen: &Seen| match seen.target.as_str() {
        "/switches" => Reply(vec![
            Step::Bytes(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_vec()),
            Step::Wait(Duration::from_secs(5)),
        ]),
        "/trailers" => Reply(vec![Step::Bytes(
            b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\ntrailer: x-late\r\n\r\n\
              4\r\nbody\r\n0\r\nx-late: 1\r\ncache-control: no-store\r\n\r\n"
                .to_vec(),
        )]),
        _ => Reply::new(200, &[("cache-control", "max-age=60")], seen.head.len().to_string()),
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    for method in ["TRACE", "CONNECT"] {
        let target = if method == "CONNECT" { "example.org:443" } else { "/x" };
        let heard = raw(
            &edge,
            &format!(
                "{method} {target} HTTP/1.1\r\nHost: example.org:443\r\nMax-Forwards: 5\r\nConnection: close\r\n\r\n"
            ),
        )
        .await;
        let status = heard.split(' ').nth(1).unwrap_or("");
        assert!(["405", "400", "501"].contains(&status) && !heard.contains("Max-Forwards"), "{method}: {heard}");
    }
    assert!(origin.seen().is_empty());

    // An upgrade is an offer, and one may do without (RFC 9110, section 7.8).
    let heard = raw(
        &edge,
        "GET /plain HTTP/1.1\r\nHost: a\r\nConnection: upgrade, http2-settings, close\r\nUpgrade: h2c, websocket\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\nTransfer-Encoding: chunked\r\nTrailer: x-late\r\n\r\n3\r\nget\r\n0\r\nx-late: 1\r\n\r\n",
    )
    .await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    let seen = origin.seen().pop().unwrap();
    for name in ["upgrade", "http2-settings", "trailer", "x-late", "transfer-encoding"] {
        assert!(seen.field(name).is_none(), "{name} in {}", seen.head);
    }
    assert!(seen.body.is_empty(), "a GET goes on without a body, which would be part of no key");
    for status in ["lyceum; fwd=uri-miss; fwd-status=200; stored; ttl=60", "lyceum; hit"] {
        let answer = edge.get("/trailers").await;
        assert_eq!((answer.text().as_str(), answer.field("cache-status")), ("body", status));
        assert!(answer.headers.get("x-late").is_none() && answer.headers.get("trailer").is_none(), "{answer:?}");
        assert_eq!(answer.field("cache-control"), "max-age=60", "a trailer is no header (RFC 9111, section 3.1)");
    }

    for method in [Method::GET, Method::POST] {
        let answer = edge.send(method.clone(), "/switches", &[("upgrade", "x"), ("connection", "upgrade")]).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (502, "origin_failed"), "{method}: 101 unasked");
    }
}

#[tokio::test]
async fn every_answer_that_is_passed_on_says_when_it_was_made() {
    let origin = Origin::start(|seen: &Seen| match seen.target.as_str() {
        "/dated" => Reply::new(200, &[("date", "Fri, 15 Jan 2027 07:00:00 GMT")], "x"),
        _ => Reply::new(200, &[], "x"),
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    // The edge's clock stands, the machine's does not.
    let now = "Fri, 15 Jan 2027 08:00:00 GMT";
    for (method, path, date) in [
        (Method::GET, "/undated", now),
        (Method::POST, "/undated", now),
        (Method::POST, "/dated", "Fri, 15 Jan 2027 07:00:00 GMT"),
    ] {
        assert_eq!(edge.send(method.clone(), path, &[]).await.field("date"), date, "{method} {path}");
    }
}

#[tokio::test]
async fn head_is_answered_by_what_a_get_stored_and_never_takes_its_place() {
    let origin = Origin::start(|seen: &Seen| {
        let fields = [("cache-control", "max-age=60"), ("etag", "\"1\""), ("x-a", "1")];
        match (seen.method.as_str(), seen.field("if-none-match")) {
            (_, Some(_)) => Reply::new(304, &fields, ""),
            (_, None) => Reply::new(200, &fields, "body"),
        }
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    for (method, seconds, body, status) in [
        (Method::HEAD, 0, "", "fwd=uri-miss"),
        (Method::GET, 1, "body", "hit"),
        (Method::HEAD, 1, "", "hit"),
        (Method::HEAD, 60, "", "fwd-status=304"),
        (Method::GET, 1, "body", "hit"),
    ] {
        edge.clock.advance(Duration::from_secs(seconds));
        let answer = edge.send(method.clone(), "/x", &[]).await;
        assert_eq!((answer.text().as_str(), answer.field("content-length")), (body, "4"), "{method}");
        assert!(answer.field("cache-status").contains(status) && answer.field("x-a") == "1", "{method}: {answer:?}");
    }
    // What a client's HEAD brought serves a GET too, once it has come whole.
    assert!(origin.seen().iter().all(|seen| seen.method == "GET"));
}

#[tokio::test]
async fn a_304_replaces_every_field_but_those_that_say_how_the_stored_body_lies() {
    let origin = Origin::start(|seen: &Seen| match seen.field("if-none-match") {
        None => Reply::new(
            200,
            &[("cache-control", "max-age=10"), ("etag", "\"1\""), ("content-type", "text/plain")],
            "body",
        ),
        Some(_) => Reply::new(
            304,
            &[
                ("cache-control", "max-age=100"),
                ("etag", "\"1\""),
                ("content-type", "text/vtt"),
                ("content-language", "de"),
                ("content-length", "9"),
                ("content-encoding", "br"),
                ("content-range", "bytes 0-1/9"),
                ("proxy-authenticate", "Basic"),
                ("connection", "x-hop"),
                ("x-hop", "1"),
            ],
            "",
        ),
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    edge.get("/x").await;
    edge.clock.advance(Duration::from_secs(20));
    for status in ["fwd-status=304", "lyceum; hit"] {
        let answer = edge.get("/x").await;
        assert!(answer.field("cache-status").contains(status), "{answer:?}");
        assert_eq!((answer.text().as_str(), answer.field("content-type")), ("body", "text/vtt"));
        assert_eq!((answer.field("content-language"), answer.field("content-length")), ("de", "4"));
        for name in ["content-encoding", "content-range", "proxy-authenticate", "x-hop"] {
            assert!(answer.headers.get(name).is_none(), "{name}");
        }
    }
}

#[tokio::test]
async fn an_answer_takes_away_what_it_names_only_where_no_token_is_needed_and_by_that_route_s_key() {
    let origin = Origin::start(|seen: &Seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("GET", _) => Reply::new(200, &[IMMUTABLE], "x"),
        (_, "/api/open") => Reply::new(303, &[("location", "/files/x?v=1")], ""),
        (_, "/api/paid") => Reply::new(303, &[("location", "/v/a/x.m4s")], ""),
        // Same host, another port: another origin.
        (_, _) => Reply::new(201, &[("location", "http://127.0.0.1:1/files/x")], ""),
    })
    .await;
    let open = |prefix: &str, more: &str| {
        format!("[[route]]\nprefix = \"{prefix}\"\npool = \"origin\"\nauth = \"none\"\n{more}")
    };
    let toml =
        paid(&[&origin], "") + &open("/api/", "") + &open("/files/", "cache_key_query = []\ncache_key_host = false\n");
    let edge = TestEdge::start(&toml).await;
    let paid = format!("/t/{}/v/a/x.m4s", edge.token());
    for (post, file, media) in [("/api/open", 2, 1), ("/api/paid", 2, 1), ("/api/port", 2, 1)] {
        edge.get("/files/x").await;
        assert_eq!(edge.get(&paid).await.status, 200);
        assert!(edge.send(Method::POST, post, &[]).await.status.as_u16() < 400);
        edge.get("/files/x").await;
        edge.get(&paid).await;
        assert_eq!((origin.count("/files/x"), origin.count("/v/a/x.m4s")), (file, media), "{post}");
    }
}

#[tokio::test]
async fn interim_answers_and_old_warnings_end_here() {
    let origin = Origin::start(|_| {
        let text = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
                    HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 1\r\n\r\nx";
        Reply(vec![Step::Bytes(text.into())])
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    for status in ["lyceum; fwd=uri-miss; fwd-status=200; stored; ttl=60", "lyceum; hit"] {
        let answer = edge.get("/x").await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str(), answer.field("cache-status")), (200, "x", status));
        assert!(answer.field("link").is_empty());
    }
    edge.clock.advance(Duration::from_secs(100));
    let stale = edge.send(Method::GET, "/x", &[("cache-control", "max-stale")]).await;
    assert!(stale.field("warning").is_empty() && stale.field("age") == "100", "{stale:?}");
}

#[tokio::test]
async fn hop_by_hop_fields_end_here_both_ways() {
    let origin = Origin::start(|_| {
        Reply::new(
            200,
            &[
                ("cache-control", "max-age=60"),
                ("connection", "x-hop"),
                ("x-hop", "1"),
                ("keep-alive", "5"),
                ("x-end", "1"),
            ],
            "x",
        )
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    let fields = [("connection", "x-mine, keep-alive"), ("x-mine", "1"), ("te", "trailers"), ("x-far", "1")];
    for _ in 0..2 {
        let answer = edge.send(Method::GET, "/x", &fields).await;
        assert!(answer.headers.get("x-hop").is_none() && answer.headers.get("keep-alive").is_none());
        assert_eq!(answer.field("x-end"), "1");
    }
    let seen = &origin.seen()[0];
    assert!(seen.field("x-mine").is_none() && seen.field("te").is_none());
    assert_eq!((seen.field("x-far"), seen.field("via")), (Some("1"), Some("1.1 lyceum")));
}

#[tokio::test]
async fn each_hop_is_told_and_an_options_goes_only_so_far() {
    let origin = Origin::start(|_| Reply::new(200, &[("allow", "GET, PURGE")], "")).await;
    let edge = TestEdge::open(&[&origin]).await;
    for (left, sent) in [("0", None), ("1", Some("0")), ("70", Some("69")), ("x", Some("x")), ("-1", Some("-1"))] {
        let before = origin.seen().len();
        let answer = edge.send(Method::OPTIONS, "/x", &[("max-forwards", left), ("via", "1.0 a, 1.1 b")]).await;
        let seen = origin.seen();
        let came = seen.get(before);
        assert_eq!(came.and_then(|seen| seen.field("max-forwards")), sent, "{left}");
        match came {
            Some(seen) => assert_eq!(seen.field("via"), Some("1.0 a, 1.1 b, 1.1 lyceum")),
            None => assert!(answer.status == 204 && answer.field("allow").contains("DELETE"), "{answer:?}"),
        }
    }
    // Other methods go as far as they have to.
    edge.send(Method::GET, "/x", &[("max-forwards", "0"), ("via", "1.1 b")]).await;
    let seen = origin.seen().pop().unwrap();
    assert_eq!((seen.field("max-forwards"), seen.field("via")), (Some("0"), Some("1.1 b, 1.1 lyceum")));
}

//! Origins that lie, break off and stand still: nothing wrong is stored, nothing short is passed off as whole.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::Notify;

use super::harness::*;

/// An answer of these very bytes, after which the connection ends.
fn raw(text: &str) -> Reply {
    Reply(vec![Step::Bytes(text.replace('\n', "\r\n").into_bytes()), Step::Break])
}

const FRESH: &str = "cache-control: max-age=600";

#[tokio::test]
async fn what_is_no_sound_answer_is_a_502_and_what_breaks_off_breaks_off() {
    let origin = Origin::start(|_| Reply::new(500, &[], "")).await;
    let edge = TestEdge::open(&[&origin]).await;
    let many = "x-y: z\n".repeat(150);
    let heads: [(&str, String); 10] = [
        ("two lengths", format!("HTTP/1.1 200 OK\n{FRESH}\ncontent-length: 5\ncontent-length: 6\n\nhello!")),
        ("a length that is none", format!("HTTP/1.1 200 OK\n{FRESH}\ncontent-length: five\n\nhello")),
        ("no HTTP", "SSH-2.0-OpenSSH\n\n".to_owned()),
        ("more fields than are taken", format!("HTTP/1.1 200 OK\n{FRESH}\n{many}content-length: 5\n\nhello")),
        (
            "a transfer coding beside chunked",
            format!("HTTP/1.1 200 OK\n{FRESH}\ntransfer-encoding: gzip, chunked\n\n5\nhello\n0\n\n"),
        ),
        (
            "chunked twice",
            format!(
                "HTTP/1.1 200 OK\n{FRESH}\ntransfer-encoding: chunked\ntransfer-encoding: chunked\n\n5\nhello\n0\n\n"
            ),
        ),
        ("a transfer coding alone", format!("HTTP/1.1 200 OK\n{FRESH}\ntransfer-encoding: gzip\n\nhello")),
        (
            "a length beside chunks",
            format!("HTTP/1.1 200 OK\n{FRESH}\ncontent-length: 3\ntransfer-encoding: chunked\n\n5\nhello\n0\n\n"),
        ),
        ("304 without a condition", format!("HTTP/1.1 304 X\n{FRESH}\netag: \"a\"\n\n")),
        (
            "206 without a range",
            format!("HTTP/1.1 206 X\n{FRESH}\ncontent-range: bytes 0-4/10\ncontent-length: 5\n\nhello"),
        ),
    ];
    for (n, (what, text)) in heads.into_iter().enumerate() {
        origin.now(move |_| raw(&text));
        let answer = edge.get(&format!("/head/{n}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_GATEWAY, "origin_failed"), "{what}");
        origin.now(|_| Reply::new(200, &[("cache-control", "max-age=600")], "sound"));
        assert_eq!(sound(&edge, &format!("/head/{n}")).await, "sound", "{what}");
    }
    let bodies: [(&str, String); 5] = [
        ("shorter than its length", format!("HTTP/1.1 200 OK\n{FRESH}\ncontent-length: 10\n\nhello")),
        ("chunks without their end", format!("HTTP/1.1 200 OK\n{FRESH}\ntransfer-encoding: chunked\n\n5\nhello\n")),
        ("a chunk cut short", format!("HTTP/1.1 200 OK\n{FRESH}\ntransfer-encoding: chunked\n\nff\nhello")),
        (
            "a chunk's length that is none",
            format!("HTTP/1.1 200 OK\n{FRESH}\ntransfer-encoding: chunked\n\n5\nhello\nxyz\n"),
        ),
        (
            "another rest than the one begun",
            format!("HTTP/1.1 200 OK\n{FRESH}\netag: \"a\"\ncontent-length: 10\n\nhello"),
        ),
    ];
    for (n, (what, text)) in bodies.into_iter().enumerate() {
        origin.now(move |seen: &Seen| match seen.field("range") {
            None => raw(&text),
            Some(_) => Reply::new(206, &[("etag", "\"b\""), ("content-range", "bytes 5-9/10")], "WRONG"),
        });
        assert_eq!(edge.get(&format!("/body/{n}")).await.body, None, "{what}");
        origin.now(|_| Reply::new(200, &[("cache-control", "max-age=600")], "sound"));
        assert_eq!(sound(&edge, &format!("/body/{n}")).await, "sound", "{what}");
    }
}

/// The next answer, once the origin is used again.
async fn sound(edge: &TestEdge, path: &str) -> String {
    crate::support::until_async("the origin to be used again", Duration::from_secs(20), async || {
        let answer = edge.get(path).await;
        (answer.status == StatusCode::OK).then(|| answer.text())
    })
    .await
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_may_be_short_and_is_not_stored() {
    let origin = Origin::start(|_| raw(&format!("HTTP/1.1 200 OK\n{FRESH}\n\nwho knows"))).await;
    let edge = TestEdge::open(&[&origin]).await;
    for _ in 0..2 {
        let answer = edge.get("/x").await;
        assert_eq!(answer.text(), "who knows");
        assert!(answer.field("cache-status").contains("detail=no_length"), "{answer:?}");
    }
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn more_than_its_length_is_cut_and_spoils_nothing_after_it() {
    let origin = Origin::start(|_| {
        Reply(vec![Step::Bytes(format!("HTTP/1.1 200 OK\r\n{FRESH}\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").into_bytes())])
    })
    .await;
    let edge = TestEdge::open(&[&origin]).await;
    for n in 0..5 {
        for _ in 0..2 {
            let answer = edge.get(&format!("/{n}")).await;
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "hello"));
        }
    }
}

#[tokio::test]
async fn codings_that_no_one_asked_for_reach_only_those_who_take_them() {
    let fields = [("cache-control", "max-age=600"), ("content-encoding", "gzip"), ("vary", "accept-encoding")];
    let origin = Origin::start(move |_| Reply::new(200, &fields, "no gzip really")).await;
    let edge = TestEdge::open(&[&origin]).await;
    for accepted in [None, Some("gzip, br"), Some("*")] {
        let fields: Vec<_> = accepted.iter().map(|value| ("accept-encoding", *value)).collect();
        let answer = edge.send(Method::GET, "/x", &fields).await;
        assert_eq!((answer.status, answer.field("content-encoding")), (StatusCode::OK, "gzip"), "{accepted:?}");
        assert!(answer.field("cache-status").ends_with("detail=content_coding"));
    }
    for refused in ["identity", "br", "gzip;q=0"] {
        let answer = edge.send(Method::GET, "/x", &[("accept-encoding", refused)]).await;
        assert_eq!(answer.code(), "origin_failed", "{refused}");
    }
    assert_eq!(origin.seen().len(), 6, "none was stored");
    assert!(origin.seen().iter().all(|seen| seen.field("accept-encoding") == Some("identity")));
}

#[tokio::test]
async fn a_trickle_is_passed_on_as_it_comes_and_given_up_when_it_is_too_thin() {
    let (go, body) = (Arc::new(Notify::new()), pattern(40));
    let (held, sent) = (Arc::clone(&go), body.clone());
    let origin = Origin::start(move |_| {
        let mut reply = Reply::head(40, &[IMMUTABLE]).bytes(&sent[..1]).then(Step::Until(Arc::clone(&held)));
        for byte in &sent[1..] {
            reply = reply.bytes([*byte]).then(Step::Wait(Duration::from_millis(5)));
        }
        reply
    })
    .await;
    let edge = TestEdge::paid(&[&origin]).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    let mut slow = begin(&edge.url, Method::GET, &path, &[], "").await;
    let first = slow.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, body[..1], "the first byte, long before the last");
    go.notify_waiters();
    assert_eq!(slow.into_body().collect().await.unwrap().to_bytes(), body[1..]);
    assert_eq!(edge.get(&path).await.field("cache-status"), "lyceum; hit");

    // One byte at a time for ever: never idle, and never done.
    let origin = Origin::start(|_| {
        let drop = || [Step::Bytes(b"x".to_vec()), Step::Wait(Duration::from_millis(20))];
        let mut steps = Reply::head(100_000, &[IMMUTABLE]).0;
        steps.extend((0..5000).flat_map(|_| drop()));
        Reply(steps)
    })
    .await;
    let toml = paid(&[&origin], "").replace("name = \"origin\"", "name = \"origin\"\nidle = \"300ms\"");
    let edge = TestEdge::start(&toml).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    let start = lyceum_core::time::monotonic();
    assert_eq!(edge.get(&path).await.body, None);
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(edge.metric("lyceum_edge_fills_total", &["broken_off"]), 1.0);
}

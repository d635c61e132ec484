//! Messages that two parties may read in two ways.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::*;

/// Sends bytes as they are; gives all that comes until the other side closes or falls silent.
async fn raw(edge: &TestEdge, bytes: &str) -> String {
    let address: SocketAddr = edge.url.rsplit('/').next().unwrap().parse().unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut out = Vec::new();
    let _ = tokio::time::timeout(std::time::Duration::from_millis(500), stream.read_to_end(&mut out)).await;
    String::from_utf8_lossy(&out).into_owned()
}

#[tokio::test]
async fn one_valid_host_or_none_at_all() {
    let origin = Origin::start(|_| Reply::new(200, &[IMMUTABLE], "media")).await;
    let edge = TestEdge::open(&[&origin]).await;
    let next = "GET /second HTTP/1.1\r\nHost: a\r\n\r\n";
    for (what, head) in [
        ("none", "GET /x HTTP/1.1\r\n"),
        ("two", "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n"),
        ("the same twice", "GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n"),
        ("with a user", "GET /x HTTP/1.1\r\nHost: u@a\r\n"),
        ("with a path", "GET /x HTTP/1.1\r\nHost: a/b\r\n"),
        ("with a blank", "GET /x HTTP/1.1\r\nHost: a b\r\n"),
        ("empty", "GET /x HTTP/1.1\r\nHost:\r\n"),
        ("another than the target's", "GET http://a/x HTTP/1.1\r\nHost: b\r\n"),
    ] {
        let out = raw(&edge, &format!("{head}\r\n{next}")).await;
        assert!(out.starts_with("HTTP/1.1 400 "), "{what}: {out}");
        assert_eq!(out.matches("HTTP/1.1 ").count(), 1, "{what}: the connection ends there: {out}");
    }
    assert!(origin.seen().is_empty());
    let good = raw(
        &edge,
        "GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(good.matches("HTTP/1.1 200 ").count(), 2, "{good}");
}

#[tokio::test]
async fn never_a_second_request_out_of_one() {
    let origin = Origin::start(|_| Reply::new(200, &[IMMUTABLE], "media")).await;
    let edge = TestEdge::open(&[&origin]).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (what, message) in [
        (
            "two lengths",
            format!(
                "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: {}\r\n\r\n{smuggled}",
                smuggled.len()
            ),
        ),
        (
            "length with chunked",
            format!(
                "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        (
            "chunked twice",
            format!("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "chunked not last",
            format!("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a blank before the colon",
            format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length : {}\r\n\r\n{smuggled}", smuggled.len()),
        ),
        (
            "a folded field",
            format!("POST /x HTTP/1.1\r\nHost: a\r\nX: a\r\n Content-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
        ),
        ("a bare CR", "GET /x HTTP/1.1\r\nHost: a\r\nX: a\rY: b\r\n\r\n".to_owned()),
        (
            "a bad chunk size",
            format!(
                "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        ("a negative length", format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n{smuggled}")),
        ("a length with a plus", format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n{smuggled}")),
    ] {
        raw(&edge, &message).await;
        assert_eq!(origin.count("/smuggled"), 0, "{what}");
    }
}

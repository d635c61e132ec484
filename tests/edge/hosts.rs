//! Messages that two parties may read in two ways.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::*;

/// Sends bytes as they are; gives all that comes until the other side closes, and whether it did.
async fn talk(edge: &TestEdge, bytes: &str) -> (String, bool) {
    let address: SocketAddr = edge.url.rsplit('/').next().unwrap().parse().unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    // The other side may close before it has read all.
    let _ = stream.write_all(bytes.as_bytes()).await;
    let mut out = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut out)).await.is_ok();
    (String::from_utf8_lossy(&out).into_owned(), closed)
}

async fn raw(edge: &TestEdge, bytes: &str) -> String {
    let (heard, closed) = talk(edge, bytes).await;
    assert!(closed, "{bytes} is answered, and the connection stays: {heard}");
    heard
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

/// The request behind each message of the table, which must never be answered.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// What is ambiguous, in a message up to its blank line and in what stands behind that.
#[rustfmt::skip]
const AMBIGUOUS: &[(&str, &str, &str)] = &[
    ("two lengths", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 36", ""),
    ("two lengths in one field", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 36", ""),
    ("length with chunked", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ("chunked with length", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
    ("chunked twice", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked", "0\r\n\r\n"),
    ("chunked in two fields", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ("chunked not last", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip", "0\r\n\r\n"),
    ("a coding beside chunked", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked", "0\r\n\r\n"),
    ("a coding that is none", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked", "0\r\n\r\n"),
    ("chunked behind a vertical tab", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked", "0\r\n\r\n"),
    ("chunked to HTTP/1.0", "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ("a blank before the colon", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length : 36", ""),
    ("a tab before the colon", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length\t: 36", ""),
    ("a folded field", "POST /x HTTP/1.1\r\nHost: a\r\nX: a\r\n Content-Length: 36", ""),
    ("a field folded by a tab", "POST /x HTTP/1.1\r\nHost: a\r\nX: a\r\n\tContent-Length: 36", ""),
    ("a blank before the first field", "POST /x HTTP/1.1\r\n Host: a", ""),
    ("a field without a name", "GET /x HTTP/1.1\r\nHost: a\r\n: b", ""),
    ("a field without a colon", "GET /x HTTP/1.1\r\nHost: a\r\nX", ""),
    ("a bare CR in a value", "GET /x HTTP/1.1\r\nHost: a\r\nX: a\rY: b", ""),
    ("a bare CR for a line's end", "GET /x HTTP/1.1\rHost: a", ""),
    ("a NUL in a value", "GET /x HTTP/1.1\r\nHost: a\r\nX: a\0b", ""),
    ("a negative length", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1", ""),
    ("a length with a plus", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +36", ""),
    ("a length in hexadecimal", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0x24", ""),
    ("a length that is no number", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: abc", ""),
    ("a length beyond every number", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551652", ""),
    ("a chunk size with a prefix", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("a negative chunk size", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", "-5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size beyond every number", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("no chunk size", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", "\r\nhello\r\n0\r\n\r\n"),
    ("a chunk longer than its size", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", "3\r\nhello\r\n0\r\n\r\n"),
    ("a chunk's end that is a bare LF", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", "5\r\nhello\n0\r\n\r\n"),
    ("two blanks in the request line", "GET  /x HTTP/1.1\r\nHost: a", ""),
    ("a version that is none", "GET /x HTTP/1.2\r\nHost: a", ""),
    ("no version", "GET /x\r\nHost: a", ""),
    ("a method that is none", "G{T /x HTTP/1.1\r\nHost: a", ""),
    ("a target that is none", "GET x HTTP/1.1\r\nHost: a", ""),
    ("another host in the target", "GET http://b/x HTTP/1.1\r\nHost: a", ""),
    ("a target of another scheme", "GET ftp://a/x HTTP/1.1\r\nHost: a", ""),
    ("a user in the target", "GET http://u@a/x HTTP/1.1\r\nHost: a", ""),
    ("an absolute target without a host", "GET http://a/x HTTP/1.1", ""),
];

#[tokio::test]
async fn never_a_second_request_out_of_one() {
    // A pool of its own answers what went through as far as it could be read.
    let origin = Origin::start(|_| Reply::new(200, &[IMMUTABLE], "media")).await;
    let edge = TestEdge::open(&[&origin]).await;
    let mut wrong = Vec::new();
    for (what, head, body) in AMBIGUOUS {
        let (heard, closed) = talk(&edge, &format!("{head}\r\n\r\n{body}{SMUGGLED}")).await;
        let answers = heard.matches("HTTP/1.1 ").count() + heard.matches("HTTP/1.0 ").count();
        // hyper takes the length from beside chunked before anyone sees it, which RFC 9112 (section 6.1) allows.
        let may_pass = what.contains("with length") || what.contains("length with");
        let refused = heard.starts_with("HTTP/1.1 400 ") || heard.starts_with("HTTP/1.0 400 ");
        if !closed || answers > 1 || !(refused || may_pass) || origin.count("/smuggled") > 0 {
            wrong.push(format!(
                "{what}: {} closed={closed} {}",
                origin.count("/smuggled"),
                heard.lines().next().unwrap_or("")
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), AMBIGUOUS.len(), wrong.join("\n"));
    // Six bodies that were none, more than it takes to be left alone: none of that is the origin's fault.
    assert_eq!(edge.metric("lyceum_upstream_requests_total", &["result=\"client\""]), 6.0);
    assert_eq!(edge.metric("lyceum_upstream_origin_up", &[]), 1.0);
}

#[tokio::test]
async fn the_time_that_a_client_takes_for_its_body_is_not_the_origin_s() {
    let origin = Origin::start(|_| Reply::new(200, &[], "taken")).await;
    let route = "[[route]]\nprefix = \"/\"\npool = \"origin\"\nauth = \"none\"\n";
    let edge =
        TestEdge::start(&format!("{}\n{route}", pool(&[&origin], "first_byte = \"100ms\"\nconnect = \"100ms\""))).await;
    let address: SocketAddr = edge.url.rsplit('/').next().unwrap().parse().unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\na").await.unwrap();
    // A slow client: six times what the origin may take for its first byte.
    tokio::time::sleep(Duration::from_millis(600)).await;
    stream.write_all(b"b").await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 ") && heard.ends_with("taken"), "{heard}");
    assert_eq!(origin.seen().last().unwrap().body, b"ab");
    assert_eq!(edge.metric("lyceum_upstream_requests_total", &["\"timeout\""]), 0.0);
}

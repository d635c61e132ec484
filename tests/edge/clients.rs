//! What clients do beside plain GET: HTTP/3, preflights, expectations, requests sent ahead.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http::{Method, StatusCode};
use lyceum_server::TlsFiles;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::harness::*;
use crate::server::http3;

const LENGTH: usize = 5 << 20;

async fn media() -> Origin {
    Origin::start(|seen: &Seen| {
        let body = if seen.target.ends_with("big.m4s") { pattern(LENGTH) } else { b"media".to_vec() };
        Reply::new(200, &[IMMUTABLE, ("content-type", "video/mp4"), ("etag", "\"e\"")], body)
    })
    .await
}

pub fn certificate(folder: &std::path::Path) -> TlsFiles {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = TlsFiles { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn http_3_is_served_as_the_other_versions_are() {
    let origin = media().await;
    let folder = tempfile::tempdir().unwrap();
    let files = certificate(folder.path());
    let listener = format!(
        "address = \"127.0.0.1:0\", tls = {{ cert = {:?}, key = {:?} }}, http3 = true",
        files.cert.display().to_string(),
        files.key.display().to_string()
    );
    let edge = TestEdge::with_listener(&listener, &paid(&[&origin], "")).await;
    let port: u16 = edge.url.rsplit(':').next().unwrap().parse().unwrap();
    let good = edge.token();
    let bound = edge.sign(|claims| drop(claims.extra.insert("cdniip".to_owned(), "192.0.2.1".into())));
    let uri = format!("regex:https://localhost:{port}/v/a/.*");
    let contained = edge.sign(|claims| drop(claims.extra.insert("cdniuc".to_owned(), uri.into())));
    let big = format!("/t/{good}/v/a/big.m4s");
    let first = http3::ask(port, &files.cert, json!([{ "path": big }])).await.remove(0);
    let whole = pattern(LENGTH);
    let hash = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(
        (&first["status"], &first["length"], &first["sha256"]),
        (&json!(200), &json!(LENGTH), &json!(hash(&whole))),
        "{first}"
    );
    assert_eq!(first["headers"]["cache-control"], "private, max-age=31536000, immutable");

    let report = "{\"e\":\"ps\",\"sta\":\"p\",\"sid\":\"s\",\"ts\":1,\"v\":2}\n";
    let answers = http3::ask(
        port,
        &files.cert,
        json!([
            { "path": big },
            { "path": big, "headers": { "range": "bytes=1000000-1999999" } },
            { "path": big, "headers": { "range": "bytes=9999999-" } },
            { "path": big, "headers": { "if-none-match": "\"e\"" } },
            { "path": format!("/t/{contained}/v/a/x.m4s") },
            { "path": format!("/t/{good}/cmcd"), "method": "POST", "body": report },
            { "path": "/v/a/x.m4s" },
            { "path": format!("/t/{bound}/v/a/x.m4s") },
            { "path": format!("/t/{good}/v/a/../b/x.m4s") },
            { "path": format!("/t/{good}/v/a/x.m4s"), "method": "POST", "body": "x" },
            { "path": "/v/a/x.m4s", "method": "OPTIONS", "headers": { "origin": "https://a", "access-control-request-method": "GET" } },
        ]),
    )
    .await;
    let code = |n: usize| {
        serde_json::from_str::<serde_json::Value>(answers[n]["text"].as_str().unwrap()).unwrap()["code"].clone()
    };
    let statuses: Vec<u64> = answers.iter().map(|answer| answer["status"].as_u64().unwrap_or(0)).collect();
    assert_eq!(statuses, [200, 206, 416, 304, 200, 204, 401, 403, 400, 405, 204], "{answers:#?}");
    assert_eq!(answers[0]["sha256"], json!(hash(&whole)));
    assert_eq!(answers[1]["sha256"], json!(hash(&whole[1_000_000..2_000_000])));
    assert_eq!(answers[1]["headers"]["content-range"], format!("bytes 1000000-1999999/{LENGTH}"));
    assert_eq!(
        (code(6), code(7), code(8)),
        (json!("token_missing"), json!("token_wrong_client"), json!("ambiguous_path"))
    );
    assert_eq!(origin.count("/v/a/big.m4s"), 1, "one cache for all versions");
}

#[tokio::test]
async fn a_page_may_send_cmcd_in_fields_after_a_preflight_without_a_token() {
    let origin = media().await;
    let edge = TestEdge::paid(&[&origin]).await;
    let asks = [
        ("origin", "https://shop.example"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "cmcd-object,cmcd-request,cmcd-session,cmcd-status,range"),
    ];
    for path in ["/v/a/x.m4s", "/t/none/v/a/x.m4s", "/cmcd", "/t/none/cmcd"] {
        let answer = edge.send(Method::OPTIONS, path, &asks).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{path}");
        assert_eq!(answer.field("access-control-allow-origin"), "*");
        assert_eq!(answer.field("access-control-max-age"), "7200");
        let allowed = answer.field("access-control-allow-headers");
        for field in asks[2].1.split(',').chain(["authorization", "content-type"]) {
            assert!(allowed.split(", ").any(|name| name == field), "{field}");
        }
    }
    // Of the server as a whole, and what it does not do.
    let heard = raw(&edge, "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned()).await;
    assert!(heard.starts_with("HTTP/1.1 204") && heard.contains("\r\nallow: GET, HEAD, OPTIONS"), "{heard}");
    for method in ["CONNECT a:80", "TRACE /v/a/x.m4s"] {
        let heard = raw(&edge, format!("{method} HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n")).await;
        assert!(heard.starts_with("HTTP/1.1 405"), "{method}: {heard}");
    }
    let plain = edge.send(Method::OPTIONS, "/v/a/x.m4s", &[]).await;
    assert_eq!((plain.status, plain.field("allow")), (StatusCode::NO_CONTENT, "GET, HEAD, POST, OPTIONS"));
    assert!(origin.seen().is_empty());
}

/// Speaks raw bytes, and gives what comes back until the other side closes.
async fn raw(edge: &TestEdge, bytes: String) -> String {
    let address = edge.url.trim_start_matches("http://").to_owned();
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut heard = String::new();
        let _ = stream.read_to_string(&mut heard);
        heard
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_ahead_are_answered_in_their_order() {
    let origin = media().await;
    let edge = TestEdge::paid(&[&origin]).await;
    let token = edge.token();
    let ask = |method: &str, path: &str, more: &str| format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    let path = format!("/t/{token}/v/a/x.m4s");
    let talk = [
        ask("GET", &path, ""),
        ask("HEAD", &path, ""),
        ask("GET", "/v/a/x.m4s", ""),
        ask("GET", &path, "Range: bytes=1-2\r\n"),
        ask("GET", &path, "Connection: close\r\n"),
    ];
    let heard = raw(&edge, talk.concat()).await;
    // A body has no line end behind it: the next status may stand on its line.
    let all: Vec<&str> = heard.match_indices("HTTP/1.1 ").map(|(at, _)| &heard[at + 9..at + 12]).collect();
    assert_eq!(all, ["200", "200", "401", "206", "200"], "{heard}");
    assert!(heard.ends_with("media"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expectation_is_met_before_the_body_comes() {
    let origin = media().await;
    let edge = TestEdge::paid(&[&origin]).await;
    let token = edge.token();
    let head = format!(
        "POST /t/{token}/cmcd HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    let address = edge.url.trim_start_matches("http://").to_owned();
    let heard = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut first = [0; 25];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"{}").unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        heard
    })
    .await
    .unwrap();
    assert!(heard.starts_with("HTTP/1.1 204"), "{heard}");
    // A refusal comes without asking for the body.
    let refused = raw(
        &edge,
        "POST /cmcd HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
            .to_owned(),
    )
    .await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_refused_as_everything_is() {
    let origin = media().await;
    let limits = "[limits]\nrequests_per_client = 1\nrequests_burst = 2\nexempt = []\n";
    let edge = TestEdge::start(&format!("{}{limits}", paid(&[&origin], ""))).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    assert_eq!(edge.get(&path).await.status, StatusCode::OK);
    assert_eq!(edge.get(&path).await.status, StatusCode::OK);
    let refused = edge.get(&path).await;
    assert_eq!((refused.status, refused.code().as_str()), (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"));
    assert_eq!((refused.field("retry-after"), refused.field("access-control-allow-origin")), ("1", "*"));
    assert_eq!(edge.metric("lyceum_edge_refusals_total", &["too_many_requests"]), 1.0);
    assert_eq!(edge.metric("lyceum_edge_requests_total", &["429"]), 1.0);
}

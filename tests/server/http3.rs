//! HTTP/3, asked by a real client of other people's (aioquic).

use std::process::Stdio;
use std::time::Duration;

use lyceum_core::shutdown::Shutdown;
use lyceum_server::{Http3, Limits, Listen, Server};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::{BIG, Served, certificate, curl, serve_as};
use crate::support::repository;

/// Sends `requests` at once over one connection, and gives the answers in their order.
pub async fn ask(port: u16, ca: &std::path::Path, requests: Value) -> Vec<Value> {
    let python = repository(".cache/python/bin/python3");
    assert!(python.exists(), "{} is missing: run scripts/setup test", python.display());
    let mut client = tokio::process::Command::new(python)
        .arg(repository("tests/server/http3.py"))
        .args(["127.0.0.1", &port.to_string()])
        .arg(ca)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python runs");
    let mut stdin = client.stdin.take().expect("a pipe");
    stdin.write_all(requests.to_string().as_bytes()).await.expect("a write");
    drop(stdin);
    let output = client.wait_with_output().await.expect("python ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"))
}

pub fn listen(files: &lyceum_server::TlsFiles, http3: Value) -> Value {
    json!({ "address": "127.0.0.1:0", "tls": { "cert": files.cert, "key": files.key }, "http3": http3 })
}

async fn get(served: &Served, files: &lyceum_server::TlsFiles, path: &str) -> Value {
    ask(served.address.port(), &files.cert, json!([{ "path": path }])).await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_speaks_all_versions_and_says_so() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let files = certificate(folder.path());
    let served = serve_as(listen(&files, json!(true)), Limits::default());
    let port = served.address.port();
    let answer = get(&served, &files, "/a").await;
    assert_eq!(answer["text"], "HTTP/3.0 tls=true 127.0.0.1 /a\n", "{answer}");
    assert!(answer["headers"].get("alt-svc").is_none());
    assert!(answer["headers"]["date"].as_str().is_some_and(|date| date.ends_with(" GMT")), "{answer}");
    let ca = files.cert.display().to_string();
    for version in ["--http1.1", "--http2"] {
        let told = curl(&["-i", version, "--cacert", &ca, &format!("https://localhost:{port}/")]).await;
        assert!(told.contains(&format!("alt-svc: h3=\":{port}\"; ma=86400\r\n")), "{told}");
    }
    let advertised = serve_as(listen(&files, json!({ "advertise_port": 443 })), Limits::default());
    let told = curl(&["-i", "--cacert", &ca, &advertised.url.replace("127.0.0.1", "localhost")]).await;
    assert!(told.contains("alt-svc: h3=\":443\"; ma=86400\r\n"), "{told}");
    let off = serve_as(listen(&files, json!(false)), Limits::default());
    let told = curl(&["-i", "--cacert", &ca, &off.url.replace("127.0.0.1", "localhost")]).await;
    assert!(!told.contains("alt-svc"), "off unless it is asked for");
    let plain: Listen = serde_json::from_value(json!({ "address": "127.0.0.1:0", "http3": true })).expect("a listener");
    assert_eq!(plain.http3, Http3::On { advertise_port: None });
    let error = Server::bind(&[plain], &Limits::default(), &prometheus::Registry::new()).err().expect("no certificate");
    assert!(error.to_string().contains("http3 needs tls"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_many_streams_and_clients_that_give_up() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let files = certificate(folder.path());
    let served = serve_as(listen(&files, json!(true)), Limits::default());
    let mut requests = vec![
        json!({ "path": "/big" }),
        json!({ "path": "/big", "cancel": 1 }),
        json!({ "path": "/big", "method": "HEAD" }),
    ];
    requests.extend((0..100).map(|n| json!({ "path": format!("/{n}") })));
    let answers = ask(served.address.port(), &files.cert, json!(requests)).await;
    assert_eq!(
        (answers[0]["status"].as_u64(), answers[0]["length"].as_u64()),
        (Some(200), Some(BIG as u64)),
        "{}",
        answers[0]
    );
    assert_eq!(answers[1], json!({ "cancelled": true }));
    assert_eq!((answers[2]["status"].as_u64(), answers[2]["length"].as_u64()), (Some(200), Some(0)));
    for (n, answer) in answers[3..].iter().enumerate() {
        assert_eq!(answer["text"], format!("HTTP/3.0 tls=true 127.0.0.1 /{n}\n"));
    }
    served.none_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http_3_forbids_or_a_limit_refuses_is_not_handed_on() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let files = certificate(folder.path());
    let limits = Limits {
        requests_per_client: 1,
        requests_burst: 3,
        header_fields: 20,
        exempt: Vec::new(),
        ..Limits::default()
    };
    let served = serve_as(listen(&files, json!(true)), limits);
    let fields: serde_json::Map<String, Value> = (0..30).map(|n| (format!("x-{n}"), "a".into())).collect();
    let requests = json!([
        { "path": "/a", "headers": { "connection": "close" } },
        { "path": "/a", "headers": { "transfer-encoding": "chunked" } },
        { "path": "/a", "headers": fields },
        { "path": "/a", "method": "POST", "body": "four", "headers": { "content-length": "3" } },
    ]);
    let answers = ask(served.address.port(), &files.cert, requests).await;
    assert_eq!(answers[0]["reset"], 0x10e, "H3_MESSAGE_ERROR: {answers:?}");
    assert_eq!(answers[1]["reset"], 0x10e);
    assert_eq!(answers[2]["status"], 431);
    assert!(answers[3].get("status").is_none_or(|status| status != 200), "{answers:?}");
    let asked = json!(vec![json!({ "path": "/a" }); 6]);
    let answers = ask(served.address.port(), &files.cert, asked).await;
    let refused: Vec<&Value> = answers.iter().filter(|answer| answer["status"] == 429).collect();
    assert!(refused.len() >= 2, "{answers:?}");
    assert!(refused.iter().all(|answer| answer["headers"]["retry-after"] == "1"));
    served.counted("requests_per_client").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_end_and_new_certificates_are_taken() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let files = certificate(folder.path());
    let listen: Listen = serde_json::from_value(listen(&files, json!(true))).expect("a listener");
    let server = Server::bind(&[listen], &Limits::default(), &prometheus::Registry::new()).expect("a free port");
    let port: u16 = server.urls()[0].rsplit(':').next().expect("a port").parse().expect("a port");
    let reload = server.tls();
    let shutdown = Shutdown::new();
    let echo = super::Echo::default();
    let done = tokio::spawn(server.serve(echo.clone(), shutdown.clone()));
    let former = folder.path().join("former.pem");
    std::fs::copy(&files.cert, &former).expect("a copy");
    assert_eq!(ask(port, &former, json!([{ "path": "/" }])).await[0]["status"], 200);
    certificate(folder.path());
    reload.reload().expect("the new certificate is good");
    let start = lyceum_core::time::monotonic();
    while ask(port, &files.cert, json!([{ "path": "/" }])).await[0]["status"] != 200 {
        assert!(start.elapsed() < Duration::from_secs(20), "the new certificate is not shown");
    }
    assert!(ask(port, &former, json!([{ "path": "/" }])).await[0].get("refused").is_some());

    // A drain finishes what is under way, and takes nothing new.
    let ca = files.cert.clone();
    let asking = tokio::spawn(async move { ask(port, &ca, json!([{ "path": "/slow" }])).await });
    echo.asked.notified().await;
    shutdown.begin();
    done.await.expect("the listeners end");
    echo.go.notify_one();
    assert_eq!(asking.await.expect("the client ends")[0]["status"], 200);
    assert!(shutdown.drained(Duration::from_secs(10)).await);
}

//! The log never stops what serves: its reader may stand still.

use std::io::Read as _;
use std::process::Command;
use std::time::Duration;

use http::{Method, StatusCode};

use super::harness::{Origin, Reply, Step, pool, send};
use crate::support::process::Role;
use crate::support::{free_port, program, until_async};

const PATIENCE: Duration = Duration::from_secs(20);

/// An edge whose configuration, with one pool before everything, lies in `folder`, and its operators' listener.
fn configured(folder: &std::path::Path, origin: &Origin) -> (std::path::PathBuf, String) {
    let (file, admin) = (folder.join("edge.toml"), free_port());
    let listen = format!("listen = [{{ address = \"127.0.0.1:0\" }}]\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n");
    let route = "[[route]]\nprefix = \"/\"\npool = \"origin\"\nauth = \"none\"\n";
    std::fs::write(&file, format!("{listen}{}{route}", pool(&[origin], "attempts = 1\neject_after = 1000\n"))).unwrap();
    (file, format!("http://127.0.0.1:{admin}"))
}

/// What fails is logged with a long path.
async fn origin() -> Origin {
    Origin::start(|seen| match seen.target.contains("good") {
        true => Reply::new(200, &[("cache-control", "max-age=600")], "good"),
        false => Reply(vec![Step::Break]),
    })
    .await
}

async fn dropped(admin: &str, reason: &str) -> f64 {
    let line = format!("lyceum_log_dropped_lines_total{{reason=\"{reason}\"}} ");
    let text = send(admin, Method::GET, "/metrics", &[], "").await.text();
    text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).expect("the metric is there")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stands_still_stops_neither_serving_nor_the_end() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let (file, admin) = configured(folder.path(), &origin);
    let (unread, log) = std::io::pipe().unwrap();
    let mut command = Command::new(program("lyceum"));
    command.args(["edge", "--log-rate", "0", "--log-queue", "64KiB", "--exit-with-stdin", "--config"]).arg(&file);
    let mut edge = Role::begin("edge", command.stderr(log));
    drop(command);
    let get = async |path: &str| send(edge.url(), Method::GET, path, &[], "").await.status;
    assert_eq!(get("/good").await, StatusCode::OK);
    let long = "x".repeat(4000);
    until_async("a queue that is full", PATIENCE, async || {
        assert_eq!(get(&format!("/bad{long}")).await, StatusCode::BAD_GATEWAY);
        (dropped(&admin, "queue_full").await >= 5.0).then_some(())
    })
    .await;
    assert_eq!((get("/good").await, get("/good-too").await), (StatusCode::OK, StatusCode::OK), "a hit and a miss");
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(send(&admin, Method::GET, probe, &[], "").await.status, StatusCode::OK);
    }
    edge.process.signal("TERM");
    assert!(edge.process.ended(Duration::from_secs(10)).success());
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_one_kind_have_a_rate_and_the_last_lines_are_written() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let (file, admin) = configured(folder.path(), &origin);
    let (mut written, log) = std::io::pipe().unwrap();
    let mut command = Command::new(program("lyceum"));
    command.args(["--log-format", "json", "edge", "--log-rate", "1", "--exit-with-stdin", "--config"]).arg(&file);
    let mut edge = Role::begin("edge", command.stderr(log));
    drop(command);
    for n in 0..40 {
        send(edge.url(), Method::GET, &format!("/bad{n}"), &[], "").await;
    }
    let left_out = dropped(&admin, "rate").await;
    assert!(left_out >= 10.0, "{left_out} of 40 lines");
    edge.process.signal("TERM");
    assert!(edge.process.ended(Duration::from_secs(10)).success());
    let mut text = String::new();
    written.read_to_string(&mut text).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    assert!((10..30).contains(&of("fetch failed").len()), "a burst of ten, then one a second: {text}");
    let summary = of("log lines of one kind were left out");
    let counted: u64 = summary
        .iter()
        .filter(|line| line["kind"] == "fetch failed")
        .map(|line| line["lines"].as_u64().expect("a number"))
        .sum();
    assert_eq!(of("fetch failed").len() as u64 + counted, 40, "what was left out is said: {text}");
    assert_eq!(of("draining").len(), 1, "another kind is not touched");
}

//! `lyceum-load viewers` tells the truth: its figures hang together and agree with what the edge counted, and what an
//! edge refuses is told as refused.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lyceum_core::time::monotonic;
use serde_json::{Value, json};

use crate::support::demo::{self, Demo};
use crate::support::lessons::{api, curl, recording};
use crate::support::process::{Process, signal};
use crate::support::{heavy, program, until};

/// A run's exit code, its report and its table.
struct Told {
    code: Option<i32>,
    report: Value,
    table: String,
}

impl Told {
    fn number(&self, pointer: &str) -> f64 {
        let value = self.report.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no {pointer} in {}", self.report))
    }
}

fn viewers(arguments: &[&str]) -> Told {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("report.json");
    let output = Command::new(program("lyceum-load")).arg("viewers").args(arguments).arg("--json").arg(&json).output();
    let output = output.expect("lyceum-load runs");
    let report = std::fs::read(&json).map(|text| serde_json::from_slice(&text).expect("the report is JSON"));
    Told {
        code: output.status.code(),
        report: report.unwrap_or_default(),
        table: String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    }
}

/// The sum of a counter over its labels, as the first edge tells it.
fn counted(demo: &Demo, metric: &str) -> f64 {
    let text = curl(&[&format!("{}/metrics", demo.text("/edge_admins/0"))]).body;
    let text = String::from_utf8(text).expect("metrics are text");
    let of = |line: &&str| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values = text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

#[test]
fn figures_hang_together_and_agree_with_the_edge() {
    let demo = demo::shared();
    let _alone = heavy();
    let url = demo.text("/playback/url");
    let before = ["lyceum_edge_requests_total", "lyceum_edge_response_bytes_total"].map(|m| counted(demo, m));
    let told = viewers(&["--url", &url, "--viewers", "4", "--duration", "15s"]);
    let after = ["lyceum_edge_requests_total", "lyceum_edge_response_bytes_total"].map(|m| counted(demo, m));
    assert_eq!(told.code, Some(0), "{}", told.table);

    let sessions = told.number("/sessions/started");
    assert!(sessions >= 4.0 && told.number("/sessions/played") == sessions && told.number("/sessions/failed") == 0.0);
    assert_eq!(told.report["errors"], json!([]), "{}", told.table);
    let startup = ["/startup_seconds/p50", "/startup_seconds/p90", "/startup_seconds/p99"].map(|p| told.number(p));
    assert!(startup.is_sorted() && startup[0] > 0.001 && startup[2] < 5.0, "{startup:?}");
    assert_eq!(told.number("/startup_seconds/count"), sessions);

    // Each of the four viewers spent the run starting, playing or waiting, and nothing else.
    let (played, stalled) = (told.number("/playback/played_seconds"), told.number("/playback/rebuffer_seconds"));
    let starting = told.number("/startup_seconds/mean") * sessions;
    let spent = played + stalled + starting;
    assert!((spent / (4.0 * told.number("/seconds")) - 1.0).abs() < 0.05, "{spent} seconds: {}", told.table);
    assert!(told.number("/playback/rebuffer_ratio") < 0.2, "{}", told.table);

    let requests = |kind: &str| told.number(&format!("/requests/{kind}/count"));
    assert_eq!(requests("multivariant"), sessions);
    assert!(requests("video") >= 4.0 * 4.0 && requests("audio") >= 4.0 * 2.0, "{}", told.table);
    assert!(requests("init") >= 2.0 * sessions, "pictures and sound have an init segment each");
    assert!(told.number("/reports/sent") >= 3.0 * sessions && told.number("/reports/failed") == 0.0);
    let hits = told.number("/cache/hit");
    assert!(hits > 0.0, "four viewers of one lesson hit the cache: {}", told.report["cache"]);
    let heights = told.report["fetched_seconds_by_height"].as_object().unwrap();
    assert!(!heights.is_empty() && !heights.contains_key("0"), "{heights:?}");

    let (asked, bytes) = (after[0] - before[0], after[1] - before[1]);
    let answered: f64 = ["multivariant", "playlist", "init", "video", "audio", "report"].map(requests).iter().sum();
    assert!(
        asked >= answered && asked < answered * 1.2 + 20.0,
        "the edge counted {asked} requests, viewers {answered}"
    );
    let seen = told.number("/bytes");
    // A segment under way when the run ends is delivered in part and not counted.
    assert!(bytes >= seen && bytes < seen * 1.3 + 2e6, "the edge delivered {bytes} bytes, viewers took {seen}");
    assert!(told.table.contains("start-up") && told.table.contains("rebuffering"), "{}", told.table);
    let token = url.split("/t/").nth(1).unwrap().split('/').next().unwrap();
    assert!(!told.table.contains(token) && !told.report.to_string().contains(token), "the token is not told");
}

#[test]
fn who_is_refused_is_told_so() {
    let demo = demo::shared();
    let _alone = heavy();
    let url = demo.text("/playback/url");
    let (edge, rest) = url.split_once("/t/").unwrap();
    let (token, path) = rest.split_once('/').unwrap();
    let changed = format!("{edge}/t/{}AAAAAAAA/{path}", &token[..token.len() - 8]);
    let begun = monotonic();
    let told = viewers(&["--url", &changed, "--viewers", "3", "--duration", "60s"]);
    assert_eq!(told.code, Some(1), "{}", told.table);
    assert!(begun.elapsed() < Duration::from_secs(20), "all have left long before the run's time is over");
    assert_eq!(told.number("/sessions/failed"), 3.0);
    assert_eq!(told.number("/playback/played_seconds"), 0.0);
    assert_eq!(told.number("/bytes"), 0.0, "not one byte of media");
    let refused = json!({"request": "multivariant", "status": 403, "code": "token_bad_signature", "count": 3});
    let errors = told.report["errors"].as_array().unwrap();
    assert!(errors.contains(&refused), "{errors:?}");
    assert!(told.table.contains("token_bad_signature"), "{}", told.table);

    let missing = viewers(&["--url", &format!("{edge}/{path}"), "--viewers", "1", "--duration", "60s"]);
    assert_eq!(missing.code, Some(1), "{}", missing.table);
    assert_eq!(missing.report["errors"][0]["code"], "token_missing", "{}", missing.table);
}

#[test]
fn an_edge_that_is_not_there_is_told_so() {
    let told = viewers(&[
        "--url",
        "http://127.0.0.1:1/v/x/master.m3u8",
        "--viewers",
        "2",
        "--duration",
        "60s",
        "--retries",
        "1",
    ]);
    assert_eq!(told.code, Some(1), "{}", told.table);
    assert_eq!(told.report["errors"][0]["code"], "unreachable");
    assert_eq!(told.report["errors"][0]["count"], 4, "two viewers, two tries each: {}", told.table);
    assert!(told.table.contains("127.0.0.1:1"), "{}", told.table);
}

#[test]
fn a_wrong_command_line_is_told_before_anything_runs() {
    for (arguments, word) in [
        (&["--url", "ftp://x/y"][..], "http"),
        (&["--url", "http://x/y", "--duration", "1"], "2s"),
        (&["--url", "http://x/y", "--viewers", "0"], "1..=20000"),
        (&["--viewers", "3"], "--url"),
    ] {
        let told = viewers(arguments);
        assert_eq!(told.code, Some(2), "{arguments:?}: {}", told.table);
        assert!(told.table.contains(word), "{arguments:?}: {}", told.table);
    }
}

#[test]
fn a_signal_ends_a_run_early_with_what_was_seen() {
    let demo = demo::shared();
    let _alone = heavy();
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("report.json");
    let mut command = Command::new(program("lyceum-load"));
    command.args(["viewers", "--url", &demo.text("/playback/url"), "--viewers", "2", "--duration", "1h", "--json"]);
    let mut process = Process::start(command.arg(&json));
    std::thread::sleep(Duration::from_secs(5));
    let sent = monotonic();
    signal(process.id(), "INT");
    let status = process.ended(Duration::from_secs(10));
    assert!(sent.elapsed() < Duration::from_secs(6), "{:?}", sent.elapsed());
    assert_eq!(status.code(), Some(0));
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!((&report["interrupted"], &report["sessions"]["stopped"]), (&json!(true), &json!(2)));
    assert!(report["playback"]["played_seconds"].as_f64().is_some_and(|s| s > 4.0), "{report}");
}

/// A lesson that is still being made: its playlists grow while they are followed, and must never change otherwise.
#[test]
fn a_lesson_can_be_watched_while_it_is_made() {
    let demo = demo::shared();
    let _alone = heavy();
    let directory = tempfile::tempdir().unwrap();
    let id = uploaded(demo, &recording(directory.path(), "long.mp4", 90));
    let seen = until("the lesson to be playable", Duration::from_secs(200), || {
        let lesson = api(demo, "GET", &format!("/v1/lessons/{id}"), None);
        assert_ne!(lesson["state"], "failed", "{lesson}");
        (lesson["playable"] == true).then_some(lesson)
    });
    let url = crate::support::lessons::playback(demo, &id, "early")["url"].as_str().expect("a URL").to_owned();
    let told = viewers(&["--url", &url, "--viewers", "2", "--duration", "25s", "--abr", "lowest"]);
    assert_eq!(told.code, Some(0), "{}", told.table);
    assert_eq!(told.report["errors"], json!([]), "{}", told.table);
    assert!(told.number("/playback/played_seconds") > 30.0, "{}", told.table);
    assert_eq!(seen["state"], "transcoding", "it was playable before it was ready, which this story is about");
}

/// The id of a lesson whose upload is complete.
fn uploaded(demo: &Demo, file: &Path) -> String {
    let course = demo.text("/course");
    let made = api(demo, "POST", &format!("/v1/courses/{course}/lessons"), Some(&json!({"title": "Early"})));
    let id = made["id"].as_str().expect("an id").to_owned();
    let sent = Command::new(program("lyceum"))
        .args(["upload", "--origin", &demo.text("/origins/0"), "--lesson", &id, "--api-key", &demo.text("/api_key")])
        .arg(file)
        .stdout(Stdio::null())
        .status();
    assert!(sent.expect("lyceum runs").success());
    id
}

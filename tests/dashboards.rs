//! The dashboards, rules and alerts: held to Grafana's own types, to `promtool`, and to a real Prometheus that scrapes
//! a real demo under real traffic. A Grafana server is in no package registry, so this is how they are tested.

mod panels;
mod prometheus;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lyceum_core::time::{Clock, monotonic};
use serde_json::{Value, json};

use self::panels::{Dashboard, Query, label_values, resolved};
use self::prometheus::{Prometheus, judge};
use crate::support::lessons::{curl, lesson, playback, recording};
use crate::support::{demo, heavy, program, repository, until};

const RULES: &[&str] = &["rules.yml", "alerts.yml"];

fn told(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|cause| panic!("{command:?} can't be started: {cause}"))
}

/// What Grafana's types say of dashboards, by file.
fn held_to_types(files: &[PathBuf]) -> Vec<(String, Vec<String>)> {
    let check = repository("tests/dashboards/check.mjs");
    let output = told(Command::new("node").arg(check).args(files));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let judged: Value = serde_json::from_slice(&output.stdout).expect("its answer is JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let judged = judged.as_array().expect("a list").iter();
    let judged =
        judged.map(|one| (text(&one["file"]), one["errors"].as_array().expect("errors").iter().map(text).collect()));
    judged.collect()
}

#[test]
fn dashboards_are_what_grafana_reads() {
    let all = Dashboard::all();
    let names: Vec<String> = all.iter().map(Dashboard::name).collect();
    assert_eq!(names, ["edge", "origin", "playback"]);
    for (file, errors) in held_to_types(&all.iter().map(|d| d.path.clone()).collect::<Vec<_>>()) {
        assert!(errors.is_empty(), "{file}:\n{}", errors.join("\n"));
    }
    let (mut uids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for dashboard in &all {
        assert!(uids.insert(dashboard.json["uid"].to_string()), "two dashboards of one uid");
        assert!(titles.insert(dashboard.json["title"].to_string()), "two dashboards of one title");
        let panels = dashboard.json["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{}: panels of one id", dashboard.name());
        no_panel_covers_another(dashboard);
    }
}

fn no_panel_covers_another(dashboard: &Dashboard) {
    let mut taken = BTreeMap::new();
    for panel in dashboard.json["panels"].as_array().unwrap() {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}: {} hangs over the edge", dashboard.name(), panel["title"]);
        for cell in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            let before = taken.insert(cell, &panel["title"]);
            assert_eq!(before, None, "{}: {} lies on another", dashboard.name(), panel["title"]);
        }
    }
}

/// The check above would be worth nothing if it took everything.
#[test]
fn a_mistake_in_a_dashboard_is_seen() {
    let good = &Dashboard::all()[0];
    let directory = tempfile::tempdir().unwrap();
    let first = good.json["panels"].as_array().unwrap().iter().position(|p| p["type"] == "timeseries").unwrap();
    let at = |rest: &str| format!("/panels/{first}{rest}");
    let mistakes: &[(&str, String, Value, &str)] = &[
        ("an option that is misspelt", at("/options/legend"), json!({"showLegnd": true}), "showLegnd"),
        ("a unit in the wrong place", at("/fieldConfig/defaults"), json!({"custom": {"unit": "s"}}), "unit"),
        ("a value that is none", at("/options/tooltip/mode"), json!("many"), "single"),
        ("a query without a legend", at("/targets"), json!([{"refId": "A", "expr": "up"}]), "legendFormat"),
        ("somebody's data source", at("/datasource/uid"), json!("P1809F7CD0C75ACF3"), "datasource"),
        ("a panel without a word on it", at(""), json!({"type": "timeseries", "title": "x"}), "description"),
        ("a panel of a type that is gone", at("/type"), json!("graph"), "graph"),
        ("no panels", "/panels".into(), json!([]), "panels"),
        ("an unknown property", "/templating".into(), json!({"list": [], "lists": []}), "lists"),
    ];
    let mut files = Vec::new();
    for (index, (_, pointer, value, _)) in mistakes.iter().enumerate() {
        let mut json = good.json.clone();
        *json.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value.clone();
        let file = directory.path().join(format!("{index}.json"));
        std::fs::write(&file, json.to_string()).unwrap();
        files.push(file);
    }
    for ((what, _, _, word), (_, errors)) in mistakes.iter().zip(held_to_types(&files)) {
        assert!(errors.iter().any(|error| error.contains(word)), "{what} was not seen: {errors:?}");
    }
}

fn promtool(arguments: &[&str]) -> String {
    let directory = repository("dashboards/prometheus");
    let output = told(Command::new("promtool").args(arguments).current_dir(directory));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}:\n{text}");
    text
}

/// The values behind `key` in a YAML file of ours, which keeps one on a line.
fn named(file: &str, key: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository("dashboards/prometheus").join(file)).unwrap();
    let values = text.lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(key));
    values.map(|value| value.trim_start_matches(':').trim().to_owned()).collect()
}

#[test]
fn prometheus_takes_configuration_rules_and_alerts() {
    let text = promtool(&["check", "config", "prometheus.yml"]);
    for file in RULES {
        assert!(text.contains(file), "the configuration loads {file}: {text}");
    }
    promtool(&["check", "rules", "rules.yml", "alerts.yml"]);
    promtool(&["test", "rules", "tests.yml"]);
    let alerts = named("alerts.yml", "alert");
    assert!(alerts.len() >= 8, "{alerts:?}");
    let tested = named("tests.yml", "alertname");
    for alert in &alerts {
        let times = tested.iter().filter(|tested| *tested == alert).count();
        assert!(
            times >= 2,
            "{alert} is tested {times} times; it needs a time at which it is silent and one at which it fires"
        );
    }
    let text = std::fs::read_to_string(repository("dashboards/prometheus/alerts.yml")).unwrap();
    assert_eq!(text.matches("what_to_do:").count(), alerts.len(), "each alert says what to do");
}

/// Whoever is called at night is sent to what exists.
#[test]
fn alerts_point_to_panels_that_are_there() {
    let text = std::fs::read_to_string(repository("dashboards/prometheus/alerts.yml")).unwrap();
    let all = Dashboard::all();
    let named = |word: &str, text: &str| -> Vec<String> {
        let opening = format!("{word} '");
        let behind = text.split(&opening).skip(1);
        behind.map(|rest| rest.split('\'').next().unwrap_or_default().to_owned()).collect()
    };
    let mut seen = 0;
    for line in text.lines().filter(|line| line.contains("what_to_do:")) {
        assert!(!line.contains("edges' logs"), "an edge counts refusals, and does not log them: {line}");
        let dashboards = named("ashboard", line);
        for title in &dashboards {
            assert!(
                all.iter().any(|d| d.json["title"] == format!("Lyceum: {title}")),
                "no dashboard '{title}': {line}"
            );
        }
        for panel in named("panel", line).into_iter().chain(named("row", line)) {
            let on_one = all.iter().filter(|d| dashboards.iter().any(|t| d.json["title"] == format!("Lyceum: {t}")));
            let mut titles = on_one.flat_map(|d| d.json["panels"].as_array().unwrap().iter().map(|p| &p["title"]));
            assert!(titles.any(|title| *title == panel.as_str()), "no panel '{panel}': {line}");
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen}");
}

#[test]
fn provisioning_and_compose_name_what_is_there() {
    let base = repository("dashboards");
    let files =
        ["compose.yaml", "grafana/provisioning/datasources/lyceum.yaml", "grafana/provisioning/dashboards/lyceum.yaml"];
    let output =
        told(Command::new("node").arg(repository("tests/dashboards/yaml.mjs")).args(files.map(|file| base.join(file))));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (compose, source, provider) = (&read[0]["services"], &read[1]["datasources"][0], &read[2]["providers"][0]);
    assert_eq!((&source["type"], &source["url"]), (&json!("prometheus"), &json!("${LYCEUM_PROMETHEUS}")));
    assert_eq!(compose["grafana"]["environment"]["LYCEUM_PROMETHEUS"], "http://127.0.0.1:9090");
    let mounts = |service: &str| {
        let list = compose[service]["volumes"].as_array().unwrap().clone();
        let parts = |mount: Value| mount.as_str().unwrap().split(':').map(str::to_owned).collect::<Vec<_>>();
        list.into_iter().map(parts).map(|parts| (parts[1].clone(), base.join(&parts[0]))).collect::<BTreeMap<_, _>>()
    };
    let (grafana, prometheus) = (mounts("grafana"), mounts("prometheus"));
    // Where each program looks has to be what lies there.
    let dashboards = &grafana[provider["options"]["path"].as_str().unwrap()];
    assert!(Dashboard::all().iter().all(|d| dashboards.join(d.path.file_name().unwrap()).is_file()));
    assert!(grafana["/etc/grafana/provisioning"].join("datasources/lyceum.yaml").is_file());
    assert!(prometheus["/etc/prometheus"].join("prometheus.yml").is_file());
    let home = compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().unwrap();
    assert!(dashboards.join(Path::new(home).file_name().unwrap()).is_file());
}

/// `POST /t/{token}/cmcd` as a player with a bad line would: it starts late, stalls twice, and gives up.
fn unlucky_viewer(playback: &str) {
    let now = Clock::system().unix_millis();
    let line = |event: &str, state: &str, ago: i64, number: u32| {
        let at = now - ago;
        format!(
            "bl=(300),br=(800),cid=\"x\",e={event},mtp=(700),sf=h,sid=\"0a1b2c3d-unlucky-{now}\",sn={number},st=v,\
             sta={state},ts={at},v=2\n"
        )
    };
    let story = [("s", 60_000), ("p", 53_000), ("r", 40_000), ("p", 36_000), ("r", 20_000), ("p", 15_000)];
    let mut lines: String = (0..).zip(story).map(|(n, (state, ago))| line("ps", state, ago, n)).collect();
    lines += &line("e", "f", 5000, 6);
    lines += &line("ps", "f", 5000, 7);
    let (edge, rest) = playback.split_once("/t/").expect("a URL with its token in the path");
    let token = rest.split('/').next().unwrap();
    let url = format!("{edge}/t/{token}/cmcd");
    let answer = curl(&["-H", "Content-Type: application/cmcd", "--data-binary", &lines, &url]);
    assert!((200..300).contains(&answer.status), "{}", answer.status);
}

/// Requests that an edge must refuse: no token, a changed one, one for another lesson.
fn refused_requests(playback: &str) {
    let (edge, rest) = playback.split_once("/t/").expect("a URL with its token in the path");
    let (token, path) = rest.split_once('/').unwrap();
    let changed = format!("{}{}", &token[..token.len() - 8], "AAAAAAAA");
    for (url, status) in [
        (format!("{edge}/{path}"), 401),
        (format!("{edge}/t/{changed}/{path}"), 403),
        (format!("{edge}/t/{token}/v/another/master.m3u8"), 403),
    ] {
        assert_eq!(curl(&[&url]).status, status, "{url}");
    }
}

/// The queries of all panels with the variables that a viewer has who opens the dashboard ("All").
fn questions(prometheus: &Prometheus) -> Vec<Query> {
    let mut questions = Vec::new();
    for dashboard in Dashboard::all() {
        let mut variables = BTreeMap::from([
            ("__rate_interval".to_owned(), "20s".to_owned()),
            ("__interval".to_owned(), "5s".to_owned()),
            ("__range".to_owned(), "120s".to_owned()),
        ]);
        for (name, query) in dashboard.variables() {
            let (matcher, label) = label_values(&resolved(&query, &variables));
            let values = prometheus.label_values(&matcher, &label);
            assert!(!values.is_empty(), "{}: nothing to choose from for {name}: {matcher}", dashboard.name());
            let escaped: Vec<String> = values.iter().map(|value| value.replace('.', "\\\\.")).collect();
            variables.insert(name, format!("({})", escaped.join("|")));
        }
        let queries = dashboard.queries();
        assert!(queries.len() >= 10, "{}: {} queries", dashboard.name(), queries.len());
        questions.extend(queries.into_iter().map(|query| Query { expr: resolved(&query.expr, &variables), ..query }));
    }
    questions
}

fn empty_panels(prometheus: &Prometheus, questions: &[Query], seconds: i64) -> Vec<String> {
    let empty = |query: &Query| prometheus.range(&query.expr, seconds).and_then(|found| judge(query, &found)).err();
    questions.iter().filter_map(empty).collect()
}

#[test]
fn every_panel_shows_something_under_real_traffic() {
    let demo = demo::shared();
    let _alone = heavy();
    let prometheus = Prometheus::start(&demo.directory().join("prometheus.yml"));
    let directory = tempfile::tempdir().unwrap();
    let first = demo.text("/playback/url");
    let edges = [demo.text("/edges/0"), demo.text("/edges/1")];
    let urls = edges.clone().map(|edge| first.replacen(&edges[0], &edge, 1));
    assert_ne!(urls[0], urls[1]);
    let begun = monotonic();
    // Counters have to be seen before they grow, or their growth is not seen.
    until("Prometheus to know every part", Duration::from_secs(60), || {
        let all = "count(up{job=~\"lyceum-.+\"} == 1) == 5 and count(lyceum_playback_rebuffers_total) == 2";
        prometheus.number(all)
    });
    let before = PLAYED.map(|metric| prometheus.sum(metric));
    let report = directory.path().join("report.json");
    let mut viewers = Command::new(program("lyceum-load"));
    viewers.args(["viewers", "--viewers", "6", "--duration", "45s", "--ramp", "5s", "--report-interval", "2s"]);
    viewers.args(urls.iter().flat_map(|url| ["--url", url])).arg("--json").arg(&report).stdout(Stdio::null());
    let mut viewers = viewers.spawn().expect("viewers start");
    for url in &urls {
        unlucky_viewer(url);
        refused_requests(url);
    }
    // Uploaded and transcoded while Prometheus looks.
    let id = lesson(demo, "Short", &recording(directory.path(), "short.mp4", 6));
    playback(demo, &id, "somebody");
    assert!(viewers.wait().unwrap().success());
    // What was counted last is known, and the rules have been evaluated over it, once every part was scraped twice more.
    let scraped = || prometheus.number("min(timestamp(up{job=~\"lyceum-.+\"}))");
    for _ in 0..2 {
        let last = prometheus.number("vector(time())").expect("Prometheus tells the time");
        until("another scrape of every part", Duration::from_secs(60), || scraped().filter(|at| *at > last));
    }

    assert_eq!(prometheus.complaints(), Vec::<String>::new());
    let questions = questions(&prometheus);
    let seconds = i64::try_from(begun.elapsed().as_secs()).unwrap();
    let empty = empty_panels(&prometheus, &questions, seconds);
    assert!(
        empty.is_empty(),
        "{} of {} queries of panels show nothing:\n{}",
        empty.len(),
        questions.len(),
        empty.join("\n")
    );
    for record in named("rules.yml", "record") {
        let found = prometheus.range(&record, seconds).unwrap();
        assert!(found.iter().any(|series| !series.values.is_empty()), "the rule {record} records nothing");
    }
    agree(&prometheus, before, &report, urls.len() as f64);

    // That the judgement above is one: metrics that do not exist.
    let planted = |query: &Query| Query { expr: query.expr.replace("lyceum_", "lycaeum_"), ..query.clone() };
    let planted: Vec<Query> = questions.iter().filter(|query| query.expr.contains("lyceum_")).map(planted).collect();
    assert_eq!(empty_panels(&prometheus, &planted, seconds).len(), planted.len());
}

/// What tells of play, stalls and start-ups.
const PLAYED: [&str; 5] = [
    "lyceum_playback_starts_total",
    "lyceum_playback_startup_seconds_count",
    "lyceum_playback_rebuffers_total",
    "lyceum_playback_rebuffer_seconds_total",
    "lyceum_playback_played_seconds_total",
];

/// What players reported, what Prometheus counted and what the load generator saw are one story.
fn agree(prometheus: &Prometheus, before: [f64; 5], report: &Path, unlucky: f64) {
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let figure = |pointer: &str| {
        let value = report.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no {pointer}: {report}"))
    };
    // The unlucky ones stalled twice, for 4 and 5 seconds, and played for 13, 16 and 10.
    let seen = [
        (figure("/sessions/started") + unlucky, 0.0),
        (figure("/sessions/played") + unlucky, 0.0),
        (figure("/playback/rebuffers") + 2.0 * unlucky, 0.0),
        (figure("/playback/rebuffer_seconds") + 9.0 * unlucky, 0.05),
        (figure("/playback/played_seconds") + 39.0 * unlucky, 0.05),
    ];
    for ((metric, before), (seen, off)) in PLAYED.iter().zip(before).zip(seen) {
        let counted = prometheus.sum(metric) - before;
        let apart = (counted - seen).abs();
        assert!(apart <= off * seen + 0.01, "{metric}: Prometheus counted {counted}, the viewers saw {seen}: {report}");
    }
}

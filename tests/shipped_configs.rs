//! The configurations that are shipped load, in the program that reads them.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::{program, repository};

/// `lyceum config check` with every variable set that the examples name.
fn check(file: &PathBuf) -> Output {
    let variables =
        ["LYCEUM_ADMIN_KEY", "LYCEUM_EDGE_SECRET", "LYCEUM_S3_ACCESS_KEY", "LYCEUM_S3_SECRET_KEY", "LYCEUM_WORKER_KEY"];
    let mut command = Command::new(program("lyceum"));
    command.args(["config", "check"]).arg(file);
    command.envs(variables.map(|name| (name, "an-example-secret-of-some-length")));
    command.env("LYCEUM_DATABASE", "postgres://lyceum:secret@db.example.com/lyceum");
    command.output().expect("lyceum runs")
}

#[test]
fn every_example_is_accepted() {
    let mut seen = 0;
    for entry in std::fs::read_dir(repository("edge-config")).expect("edge-config is there") {
        let path = entry.expect("edge-config can be listed").path();
        if path.extension().is_some_and(|end| end == "toml") {
            let output = check(&path);
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{}: {words}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 4, "only {seen} examples");
}

/// What Prometheus's example scrapes as a role is where the examples of that role have their operators' listener.
#[test]
fn prometheus_scrapes_the_ports_of_the_examples() {
    let scrapes = std::fs::read_to_string(repository("dashboards/prometheus/prometheus.yml")).expect("the example");
    for role in ["edge", "origin", "worker"] {
        let job = scrapes.split("- job_name: ").find(|job| job.starts_with(&format!("lyceum-{role}\n")));
        let targets = job.and_then(|job| job.split_once("targets: [")?.1.split(']').next()).expect("a job's targets");
        let targets: Vec<&str> = targets.split(',').map(|target| target.trim().trim_matches('"')).collect();
        let mut seen = 0;
        for entry in std::fs::read_dir(repository("edge-config")).expect("edge-config is there") {
            let path = entry.expect("edge-config can be listed").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if name.starts_with(role) && name.ends_with(".toml") {
                let text = std::fs::read_to_string(&path).expect("an example is text");
                let read: toml::Table = text.parse().expect("an example is TOML");
                let listen = read["admin"]["listen"].as_str().expect("an address");
                assert!(
                    targets.contains(&listen),
                    "{name} listens on {listen}, lyceum-{role} is scraped at {targets:?}"
                );
                seen += 1;
            }
        }
        assert!(seen >= 1, "no example of {role}");
    }
}

/// A change to an example, and what the refusal must name.
const MISTAKES: &[(&str, &str, &str, &[&str])] = &[
    (
        "edge.toml",
        "memory = \"512MiB\"",
        "memroy = \"512MiB\"",
        &["cache.memroy", "unknown field", "did you mean `memory`"],
    ),
    ("edge.toml", "memory = \"512MiB\"", "memory = \"512MB\"", &["cache.memory", "512MiB"]),
    ("edge.toml", "idle = \"60s\"", "idle = \"1ms\"", &["limits.idle", "out of bounds", "from 1s to 1h"]),
    ("edge.toml", "pool = \"origin\"\nauth", "pool = \"elsewhere\"\nauth", &["elsewhere"]),
    (
        "edge.toml",
        "http://127.0.0.1:8080/.well-known",
        "http://192.0.2.1:8080/.well-known",
        &["tokens.issuers.jwks", "https", "192.0.2.1"],
    ),
    ("edge.toml", "balance = \"consistent-hash\"", "balance = \"consistent\"", &["pool.balance", "known here"]),
    ("edge.toml", "listen = \"127.0.0.1:9901\"", "listen = \"0.0.0.0:9901\"", &["admin.listen", "admin.bearer"]),
    ("origin.toml", "count = 1", "count = \"one\"", &["workers", "invalid type"]),
    ("origin.toml", "database = \"sqlite:data/lyceum.db\"", "database = \"mysql://x\"", &["database"]),
    ("worker.toml", "slots = 2", "slots = 0", &["slots"]),
];

#[test]
fn a_mistake_is_named_with_file_line_and_key() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (file, right, wrong, names) in MISTAKES {
        let text = std::fs::read_to_string(repository("edge-config").join(file)).expect("the example is there");
        assert!(text.contains(right), "{file} no longer has {right}");
        let path = folder.path().join(file);
        std::fs::write(&path, text.replacen(right, wrong, 1)).expect("a temporary file");
        let output = check(&path);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{file} with {wrong}: {words}");
        for name in *names {
            assert!(words.contains(name), "{file} with {wrong} should name {name}: {words}");
        }
        assert!(words.contains(file), "{words}");
    }
}

/// All of the mistakes that the text below makes, and their lines.
const MANY: &[(usize, &str, &str)] = &[
    (4, "admin.lisen", "did you mean `listen`"),
    (9, "cache.memory", "such as \"512MiB\""),
    (10, "cache.disk.sise", "did you mean `size`"),
    (13, "tokens.issuers.jwks", "https"),
    (18, "pool.balance", "did you mean `round-robin`"),
    (19, "pool.origins.url", "http or https URL"),
    (20, "pool.health.interval", "such as \"2s\""),
    (23, "route.prefix", "prefix"),
    (29, "route.pool", "did you mean \"origin\""),
    (33, "limits.idle", "from 1s to 1h"),
    (34, "limits.colour", "unknown field"),
];

#[test]
fn all_mistakes_of_a_file_are_named_at_once_without_the_machine_that_it_is_for() {
    let text = r#"# An edge with a mistake in almost every table.

[admin]
lisen = "127.0.0.1:0"
[[listen]]
address = "127.0.0.1:0"

[cache]
memory = "512MB"
disk = { path = "data", sise = "1GiB" }
[tokens]
audience = "lyceum-edge"
issuers = [{ name = "lyceum", jwks = ["http://192.0.2.1/jwks.json"] }]

# The secret is not set here, which is no mistake.
[[pool]]
name = "origin"
balance = "round-robbin"
origins = [{ url = "http://127.0.0.1:1" }, { url = "ftp://127.0.0.1" }]
health = { path = "/healthz", interval = 2 }
auth = { bearer = "${LYCEUM_UNSET}" }
[[route]]
prefix = "v/"
pool = "origin"
auth = "token"

[[route]]
prefix = "/w/"
pool = "orgin"
auth = "token"

[limits]
idle = "1ms"
colour = "blue"
"#;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("edge.toml");
    std::fs::write(&path, text).expect("a temporary file");
    let good = repository("edge-config/edge.toml");
    let output = Command::new(program("lyceum")).args(["config", "check"]).arg(&path).arg(&good).output();
    let output = output.expect("lyceum runs");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{words}");
    let lines: Vec<&str> = words.lines().filter(|line| line.starts_with(&*path.to_string_lossy())).collect();
    for ((line, key, says), found) in MANY.iter().zip(&lines) {
        assert!(found.starts_with(&format!("{}:{line}: `{key}`: ", path.display())), "{line} {key}: {words}");
        assert!(found.contains(says), "{found} should say {says}");
    }
    assert_eq!(lines.len(), MANY.len(), "{words}");
    assert!(words.contains("1 of 2"), "{words}");
    // The good file needs a secret when it is started.
    let note = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(note.contains("edge-config/edge.toml: a good edge configuration"), "{note}");
    assert!(note.contains("LYCEUM_EDGE_SECRET"), "{note}");
}

#[test]
fn a_role_does_not_start_without_its_variables() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let text = std::fs::read_to_string(repository("edge-config/edge.toml")).expect("the example is there");
    let path = folder.path().join("edge.toml");
    std::fs::write(&path, text.replace("${LYCEUM_EDGE_SECRET}", "${LYCEUM_UNSET}")).expect("a temporary file");
    let checked = check(&path);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("LYCEUM_UNSET"));
    let started = Command::new(program("lyceum")).args(["edge", "--config"]).arg(&path).output().expect("lyceum runs");
    let words = String::from_utf8_lossy(&started.stderr).into_owned();
    assert_eq!(started.status.code(), Some(2), "{words}");
    // Both places are named.
    assert_eq!(words.matches("LYCEUM_UNSET is not set").count(), 2, "{words}");
    assert!(words.contains("`control.bearer`") && words.contains("`pool.auth.bearer`"), "{words}");
}

#[test]
fn a_first_configuration_is_good_and_is_never_written_over_another() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for role in ["edge", "origin", "worker"] {
        let path = folder.path().join(format!("{role}.toml"));
        let init = || Command::new(program("lyceum")).args(["config", "init", role, "--out"]).arg(&path).output();
        assert!(init().expect("lyceum runs").status.success());
        let checked = check(&path);
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        std::fs::write(&path, "mine").expect("a temporary file");
        let again = init().expect("lyceum runs");
        assert_eq!(again.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&again.stderr).contains(&*path.to_string_lossy()));
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "mine");
    }
}

#[test]
fn a_missing_file_is_a_sentence_and_exit_code_2() {
    let output = check(&PathBuf::from("/nowhere/edge.toml"));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/edge.toml"));
}

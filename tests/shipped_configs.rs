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

/// A change to an example, and what the refusal must name.
const MISTAKES: &[(&str, &str, &str, &[&str])] = &[
    ("edge.toml", "memory = \"512MiB\"", "memroy = \"512MiB\"", &["cache.memroy", "unknown field"]),
    ("edge.toml", "memory = \"512MiB\"", "memory = \"512MB\"", &["cache.memory", "512MiB"]),
    ("edge.toml", "idle = \"60s\"", "idle = \"1ms\"", &["limits.idle", "out of bounds", "from 1s to 1h"]),
    ("edge.toml", "pool = \"origin\"\nauth", "pool = \"elsewhere\"\nauth", &["elsewhere"]),
    ("edge.toml", "${LYCEUM_EDGE_SECRET}", "${LYCEUM_UNSET}", &["LYCEUM_UNSET", "not set"]),
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

#[test]
fn a_missing_file_is_a_sentence_and_exit_code_2() {
    let output = check(&PathBuf::from("/nowhere/edge.toml"));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/edge.toml"));
}

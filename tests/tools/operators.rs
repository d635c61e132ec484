//! `lyceum status`, `lyceum doctor`, completions and manual pages.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{demo, program};

fn lyceum(arguments: &[&str]) -> Output {
    Command::new(program("lyceum")).args(arguments).output().expect("lyceum runs")
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_running_demo_is_well() {
    let directory = demo::shared().directory().display().to_string();
    let table = lyceum(&["status", "--demo", &directory]);
    assert!(table.status.success(), "{}", words(&table));
    let told = lyceum(&["status", "--demo", &directory, "--json"]);
    let programs: Vec<Value> = serde_json::from_slice(&told.stdout).expect("JSON");
    let count = |role: &str| programs.iter().filter(|program| program["role"] == role).count();
    assert_eq!((count("origin"), count("edge"), count("worker")), (2, 2, 1), "{programs:?}");
    assert!(programs.iter().all(|program| program["ready"] == true), "{programs:?}");

    let doctor = lyceum(&["doctor", "--demo", &directory]);
    let words = words(&doctor);
    assert!(doctor.status.success(), "{words}");
    assert_eq!(words.matches("plays lesson").count(), 2, "{words}");
    assert!(!words.contains("fail"), "{words}");
}

#[test]
fn a_system_that_is_away_is_exit_code_1_and_says_what_to_do() {
    let status = lyceum(&["status", "--admin", "http://127.0.0.1:1"]);
    assert_eq!(status.status.code(), Some(1), "{}", words(&status));
    let doctor = lyceum(&["doctor", "--origin", "http://127.0.0.1:1", "--data", "/nowhere"]);
    assert_eq!(doctor.status.code(), Some(1), "{}", words(&doctor));
    assert!(words(&doctor).contains("is the origin running"), "{}", words(&doctor));
    assert!(words(&doctor).contains("disk of /nowhere"), "{}", words(&doctor));
    let usage = lyceum(&["status"]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn shells_and_man_know_every_command() {
    for (name, command, pages) in [
        ("lyceum", "doctor", ["lyceum.1", "lyceum-config-check.1", "lyceum-upload.1"]),
        (
            "lyceum-transcoder",
            "sample",
            ["lyceum-transcoder.1", "lyceum-transcoder-run.1", "lyceum-transcoder-worker.1"],
        ),
    ] {
        let run = |arguments: &[&str]| Command::new(program(name)).args(arguments).output().expect("it runs");
        for shell in ["bash", "zsh", "fish"] {
            let script = run(&["completions", shell]);
            assert!(script.status.success() && words(&script).contains(command), "{name} {shell}");
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        let made = run(&["man", "--out", &folder.path().display().to_string()]);
        assert!(made.status.success(), "{}", words(&made));
        for page in pages {
            let text = std::fs::read_to_string(folder.path().join(page)).expect(page);
            assert!(text.contains(".SH"), "{page}");
        }
        let file = folder.path().join(pages[0]);
        let failed = run(&["man", "--out", &file.display().to_string()]);
        assert_eq!(failed.status.code(), Some(1), "a file is no directory");
        assert!(!folder.path().join("lyceum-transcoder-task.1").exists(), "what is hidden has no page");
    }
}

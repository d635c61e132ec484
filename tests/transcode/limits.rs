//! Each limit of a task acts by itself, with a code and a sentence that names it; a full disk and a signal leave an
//! earlier output as it was.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::processes::children;
use super::{contents, make, transcoded};
use crate::support::{heavy, program, until};

/// A picture of `size` and a tone.
fn recording(dir: &Path, name: &str, size: &str, seconds: &str) -> PathBuf {
    let (picture, sound) = (format!("testsrc2=s={size}:r=25:d={seconds}"), format!("sine=d={seconds}"));
    let inputs = ["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &sound];
    make(dir, name, &[&inputs[..], &["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"]].concat())
}

/// `run` with these `[limits]`.
fn limited(dir: &Path, input: &Path, limits: &str) -> Output {
    let file = dir.join("limits.toml");
    std::fs::write(&file, limits).expect("a file");
    let mut run = Command::new(program("lyceum-transcoder"));
    run.arg("run").args([input, &dir.join("out")]).arg("--limits").arg(file);
    run.output().expect("it starts")
}

#[test]
fn each_limit_ends_a_run_with_a_sentence_of_its_own() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let (plain, large) =
        (recording(dir, "plain.mp4", "640x360", "12"), recording(dir, "large.mp4", "3840x2160", "0.4"));
    let wild = "testsrc2=s=1280x720:r=25:d=4,noise=alls=90:allf=t";
    let wild = make(dir, "wild.mp4", &["-f", "lavfi", "-i", wild, "-c:v", "libx264", "-preset", "ultrafast"]);
    for (limits, input, says) in [
        ("pixels = 200_000", &plain, "The picture is 640x360: more than the 200000 pixels"),
        ("streams = 1", &plain, "more than 1 streams"),
        ("duration = \"10s\"", &plain, "longer than 10s"),
        ("output = \"1MiB\"", &wild, "more output than one task"),
        ("memory = \"400MiB\"", &large, "more memory than one task"),
        ("cpu_time = \"1s\"", &large, "more processor time than one task"),
        ("wall_time = \"1s\"", &large, "longer than the 1s that one task"),
    ] {
        let ended = limited(dir, input, limits);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        let code = said.starts_with("lyceum-transcoder: media_limit_exceeded: ") && said.trim().lines().count() == 1;
        assert!(ended.status.code() == Some(1) && code && said.contains(says), "{limits}: {said}");
        assert!(!dir.join("out").exists(), "{limits}");
    }
    let ended = limited(dir, &plain, "streams = 0\n");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(2) && said.contains("limits.toml:1") && said.contains("streams"), "{said}");
}

#[test]
fn what_was_made_before_stays_until_the_new_one_is_whole() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let (short, long) = (recording(dir, "short.mp4", "320x240", "2"), recording(dir, "long.mp4", "1280x720", "40"));
    let out = dir.join("out");
    transcoded(&short, &out);
    let before = contents(&out);
    let left = || {
        let all = std::fs::read_dir(dir).expect("a directory").filter_map(Result::ok);
        all.filter(|entry| entry.file_name().to_string_lossy().contains("making")).count()
    };
    for (signal, code, stays) in [("-INT", Some(1), 0), ("-9", None, 1)] {
        let mut run = Command::new(program("lyceum-transcoder"));
        run.arg("run").args([&long, &out]).args(["--slots", "2", "--progress", "json"]);
        let mut run = run.stderr(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        until("two tasks at work", Duration::from_secs(60), || Some(children(run.id())).filter(|c| c.len() == 2));
        assert!(Command::new("kill").args([signal, &run.id().to_string()]).status().expect("kill starts").success());
        let ended = run.wait().expect("it ends");
        assert_eq!(ended.code(), code, "{signal}");
        assert!(contents(&out) == before && left() == stays, "{signal}: {} half-made", left());
        let said = std::io::read_to_string(run.stdout.take().expect("a pipe")).expect("what it said");
        let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap_or_default()).expect("JSON");
        assert_eq!(last["stage"] == "failed", code.is_some(), "{said}");
    }
    // The next run tidies up after the one that had no chance to.
    transcoded(&short, &out);
    assert!(contents(&out) == before && left() == 0, "{} half-made", left());
}

#[test]
fn a_disk_that_is_full_is_told_apart() {
    // A file system of two MiB of its own, where the machine lets one be made.
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let wild = "testsrc2=s=640x360:r=25:d=20,noise=alls=90:allf=t";
    let input = make(dir, "in.mp4", &["-f", "lavfi", "-i", wild, "-c:v", "libx264", "-preset", "ultrafast"]);
    let small = dir.join("small");
    std::fs::create_dir(&small).expect("a directory");
    let script =
        "mount -t tmpfs -o size=1m none \"$1\" && { \"$2\" run \"$3\" \"$1/out\"; echo \"exit $?\"; ls -A \"$1\"; }";
    let ended = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .args([&small, &program("lyceum-transcoder"), &input])
        .output()
        .expect("unshare starts");
    let (said, listed) =
        (String::from_utf8_lossy(&ended.stderr).into_owned(), String::from_utf8_lossy(&ended.stdout).into_owned());
    if !listed.contains("exit") {
        eprintln!("not shown: this machine lets no file system be mounted: {said}");
        return;
    }
    assert!(said.starts_with("lyceum-transcoder: output_full: writing ") && said.contains("No space left"), "{said}");
    assert_eq!(listed, "exit 1\n", "it left something behind");
}

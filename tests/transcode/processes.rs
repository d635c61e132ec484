//! Task processes: what they may not do, what happens when one is killed, and that none outlives its parent.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{contents, make, transcoded};
use crate::support::{heavy, program, until};

fn recording(dir: &Path, seconds: u32) -> PathBuf {
    let source = format!("testsrc2=s=1280x720:r=25:d={seconds}");
    make(dir, "long.mp4", &["-f", "lavfi", "-i", &source, "-c:v", "libx264", "-preset", "ultrafast", "-g", "25"])
}

/// The task processes of a parent, by its process id.
pub fn children(parent: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").expect("/proc");
    let ids = all.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let parent_of = |id: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        (state != "Z").then(|| fields.next()?.parse::<u32>().ok())?
    };
    ids.filter(|id| parent_of(*id) == Some(parent)).collect()
}

fn alive(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_task_gives_up_what_it_does_not_need() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let input = recording(folder.path(), 20);
    let mut run = Command::new(program("lyceum-transcoder"))
        .arg("run")
        .args([&input, &folder.path().join("out")])
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let status = until("a task under a filter", Duration::from_secs(20), || {
        children(run.id()).into_iter().find_map(|id| {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).ok()?;
            let files = std::fs::read_dir(format!("/proc/{id}/fd")).ok()?.count();
            let environment = std::fs::read(format!("/proc/{id}/environ")).ok()?;
            status.contains("Seccomp:\t2").then_some((status, limits, files, environment))
        })
    });
    let (status, limits, files, environment) = status;
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let limit = |name: &str| limits.lines().find(|l| l.starts_with(name)).map(str::to_owned).expect("the limit");
    assert!(limit("Max data size").contains(&(4u64 << 30).to_string()), "{limits}");
    assert!(limit("Max file size").split_whitespace().any(|w| w == "0"), "{limits}");
    assert!(limit("Max cpu time").contains("14400"), "{limits}");
    // Socket twice, pipe, log.
    assert!(files <= 5, "{files} open files");
    assert!(environment.is_empty(), "{}", String::from_utf8_lossy(&environment));
    run.kill().expect("it can be ended");
    run.wait().expect("it ends");
}

#[test]
fn a_task_that_is_killed_is_done_again_and_the_output_is_the_same() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let input = recording(folder.path(), 14);
    let (undisturbed, disturbed) = (folder.path().join("one"), folder.path().join("two"));
    transcoded(&input, &undisturbed);
    let mut run = Command::new(program("lyceum-transcoder"))
        .arg("run")
        .args([&input, &disturbed])
        .args(["--slots", "2"])
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    // The probe runs alone: it is over when two tasks run side by side.
    let victim = until("two tasks at work", Duration::from_secs(60), || {
        Some(children(run.id())).filter(|tasks| tasks.len() == 2)?.pop()
    });
    let killed = Command::new("kill").args(["-9", &victim.to_string()]).status().expect("kill starts");
    assert!(killed.success());
    assert!(run.wait().expect("it ends").success());
    let (one, two) = (contents(&undisturbed), contents(&disturbed));
    assert_eq!(one.iter().map(|f| &f.0).collect::<Vec<_>>(), two.iter().map(|f| &f.0).collect::<Vec<_>>());
    assert!(one == two, "a disturbed run gave other bytes");
}

#[test]
fn no_task_outlives_its_parent_and_a_signal_leaves_nothing_half_made() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let input = recording(folder.path(), 60);
    for (signal, code) in [("-9", None), ("-TERM", Some(1))] {
        let out = folder.path().join("out");
        let mut run = Command::new(program("lyceum-transcoder"))
            .arg("run")
            .args([&input, &out])
            .args(["--slots", "2"])
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let tasks =
            until("two tasks at work", Duration::from_secs(60), || Some(children(run.id())).filter(|c| c.len() == 2));
        assert!(Command::new("kill").args([signal, &run.id().to_string()]).status().expect("kill starts").success());
        assert_eq!(run.wait().expect("it ends").code(), code);
        until("the tasks to be gone", Duration::from_secs(5), || tasks.iter().all(|id| !alive(*id)).then_some(()));
        assert!(!out.exists());
        if code.is_some() {
            let left: Vec<_> = std::fs::read_dir(folder.path())
                .expect("a directory")
                .map(|e| e.expect("an entry").file_name())
                .collect();
            let half_made = left.iter().filter(|n| n.to_string_lossy().contains(".out.making-")).count();
            // Nor is that of the run before, which had no chance to tidy up.
            assert_eq!(half_made, 0, "{left:?}");
        }
    }
}

#[test]
fn progress_is_told_to_programs_as_lines_of_json() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let input = recording(folder.path(), 6);
    let output = Command::new(program("lyceum-transcoder"))
        .arg("run")
        .args([&input, &folder.path().join("out")])
        .args(["--progress", "json"])
        .output()
        .expect("it starts");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).expect("a line of JSON"))
        .collect();
    let mut stages: Vec<&str> = lines.iter().filter_map(|l| l["stage"].as_str()).collect();
    stages.dedup();
    assert_eq!(stages, ["probe", "transcode", "package", "done"]);
    let fractions: Vec<f64> =
        lines.iter().filter(|l| l["stage"] == "transcode").filter_map(|l| l["fraction"].as_f64()).collect();
    assert!(fractions.windows(2).all(|w| w[1] >= w[0]) && fractions.len() > 2, "{fractions:?}");
    assert!(
        lines
            .iter()
            .filter(|l| l["stage"] == "transcode")
            .all(|l| l["speed"].is_number() && l["remaining"].is_number())
    );
}

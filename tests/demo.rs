//! `lyceum demo`: comes up, refuses in one sentence what can't be, goes on where it stopped, leaves nothing behind.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use crate::support::demo::{self, Demo};
use crate::support::process::{alive, signal};
use crate::support::{heavy, program, until};

const SOON: Duration = Duration::from_secs(30);

/// Runs `lyceum demo` to its end, for the cases in which that comes at once.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } =
        Command::new(program("lyceum")).arg("demo").args(arguments).output().expect("lyceum runs");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// Every object of the store with its time of change.
fn objects(directory: &Path) -> BTreeMap<String, SystemTime> {
    let mut found = BTreeMap::new();
    let mut folders = vec![directory.join("objects/v")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the store has objects").filter_map(Result::ok) {
            let metadata = entry.metadata().expect("an object has metadata");
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path().display().to_string(), metadata.modified().expect("a time of change"));
            }
        }
    }
    found
}

fn all_gone(pids: &[u32]) {
    until("every part to end", SOON, || pids.iter().all(|pid| !alive(*pid)).then_some(()));
}

#[test]
fn a_busy_port_is_one_sentence_and_leaves_nothing_running() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (code, words) = refused(&["--listen", &address, "--data", &folder.path().display().to_string()]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains(&address) && words.contains("--listen"), "{words}");
    assert_eq!(words.lines().count(), 1, "{words}");
    assert!(!folder.path().join("demo.json").exists());
}

#[test]
fn a_directory_that_cannot_be_written_is_one_sentence() {
    let (code, words) = refused(&["--data", "/proc/lyceum-demo"]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("/proc/lyceum-demo") && words.contains("--data"), "{words}");
}

#[test]
fn a_missing_recording_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let data = folder.path().join("demo");
    let (code, words) = refused(&["--data", &data.display().to_string(), "--media", "/nowhere/talk.mp4"]);
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("/nowhere/talk.mp4"), "{words}");
    assert!(!data.exists());
}

#[test]
fn a_second_demo_over_the_same_directory_is_kept_out() {
    let demo = demo::shared();
    // No other story kills a part meanwhile; one that was killed before may be on its way back.
    let _alone = heavy();
    let before = until("every part to live", SOON, || {
        let pids = demo.all_pids();
        (pids.len() == 5 && pids.iter().all(|pid| alive(*pid))).then_some(pids)
    });
    let (code, words) = refused(&["--data", &demo.directory().display().to_string()]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("another demo"), "{words}");
    assert!(before.iter().all(|pid| alive(*pid)), "the second demo took a part down");
}

#[test]
fn the_file_for_programs_says_what_the_design_names() {
    let demo = demo::shared();
    let _alone = heavy();
    let json = demo.json();
    for list in ["origins", "origin_admins", "edges", "edge_admins"] {
        let urls = json[list].as_array().unwrap_or_else(|| panic!("{list} in {json}"));
        assert_eq!(urls.len(), 2, "{list}");
        let plain =
            |url: &serde_json::Value| url.as_str().is_some_and(|url| url.starts_with("http") && !url.ends_with('/'));
        assert!(urls.iter().all(plain), "{list}: {urls:?}");
    }
    assert_eq!((demo.pids("origins").len(), demo.pids("edges").len()), (2, 2));
    assert!(!demo.pids("workers").is_empty());
    let edge = json["edges"][0].as_str().expect("an edge");
    let token = demo.text("/playback/token");
    assert_eq!(demo.text("/playback/url"), format!("{edge}/t/{token}/v/{}/master.m3u8", demo.text("/lesson")));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(demo.directory().join("demo.json")).expect("demo.json").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_killed_part_comes_back_at_its_address() {
    let demo = demo::shared();
    let _alone = heavy();
    let url = demo.text("/playback/url");
    for kind in ["origins", "edges", "workers"] {
        let before = demo.pids(kind);
        let victim = *before.first().expect("a part");
        signal(victim, "KILL");
        until("the part to be started again", SOON, || {
            let now = demo.pids(kind);
            (now.len() == before.len() && !now.contains(&victim) && now.iter().all(|pid| alive(*pid))).then_some(())
        });
        assert_eq!(demo.text("/playback/url"), url);
    }
    let playlist = Command::new("curl").args(["-sS", "--fail", "--retry", "3", &url]).output().expect("curl runs");
    assert!(String::from_utf8_lossy(&playlist.stdout).starts_with("#EXTM3U"), "{playlist:?}");
}

#[test]
fn it_goes_on_where_it_stopped_however_it_ended() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let data = folder.path().join("demo");

    // kill -9 of the supervisor takes every part along.
    let first = Demo::start(&data, &[]);
    let (ids, pids) = ((first.text("/course"), first.text("/lesson"), first.text("/api_key")), first.all_pids());
    let made = objects(&data);
    assert!(made.len() > 30, "only {} objects", made.len());
    signal(first.process.id(), "KILL");
    all_gone(&pids);
    drop(first);

    // What is no video ends it with the reason, and nothing of it stays.
    let notes = folder.path().join("notes.mp4");
    std::fs::write(&notes, "These are only the notes of the talk.\n".repeat(100)).expect("a file");
    let mut failed = Demo::launch(&data, &["--media", &notes.display().to_string()]);
    assert_eq!(failed.process.ended(Duration::from_secs(120)).code(), Some(1), "{}", failed.words());
    let words = failed.words();
    assert!(words.contains("notes.mp4") && words.contains("media_not_video"), "{words}");
    assert_eq!(words.lines().count(), 1, "{words}");
    assert!(!data.join("demo.json").exists());

    // The third run has the same ids, has made nothing anew, adds a recording, and ends cleanly when asked.
    let talk = folder.path().join("talk.mp4");
    let made_talk = Command::new(program("lyceum-transcoder"))
        .args(["sample", "--duration", "5s"])
        .arg(&talk)
        .output()
        .expect("the transcoder runs");
    assert!(made_talk.status.success(), "{made_talk:?}");
    let mut third = Demo::start(&data, &["--media", &talk.display().to_string()]);
    assert_eq!((third.text("/course"), third.text("/lesson"), third.text("/api_key")), ids);
    let now = objects(&data);
    for (path, changed) in &made {
        assert_eq!(now.get(path), Some(changed), "{path} was made again");
    }
    assert!(now.len() > made.len(), "the recording of one's own has objects");
    let pids = third.all_pids();
    third.process.signal("TERM");
    assert_eq!(third.process.ended(SOON).code(), Some(0));
    all_gone(&pids);
    assert!(!data.join("demo.json").exists());
}

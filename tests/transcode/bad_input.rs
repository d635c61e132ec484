//! What is no recording, and what can't be written: one sentence, the right exit code, nothing left behind.

use std::path::Path;

use super::{lesson, make, tracks, transcode, transcoded};
use crate::support::heavy;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("a directory")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn plain(folder: &Path) -> std::path::PathBuf {
    make(
        folder,
        "plain.mp4",
        &[
            "-f",
            "lavfi",
            "-i",
            "testsrc2=s=320x240:r=25:d=9",
            "-f",
            "lavfi",
            "-i",
            "sine=d=9",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-c:a",
            "aac",
        ],
    )
}

#[test]
fn each_bad_file_is_refused_with_its_code_and_leaves_nothing() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let good = std::fs::read(plain(dir)).expect("a recording");
    let path = dir.join("plain.mp4");
    let source = path.to_str().expect("a path");
    let key = "00112233445566778899aabbccddeeff";
    make(
        dir,
        "encrypted.mp4",
        &[
            "-i",
            source,
            "-c",
            "copy",
            "-encryption_scheme",
            "cenc-aes-ctr",
            "-encryption_key",
            key,
            "-encryption_kid",
            key,
        ],
    );
    make(dir, "picture.png", &["-i", source, "-frames:v", "1"]);
    let mut noise = vec![0u8; 100_000];
    noise.iter_mut().zip(0u32..).for_each(|(byte, n)| *byte = (n.wrapping_mul(2_654_435_761) >> 13) as u8);
    let files: &[(&str, Vec<u8>)] = &[
        ("zero.mp4", Vec::new()),
        ("text.mp4", b"Dear students, this week we look at sorting.".to_vec()),
        ("list.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n".to_vec()),
        ("concat.mp4", b"ffconcat version 1.0\nfile 'plain.mp4'\n".to_vec()),
        ("cut.mp4", good[..good.len() / 2].to_vec()),
        ("noise.mp4", noise),
        ("picture.mp4", std::fs::read(dir.join("picture.png")).expect("a picture")),
    ];
    for (name, bytes) in files {
        std::fs::write(dir.join(name), bytes).expect("a file");
    }
    let before = names(dir);
    for (name, code) in [
        ("zero.mp4", "media_empty"),
        ("text.mp4", "media_not_video"),
        ("list.mp4", "media_forbidden_format"),
        ("concat.mp4", "media_forbidden_format"),
        ("cut.mp4", "media_not_video"),
        ("noise.mp4", "media_not_video"),
        ("picture.mp4", "media_not_video"),
        ("picture.png", "media_not_video"),
        ("encrypted.mp4", "media_encrypted"),
    ] {
        let output = transcode(&dir.join(name), &dir.join("out"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(
            said.starts_with(&format!("lyceum-transcoder: {code}: ")) && said.trim().lines().count() == 1,
            "{name}: {said}"
        );
        assert!(output.stdout.is_empty());
        assert_eq!(names(dir), before, "{name} left something behind");
    }
}

#[test]
fn a_wrong_call_exits_2_with_one_sentence() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let input = plain(dir);
    let full = dir.join("full");
    std::fs::create_dir(&full).expect("a directory");
    std::fs::write(full.join("thesis.txt"), "mine").expect("a file");
    for (input, out, says) in [
        (dir.join("missing.mp4"), dir.join("out"), "there is no such file"),
        (dir.to_owned(), dir.join("out"), "is not a file"),
        (input.clone(), full.clone(), "is not empty"),
        (input.clone(), input.clone(), "is a file"),
        (input.clone(), dir.join("no/such/parent"), "parent"),
    ] {
        let output = transcode(&input, &out);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says) && said.trim().lines().count() == 1, "{said}");
    }
    assert_eq!(names(&full), ["thesis.txt"]);
    let ladder = dir.join("ladder.toml");
    std::fs::write(&ladder, "segment = \"4s\"\nsegments = 3\n").expect("a file");
    let output = std::process::Command::new(crate::support::program("lyceum-transcoder"))
        .arg("run")
        .args([&input, &dir.join("out")])
        .arg("--ladder")
        .arg(&ladder)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("ladder.toml:2") && said.contains("segments"), "{said}");
}

#[test]
fn what_can_be_played_of_a_truncated_file_is_made_with_a_warning() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let path = plain(dir);
    let source = path.to_str().expect("a path");
    make(dir, "front.mp4", &["-i", source, "-c", "copy", "-movflags", "+faststart"]);
    make(dir, "whole.mkv", &["-i", source, "-c", "copy"]);
    for name in ["front.mp4", "whole.mkv"] {
        let bytes = std::fs::read(dir.join(name)).expect("a recording");
        let cut = dir.join(format!("cut-{name}"));
        std::fs::write(&cut, &bytes[..bytes.len() / 2]).expect("a file");
        let out = dir.join("out");
        transcoded(&cut, &out);
        let lesson = lesson(&out);
        assert_eq!(lesson["warnings"][0], "media_truncated", "{name}");
        let seconds = lesson["duration"].as_f64().expect("a duration");
        assert!((2.0..7.0).contains(&seconds), "{name}: {seconds}");
        assert!(!tracks(&out).is_empty());
        std::fs::remove_dir_all(&out).expect("the output goes");
    }
}

#[test]
fn an_earlier_output_is_replaced_as_a_whole() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let input = plain(folder.path());
    let out = folder.path().join("out");
    transcoded(&input, &out);
    let first = super::contents(&out);
    transcoded(&input, &out);
    assert!(super::contents(&out) == first, "the same recording gave other bytes");
    assert_eq!(names(folder.path()), ["out", "plain.mp4"]);
}

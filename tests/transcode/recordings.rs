//! Real recordings, fetched by `scripts/recordings`: what phones, studios and course makers really produce.

use std::path::PathBuf;

use super::joints::ssim;
use super::{Track, lesson, make, probe, tracks, transcoded};
use crate::support::{heavy, repository};

/// File, the largest rendition's size, and its frames within two, or nothing where the rate is not constant.
const RECORDINGS: &[(&str, (u64, u64), Option<usize>)] = &[
    ("bigbuckbunny.mp4", (1280, 720), Some(132)),
    // 5402 at its rate; where the picture stands still, one frame stands for up to a second of it, but for the first 12.
    ("lecture.mp4", (480, 352), Some(4100)),
    ("phone.mp4", (1920, 1080), None),
    // 373 at its rate.
    ("surround.mp4", (800, 600), Some(294)),
    ("flashmob.mkv", (384, 288), None),
];

fn recording(name: &str) -> PathBuf {
    let path = repository(".cache/recordings").join(name);
    assert!(path.is_file(), "{} is missing: run scripts/recordings, or make test", path.display());
    path
}

/// The whole lecture, frame by frame, against its source and against the same encoder fed with every frame.
fn alike_where_it_stands_still(out: &std::path::Path, input: &std::path::Path, folder: &std::path::Path) {
    let ours = ssim(input, &out.join("1/v352/index.m3u8"));
    let encoder =
        ["-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-maxrate", "800k", "-bufsize", "800k"];
    let source = ["-i", input.to_str().expect("a path"), "-g", "120", "-sc_threshold", "0"];
    let once = make(folder, "once.mp4", &[&source[..], &encoder].concat());
    let theirs = ssim(input, &once);
    assert!(ours > theirs - 0.003, "{ours} against {theirs} with every frame");
}

#[test]
fn real_recordings_become_lessons() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (name, size, frames) in RECORDINGS {
        let input = recording(name);
        let out = folder.path().join(name);
        transcoded(&input, &out);
        let tracks = tracks(&out);
        let top: &Track = tracks.iter().rfind(|t| t.video).expect("a picture");
        assert_eq!(top.size, *size, "{name}");
        if let Some(frames) = frames {
            assert!(top.packets.len().abs_diff(*frames) <= 2, "{name}: {} frames, not {frames}", top.packets.len());
        }
        if *name == "lecture.mp4" {
            alike_where_it_stands_still(&out, &input, folder.path());
        }
        let found = probe(&input, &["-show_entries", "format=duration"]);
        let source: f64 = found["format"]["duration"].as_str().and_then(|t| t.parse().ok()).expect("a duration");
        let made = lesson(&out)["duration"].as_f64().expect("a duration");
        assert!((source - made).abs() < 0.5, "{name}: {made} s of {source} s");
        std::fs::remove_dir_all(&out).expect("the output goes");
    }
}

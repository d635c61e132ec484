//! What is made: pictures that stand still, loudness, and codecs beside H.264.

use std::path::Path;
use std::process::Command;

use super::joints::ssim;
use super::{lesson, make, tracks, transcoded};
use crate::support::{heavy, program};

/// Integrated loudness as FFmpeg's own meter reads it.
fn loudness(input: &Path) -> f64 {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-i"])
        .arg(input)
        .args(["-vn", "-af", "ebur128=peak=true", "-f", "null", "-"])
        .output()
        .expect("ffmpeg starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let summary = text.rsplit("Integrated loudness:").next().expect("a summary");
    let value = summary.split("I:").nth(1).and_then(|t| t.split_whitespace().next()).and_then(|t| t.parse().ok());
    value.unwrap_or_else(|| panic!("no loudness in {text}"))
}

#[test]
fn slides_are_encoded_when_they_change() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    // A new picture every 3.2 s, kept losslessly, so that what stands still is the same to the bit.
    let slides = "mandelbrot=s=640x360:r=25:maxiter=200,trim=duration=20,select='not(mod(n,80))',fps=25";
    let input = make(folder.path(), "slides.mkv", &["-f", "lavfi", "-i", slides, "-c:v", "ffv1", "-t", "20"]);
    let out = folder.path().join("out");
    transcoded(&input, &out);
    for track in tracks(&out) {
        // One frame a second at most, the changes, and the segments' key frames, of 500.
        assert!(track.packets.len() < 40, "{} has {} frames", track.name, track.packets.len());
    }
    let played = make(
        folder.path(),
        "played.mkv",
        &["-i", out.join("1/v360/index.m3u8").to_str().expect("a path"), "-vf", "fps=25", "-c:v", "ffv1"],
    );
    let alike = ssim(&played, &input);
    assert!(alike > 0.97, "{alike}");
}

#[test]
fn sound_is_brought_to_the_ladder_s_loudness() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (name, volume, seconds) in [("quiet.wav", "-14dB", 40), ("loud.wav", "8dB", 40), ("long.wav", "-10dB", 200)] {
        let noise = format!("anoisesrc=color=pink:r=48000:a=0.2:d={seconds},volume={volume}");
        let input = make(folder.path(), name, &["-f", "lavfi", "-i", &noise]);
        let out = folder.path().join("out");
        transcoded(&input, &out);
        let found = lesson(&out)["source"]["audio"][0]["loudness_lufs"].as_f64().expect("a loudness");
        let (before, after) = (loudness(&input), loudness(&out.join("1/a-und/index.m3u8")));
        assert!((found - before).abs() < 0.5, "{name}: found {found}, is {before}");
        assert!((after + 16.0).abs() < 1.0, "{name}: {before} became {after}");
        std::fs::remove_dir_all(&out).expect("the output goes");
    }
}

#[test]
fn hevc_and_av1_stand_beside_h264() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let arguments = ["-f", "lavfi", "-i", "testsrc2=s=426x240:r=25:d=9", "-c:v", "libx264", "-preset", "ultrafast"];
    let input = make(folder.path(), "in.mp4", &arguments);
    let ladder = folder.path().join("ladder.toml");
    let rungs = "[[video]]\nheight = 240\ncodec = \"hevc\"\nmax_bitrate = \"400kbps\"\n\
                 [[video]]\nheight = 240\ncodec = \"av1\"\nmax_bitrate = \"400kbps\"\n";
    std::fs::write(&ladder, rungs).expect("a file");
    let out = folder.path().join("out");
    let run = Command::new(program("lyceum-transcoder"))
        .arg("run")
        .args([&input, &out])
        .arg("--ladder")
        .arg(&ladder)
        .output();
    let run = run.expect("it starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let tracks = tracks(&out);
    assert_eq!(tracks.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["v240", "v240-hevc", "v240-av1"]);
    let master = std::fs::read_to_string(out.join("master.m3u8")).expect("a master");
    for (track, codec) in tracks.iter().zip(["avc1.6400", "hvc1.1.6.L", "av01.0.0"]) {
        assert_eq!(track.packets.len(), 225, "{}", track.name);
        assert!(master.contains(&format!("CODECS=\"{codec}")), "{master}");
        let alike = ssim(&out.join("1").join(&track.name).join("index.m3u8"), &input);
        assert!(alike > 0.93, "{}: {alike}", track.name);
    }
}

//! What was made plays to its end in Chromium, through hls.js and dash.js as their packages ship them.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::extras::captioned;
use super::{make, transcoded};
use crate::support::{heavy, program, repository};

/// Plays an output to its end at one and a half times its speed.
fn played(out: &Path, with: &str, more: &[&str]) -> Value {
    let output = Command::new("node")
        .args(["output.mjs", "--speed", "1.5", "--with", with, "--out"])
        .arg(out)
        .args(more)
        .current_dir(repository("tests/browser"))
        .output()
        .expect("node runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{with}: {said}{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).expect("a line of JSON");
    assert_eq!(told["errors"], Value::Array(Vec::new()), "{with}: {told}");
    assert_eq!((&told["ended"], &told["stalls"]), (&true.into(), &0.into()), "{with}: {told}");
    told
}

fn number(told: &Value, name: &str) -> f64 {
    told[name].as_f64().unwrap_or_else(|| panic!("{name} is no number in {told}"))
}

/// From its first frame to its last.
fn whole(told: &Value, seconds: f64) {
    let (played, duration) = (number(told, "played"), number(told, "duration"));
    assert!((duration - seconds).abs() < 0.2 && played > seconds - 0.3, "{told}");
}

#[test]
fn outputs_play_to_their_end_in_hls_js_and_dash_js() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();

    let talk = captioned(dir);
    let out = dir.join("talk");
    transcoded(&talk, &out);
    for with in ["hls", "dash"] {
        let told = played(&out, with, &["--subtitles", "en"]);
        whole(&told, 9.0);
        assert_eq!(told["heard"], true, "{with}: {told}");
        assert!(number(&told, "frames") > 150.0, "{with}: {told}");
        let languages = told["languages"].as_array().expect("languages");
        assert!(["en", "de"].iter().all(|language| languages.iter().any(|l| l == language)), "{with}: {told}");
        let cues = told["cues"].to_string();
        assert!(cues.contains("Hello") && cues.contains("Still"), "{with}: {told}");
    }

    let key = dir.join("k1");
    std::fs::write(&key, "000102030405060708090a0b0c0d0e0f\n").expect("a file");
    let hidden = dir.join("hidden");
    let run = Command::new(program("lyceum-transcoder"))
        .arg("run")
        .args([&talk, &hidden])
        .args(["--encrypt", key.to_str().expect("a path")])
        .output()
        .expect("it starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    std::fs::create_dir(hidden.join("1/keys")).expect("a directory");
    std::fs::write(hidden.join("1/keys/k1"), (0..16).collect::<Vec<u8>>()).expect("a file");
    let told = played(&hidden, "hls", &[]);
    whole(&told, 9.0);
    assert!(told["heard"] == true && number(&told, "frames") > 150.0, "{told}");

    // Two pictures that stand still, encoded with loss, and sound that goes on.
    let picture = "mandelbrot=s=640x360:r=25:maxiter=200,trim=duration=10,select='not(mod(n,130))',fps=25";
    let inputs = ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", "sine=d=10", "-t", "10"];
    let codecs = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-c:a", "aac"];
    let slides = make(dir, "slides.mp4", &[&inputs[..], &codecs].concat());
    let out = dir.join("slides");
    transcoded(&slides, &out);
    for with in ["hls", "dash"] {
        let told = played(&out, with, &[]);
        whole(&told, 10.0);
        assert!(told["heard"] == true && number(&told, "frames") < 40.0, "{with}: {told}");
        // A jump into a picture that has been standing for a while.
        assert!(number(&played(&out, with, &["--seek", "8.5"]), "position") > 9.7);
    }

    let sound = make(dir, "sound.mp3", &["-f", "lavfi", "-i", "sine=d=9"]);
    let out = dir.join("sound");
    transcoded(&sound, &out);
    for with in ["hls", "dash"] {
        let told = played(&out, with, &[]);
        whole(&told, 9.0);
        assert_eq!(told["heard"], true, "{with}: {told}");
    }
}

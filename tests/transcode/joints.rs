//! Tasks that know nothing of one another join as if encoded in one go: picture, sound, and both together.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{make, tracks, transcoded};
use crate::support::{heavy, program};

/// How alike two videos are, frame by frame (structural similarity, 1 is equal).
pub fn ssim(one: &Path, other: &Path) -> f64 {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-i"])
        .arg(one)
        .arg("-i")
        .arg(other)
        .args(["-lavfi", "[1:v]format=yuv420p[b];[0:v][b]ssim", "-f", "null", "-"])
        .output()
        .expect("ffmpeg starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = text.rsplit("All:").next().and_then(|t| t.split_whitespace().next()).and_then(|t| t.parse().ok());
    value.unwrap_or_else(|| panic!("no SSIM in {text}"))
}

/// The recording with a flash and a beep each second.
fn sample(dir: &Path, seconds: u32) -> PathBuf {
    let path = dir.join("sample.mp4");
    let status = Command::new(program("lyceum-transcoder"))
        .args(["sample", "--duration", &format!("{seconds}s")])
        .arg(&path)
        .status();
    assert!(status.expect("it starts").success());
    path
}

/// What ffmpeg makes of a recording, as raw bytes.
pub fn raw(input: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(input)
        .args(arguments)
        .arg("-")
        .output()
        .expect("ffmpeg starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn sound(input: &Path) -> Vec<f32> {
    let bytes = raw(input, &["-vn", "-ac", "1", "-ar", "48000", "-f", "f32le"]);
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
}

/// When the beeps begin, in seconds.
fn beeps(samples: &[f32]) -> Vec<f64> {
    let mut found = Vec::new();
    let mut quiet = 48_000usize;
    for (n, sample) in samples.iter().enumerate() {
        if sample.abs() > 0.12 {
            if quiet > 24_000 {
                found.push(n as f64 / 48_000.0);
            }
            quiet = 0;
        } else {
            quiet += 1;
        }
    }
    found
}

/// When the white square is shown first, in seconds.
fn flashes(input: &Path, square: &str) -> Vec<f64> {
    let bright: Vec<bool> =
        raw(input, &["-an", "-vf", &format!("crop={square},scale=1:1"), "-pix_fmt", "gray", "-f", "rawvideo"])
            .iter()
            .map(|b| *b > 200)
            .collect();
    bright
        .iter()
        .enumerate()
        .filter(|(n, on)| **on && (*n == 0 || !bright[n - 1]))
        .map(|(n, _)| n as f64 / 25.0)
        .collect()
}

#[test]
fn sound_and_picture_stay_in_step_over_all_joints() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mp4 = sample(folder.path(), 26);
    let source = mp4.to_str().expect("a path");
    let mkv = make(folder.path(), "sample.mkv", &["-i", source, "-c", "copy"]);
    let mp3 = make(folder.path(), "mp3.mkv", &["-i", source, "-c:v", "copy", "-c:a", "libmp3lame", "-ar", "44100"]);
    let ts = make(folder.path(), "sample.ts", &["-i", source, "-c", "copy", "-output_ts_offset", "3"]);
    for input in [mp4, mkv, mp3, ts] {
        let out = folder.path().join("out");
        transcoded(&input, &out);
        let seen = flashes(&out.join("1/v480/index.m3u8"), "80:80:27:27");
        let heard = beeps(&sound(&out.join("1/a-und/index.m3u8")));
        assert_eq!((seen.len(), heard.len()), (26, 26), "{}: {seen:?} {heard:?}", input.display());
        for ((n, seen), heard) in (0..).map(f64::from).zip(&seen).zip(&heard) {
            assert!((seen - n).abs() < 0.001, "{}: flash {n} at {seen}", input.display());
            // The very first AAC frame has none before it to overlap with, so a sound at 0 fades in over 21 ms.
            let within = if n == 0.0 { 0.022 } else { 0.010 };
            assert!((heard - n).abs() < within, "{}: beep {n} at {heard}", input.display());
        }
        std::fs::remove_dir_all(&out).expect("the output goes");
    }
}

#[test]
fn the_picture_is_as_if_encoded_in_one_go() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let input = make(
        folder.path(),
        "long.mp4",
        &[
            "-f",
            "lavfi",
            "-i",
            "testsrc2=s=426x240:r=30000/1001:d=44,noise=alls=8:allf=t",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-crf",
            "10",
            "-g",
            "45",
        ],
    );
    let out = folder.path().join("out");
    transcoded(&input, &out);
    let track = tracks(&out).pop().expect("a track");
    assert_eq!((track.packets.len(), track.segments), (1319, 11));
    let frame = 1001.0 / 30_000.0;
    for (n, (_, dts, _)) in track.packets.iter().enumerate() {
        assert!((dts - track.packets[0].1 - n as f64 * frame).abs() < 0.0001, "packet {n} is decoded at {dts}");
    }
    let mut shown: Vec<f64> = track.packets.iter().map(|p| p.0).collect();
    shown.sort_by(f64::total_cmp);
    assert!(shown.iter().enumerate().all(|(n, at)| (at - n as f64 * frame).abs() < 0.0001));

    let once = make(
        folder.path(),
        "once.mp4",
        &[
            "-i",
            input.to_str().expect("a path"),
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-profile:v",
            "high",
            "-crf",
            "23",
            "-maxrate",
            "400k",
            "-bufsize",
            "400k",
            "-sc_threshold",
            "0",
            "-g",
            "120",
        ],
    );
    let (ours, theirs) = (ssim(&out.join("1/v240/index.m3u8"), &input), ssim(&once, &input));
    assert!(ours > theirs - 0.005, "{ours} against {theirs} in one go");
}

#[test]
fn no_click_and_no_gap_where_sound_tasks_join() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    // A steady chord: any click stands out against what remains when the source is taken away.
    let input = make(
        folder.path(),
        "chord.wav",
        &[
            "-f",
            "lavfi",
            "-i",
            "aevalsrc='0.2*sin(2*PI*220*t)+0.15*sin(2*PI*1237*t)+0.1*sin(2*PI*3011*t)':s=48000:d=75",
        ],
    );
    let out = folder.path().join("out");
    transcoded(&input, &out);
    let (source, made) = (sound(&input), sound(&out.join("1/a-und/index.m3u8")));
    assert!(made.len().abs_diff(source.len()) <= 1024, "{} samples of {}", made.len(), source.len());
    let gain = made[480_000..960_000].iter().zip(&source[480_000..960_000]).map(|(m, s)| f64::from(m * s)).sum::<f64>()
        / source[480_000..960_000].iter().map(|s| f64::from(s * s)).sum::<f64>();
    let error = |from: usize, to: usize| {
        let square = |(m, s): (&f32, &f32)| (f64::from(*m) - gain * f64::from(*s)).powi(2);
        (made[from..to].iter().zip(&source[from..to]).map(square).sum::<f64>() / (to - from) as f64).sqrt()
    };
    // The tasks join at 4 s and at 64 s.
    for joint in [4 * 48_000, 64 * 48_000] {
        // What the encoder loses anyway around there, a second before and after.
        let mut around: Vec<f64> =
            (joint - 48_000..joint + 48_000).step_by(512).map(|at| error(at, at + 512)).collect();
        around.sort_by(f64::total_cmp);
        let usual = around[around.len() / 2];
        assert!(usual < 0.02, "the chord is not what was played: {usual}");
        for window in (joint - 4096..joint + 4096).step_by(512) {
            let there = error(window, window + 512);
            assert!(there < usual * 3.0, "{there} at sample {window}, {usual} around it");
        }
    }
}

//! `lyceum-transcoder run` over real encoders' output, judged by ffprobe and by what the pages say.

mod bad_input;
mod extras;
mod hostile;
mod joints;
mod kinds;
mod playback;
mod processes;
mod recordings;
mod renditions;
mod worker;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::program;

/// Runs FFmpeg's own command, the independent maker of inputs.
fn ffmpeg(arguments: &[&str]) {
    let output =
        Command::new("ffmpeg").args(["-v", "error", "-nostdin", "-y"]).args(arguments).output().expect("ffmpeg starts");
    assert!(output.status.success(), "ffmpeg {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file made by FFmpeg in `dir`.
fn make(dir: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let path = dir.join(name);
    let mut all = arguments.to_vec();
    let text = path.to_str().expect("a plain path").to_owned();
    all.push(&text);
    ffmpeg(&all);
    path
}

/// `lyceum-transcoder run`.
fn transcode(input: &Path, out: &Path) -> Output {
    Command::new(program("lyceum-transcoder")).arg("run").args([input, out]).output().expect("the transcoder starts")
}

/// The same, which must succeed.
fn transcoded(input: &Path, out: &Path) {
    let output = transcode(input, out);
    assert!(output.status.success(), "{}: {}", input.display(), String::from_utf8_lossy(&output.stderr));
}

/// ffprobe's JSON.
fn probe(path: &Path, arguments: &[&str]) -> Value {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "json"])
        .args(arguments)
        .arg(path)
        .output()
        .expect("ffprobe starts");
    assert!(output.status.success(), "ffprobe {}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("ffprobe writes JSON")
}

fn lesson(out: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(out.join("lesson.json")).expect("lesson.json is there")).expect("it is JSON")
}

/// A track as a player gets it.
#[derive(Debug)]
struct Track {
    name: String,
    video: bool,
    size: (u64, u64),
    /// Presentation and decode times in seconds and whether it is a key frame, in decode order.
    packets: Vec<(f64, f64, bool)>,
    segments: usize,
    /// Where the playlist ends, in seconds. A picture that stands still is one long frame of up to a second.
    end: f64,
}

/// Reads the tracks of an output through their playlists, and checks what is true of every one.
fn tracks(out: &Path) -> Vec<Track> {
    let lesson = lesson(out);
    let renditions = lesson["renditions"].as_array().expect("renditions").clone();
    let played = renditions.iter().filter(|rendition| rendition["type"] != "subtitles");
    let tracks: Vec<Track> = played.map(|rendition| track(out, rendition["track"].as_str().expect("a name"))).collect();
    for track in &tracks {
        assert!((track.packets[0].0).abs() < 0.001, "{} starts at {}", track.name, track.packets[0].0);
        let (end, first) = (track.end, &tracks[0]);
        assert!((end - first.end).abs() < 0.2, "{} ends at {end}, {} at {}", track.name, first.name, first.end);
    }
    let master = std::fs::read_to_string(out.join("master.m3u8")).expect("master.m3u8 is there");
    assert!(master.starts_with("#EXTM3U") && !master.contains("event.m3u8"), "{master}");
    assert!(out.join("manifest.mpd").is_file());
    tracks
}

fn track(out: &Path, name: &str) -> Track {
    let playlist = out.join("1").join(name).join("index.m3u8");
    let text = std::fs::read_to_string(&playlist).expect("a media playlist is there");
    let durations: Vec<f64> =
        text.lines().filter_map(|l| l.strip_prefix("#EXTINF:")?.strip_suffix(',')?.parse().ok()).collect();
    let target: f64 =
        text.lines().find_map(|l| l.strip_prefix("#EXT-X-TARGETDURATION:")?.parse().ok()).expect("a target duration");
    assert!(durations.iter().all(|d| d.round() <= target), "{name}: {durations:?} beyond {target}");
    assert!(text.contains("#EXT-X-PLAYLIST-TYPE:VOD") && text.ends_with("#EXT-X-ENDLIST\n"), "{text}");

    let found = probe(&playlist, &["-show_streams", "-show_packets"]);
    let stream = &found["streams"][0];
    let number = |value: &Value| value.as_str().and_then(|t| t.parse::<f64>().ok()).expect("a time");
    let packets: Vec<(f64, f64, bool)> = found["packets"]
        .as_array()
        .expect("packets")
        .iter()
        .map(|p| {
            (number(&p["pts_time"]), number(&p["dts_time"]), p["flags"].as_str().is_some_and(|f| f.starts_with('K')))
        })
        .collect();
    let video = stream["codec_type"] == "video";
    let mut shown: Vec<f64> = packets.iter().map(|p| p.0).collect();
    shown.sort_by(f64::total_cmp);
    assert!(shown.windows(2).all(|w| w[1] > w[0]), "{name}: two frames at one time");
    assert!(packets.windows(2).all(|w| w[1].1 > w[0].1), "{name}: decode times do not rise");
    let (end, last) = (durations.iter().sum::<f64>(), shown.last().copied().unwrap_or_default());
    // Sound has a frame each 21 ms; a picture that stands still is one frame for up to a second.
    let longest = if video { 1.1 } else { 0.2 };
    assert!((0.0..longest).contains(&(end - last)), "{name}: the last frame is at {last}, the end at {end}");
    if video {
        // Each segment begins with a key frame at its very start.
        let mut start = 0.0;
        for duration in &durations {
            assert!(packets.iter().any(|p| p.2 && (p.0 - start).abs() < 0.002), "{name}: no key frame at {start}");
            start += duration;
        }
    }
    let size = (stream["width"].as_u64().unwrap_or(0), stream["height"].as_u64().unwrap_or(0));
    if !text.contains("#EXT-X-KEY") {
        let read = second_reading(&playlist, &text);
        let number = |name: &str| read[name].as_str().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        assert_eq!(number("FrameCount") as usize, packets.len(), "{name}: {read}");
        assert!((number("Duration") - end).abs() < 0.2, "{name} ends at {end}: {read}");
        assert_eq!((number("Width") as u64, number("Height") as u64), size, "{name}: {read}");
        let codec = stream["codec_name"].as_str().unwrap_or_default();
        let format = read["Format"].as_str().unwrap_or_default();
        assert!(
            [("h264", "AVC"), ("hevc", "HEVC"), ("av1", "AV1"), ("aac", "AAC")].contains(&(codec, format)),
            "{read}"
        );
    }
    Track { name: name.to_owned(), video, size, packets, segments: durations.len(), end }
}

/// A track's init and segments as a parser reads them that shares no code with FFmpeg.
fn second_reading(playlist: &Path, text: &str) -> Value {
    let folder = playlist.parent().expect("a folder");
    let init = text.split("#EXT-X-MAP:URI=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an init");
    let mut joined = tempfile::Builder::new().suffix(".mp4").tempfile().expect("a temporary file");
    for name in std::iter::once(init).chain(text.lines().filter(|line| line.ends_with(".m4s"))) {
        joined
            .write_all(&std::fs::read(folder.join(name)).expect("what the playlist names is there"))
            .expect("a write");
    }
    let output = Command::new("mediainfo").arg("--Output=JSON").arg(joined.path()).output().expect("mediainfo starts");
    let read: Value = serde_json::from_slice(&output.stdout).expect("mediainfo writes JSON");
    read["media"]["track"][1].clone()
}

/// Everything in a directory with what it holds, to compare outputs.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(&next).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("a file");
                found.push((path.strip_prefix(dir).expect("inside").to_owned(), bytes));
            }
        }
    }
    found.sort();
    found
}

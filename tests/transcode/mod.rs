//! `lyceum-transcoder run` over real encoders' output, judged by ffprobe and by what the pages say.

mod bad_input;
mod changing;
mod extras;
mod hostile;
mod joints;
mod kinds;
mod limits;
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
    told_rates(out, &master);
    tracks
}

/// An attribute of a tag, without its quotes.
fn attribute<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let rest = line.split_once(':')?.1;
    let at = rest.match_indices(&format!("{name}=")).find(|(at, _)| *at == 0 || rest[..*at].ends_with(','))?.0;
    let value = &rest[at + name.len() + 1..];
    match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => value.split(',').next(),
    }
}

/// The length and the bytes of each segment, or key frame, of a playlist, and its target duration.
fn sizes(playlist: &Path) -> (Vec<(f64, f64)>, f64) {
    let text = std::fs::read_to_string(playlist).expect("a playlist");
    let (mut found, mut length, mut range, mut target) = (Vec::new(), 0.0, None, 0.0);
    for line in text.lines() {
        let value = |tag: &str| line.strip_prefix(tag).and_then(|v| v.split([',', '@']).next()?.parse::<f64>().ok());
        length = value("#EXTINF:").unwrap_or(length);
        target = value("#EXT-X-TARGETDURATION:").unwrap_or(target);
        range = value("#EXT-X-BYTERANGE:").or(range);
        if !line.starts_with('#') {
            let whole = || std::fs::metadata(playlist.with_file_name(line)).expect("a segment").len() as f64;
            found.push((length, range.take().unwrap_or_else(whole)));
        }
    }
    (found, target)
}

/// Peak segment bit rate and average as RFC 8216bis defines them: of all runs of half to one and a half target durations.
fn rates(playlist: &Path) -> (f64, f64) {
    let (all, target) = sizes(playlist);
    let rate = |run: &[(f64, f64)]| {
        let (seconds, bytes) = run.iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        (seconds, bytes * 8.0 / seconds)
    };
    let runs = (0..all.len()).flat_map(|from| (from + 1..=all.len()).map(move |to| (from, to)));
    let within = runs.map(|(from, to)| rate(&all[from..to])).filter(|run| (0.5..=1.5).contains(&(run.0 / target)));
    let average = rate(&all).1;
    (within.map(|run| run.1).reduce(f64::max).unwrap_or(average), average)
}

/// Checks what the multivariant playlist says of rates and tracks against the files and against the rules for its tags.
fn told_rates(out: &Path, master: &str) {
    let close = |told: f64, is: f64| told >= is - 1.0 && told <= is * 1.01 + 16.0;
    let number = |line: &str, name: &str| attribute(line, name).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    let group = |kind: &str| {
        let wanted = format!("TYPE={kind}");
        let lines = master.lines().filter(move |l| l.starts_with("#EXT-X-MEDIA:") && l.contains(&wanted));
        lines.map(|l| (l, rates(&out.join(attribute(l, "URI").expect("a URI"))))).collect::<Vec<_>>()
    };
    let (sounds, texts) = (group("AUDIO"), group("SUBTITLES"));
    let mut lines = master.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("#EXT-X-I-FRAME-STREAM-INF:") {
            let (peak, _) = rates(&out.join(attribute(line, "URI").expect("a URI")));
            assert!(close(number(line, "BANDWIDTH"), peak), "{peak} in {line}");
        }
        if !line.starts_with("#EXT-X-STREAM-INF:") {
            continue;
        }
        let own = rates(&out.join(lines.peek().expect("a URI")));
        let most =
            |group: &[(&str, (f64, f64))], of: fn((f64, f64)) -> f64| group.iter().map(|t| of(t.1)).fold(0.0, f64::max);
        // Sound by itself is the variant, and may stand in its group too.
        let sounds = if line.contains("RESOLUTION") { &sounds[..] } else { &[] };
        let peak = own.0 + most(sounds, |r| r.0) + most(&texts, |r| r.0);
        let average = own.1 + most(sounds, |r| r.1) + most(&texts, |r| r.1);
        assert!(close(number(line, "BANDWIDTH"), peak), "the peak is {peak}: {line}");
        assert!(close(number(line, "AVERAGE-BANDWIDTH"), average), "the average is {average}: {line}");
        if line.contains("RESOLUTION") {
            assert!(line.contains(",VIDEO-RANGE=SDR") && line.ends_with(",CLOSED-CAPTIONS=NONE"), "{line}");
            assert!(number(line, "FRAME-RATE") > 0.0, "{line}");
        }
    }
    for group in [sounds, texts] {
        let of = |names: &[&str]| -> Vec<String> {
            let all =
                |line: &str| names.iter().map(|n| attribute(line, n).unwrap_or("-")).collect::<Vec<_>>().join(" ");
            let mut found: Vec<String> = group.iter().map(|(line, _)| all(line)).collect();
            found.sort();
            found
        };
        let names = of(&["NAME"]);
        assert!(names.windows(2).all(|two| two[0] != two[1]), "two tracks of one name: {names:?}");
        let chosen = of(&["AUTOSELECT", "LANGUAGE", "FORCED", "CHARACTERISTICS"]);
        let doubt = chosen.windows(2).any(|two| two[0] == two[1] && two[0].starts_with("YES"));
        assert!(!doubt, "two tracks that a player can't tell apart: {chosen:?}");
    }
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
        if codec == "h264" {
            // As FFmpeg reads the bitstream.
            let level = stream["level"].as_u64().unwrap_or(0);
            let wanted = format!("CODECS=\"avc1.6400{level:02x}");
            let master = std::fs::read_to_string(playlist.ancestors().nth(3).expect("the output").join("master.m3u8"));
            assert!(stream["profile"] == "High" && master.is_ok_and(|m| m.contains(&wanted)), "{name}: {wanted}");
        }
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

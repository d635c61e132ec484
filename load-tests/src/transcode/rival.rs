//! Debian's `ffmpeg` making the same renditions: sizes, caps and quality of the default ladder, x264's `veryfast`, AAC,
//! segments of four seconds as fragmented MP4 with one playlist each.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lyceum_core::time::monotonic;
use lyceum_packaging::Ladder;
use lyceum_packaging::ladder::Fitted;
use serde_json::Value;

use super::command_line::{program, text};
use super::cost::{Cost, descendants, measured};
use super::error::{Result, TranscodeError, failed};

/// Runs ffmpeg to make an input.
pub(super) fn ffmpeg(arguments: &[&str]) -> Result<()> {
    let command = [&["ffmpeg", "-v", "error", "-nostdin", "-y"][..], arguments].concat();
    measured(&command).map(drop)
}

/// The same ladder as options of ffmpeg.
pub(super) struct Rival {
    rungs: Vec<Fitted>,
    /// Frames in a segment.
    frames: String,
    sound: bool,
}

impl Rival {
    /// For a source of square pixels.
    pub(super) fn new(source: &Path) -> Result<Self> {
        let output = Command::new("ffprobe")
            .args(["-v", "error", "-of", "json", "-show_streams"])
            .arg(source)
            .output()
            .map_err(failed("ffprobe"))?;
        let found: Value =
            serde_json::from_slice(&output.stdout).map_err(|e| TranscodeError(format!("ffprobe: {e}")))?;
        let streams = found.get("streams").and_then(Value::as_array).cloned().unwrap_or_default();
        let picture = streams.iter().find(|s| s.get("codec_type").is_some_and(|kind| kind == "video"));
        let picture = picture.ok_or_else(|| TranscodeError("the recording has no picture".to_owned()))?;
        let side = |name: &str| {
            picture.get(name).and_then(Value::as_u64).and_then(|side| u32::try_from(side).ok()).unwrap_or(0)
        };
        let rate = picture.get("r_frame_rate").and_then(Value::as_str).and_then(|rate| rate.split_once('/'));
        let rate = rate.and_then(|(n, d)| Some(n.parse::<f64>().ok()? / d.parse::<f64>().ok()?)).unwrap_or(25.0);
        Ok(Self {
            rungs: Ladder::default().fit(side("width"), side("height")),
            frames: ((rate * 4.0).round() as u64).to_string(),
            sound: streams.iter().any(|s| s.get("codec_type").is_some_and(|kind| kind == "audio")),
        })
    }

    /// Transcodes `source` into `out`.
    pub(super) fn run(&self, source: &Path, out: &Path) -> Result<Cost> {
        let _ = std::fs::remove_dir_all(out);
        std::fs::create_dir_all(out).map_err(failed(out.display()))?;
        let arguments = self.arguments(text(source)?, text(out)?);
        measured(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn arguments(&self, source: &str, out: &str) -> Vec<String> {
        let mut all: Vec<String> =
            ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", source].map(str::to_owned).to_vec();
        let outs: String = (0..self.rungs.len()).map(|n| format!("[s{n}]")).collect();
        let mut graph = format!("[0:v]split={}{outs}", self.rungs.len());
        for (n, rung) in self.rungs.iter().enumerate() {
            graph.push_str(&format!(";[s{n}]scale={}:{}:flags=bicubic[v{n}]", rung.width, rung.height));
        }
        all.extend(["-filter_complex".to_owned(), graph]);
        let mut streams = Vec::new();
        for (n, rung) in self.rungs.iter().enumerate() {
            let cap = rung.rung.max_bitrate.0.to_string();
            let own = [
                ("-map", format!("[v{n}]")),
                ("-crf", rung.rung.crf().to_string()),
                ("-maxrate", cap.clone()),
                ("-bufsize", cap),
            ];
            for (name, value) in own {
                all.push(if name == "-map" { name.to_owned() } else { format!("{name}:v:{n}") });
                all.push(value);
            }
            let group = if self.sound { ",agroup:a" } else { "" };
            streams.push(format!("v:{n}{group},name:v{}", rung.rung.height));
        }
        let video = ["-c:v", "libx264", "-preset", "veryfast", "-profile:v", "high", "-g", &self.frames, "-keyint_min"];
        all.extend(video.map(str::to_owned));
        all.extend([&self.frames, "-sc_threshold", "0", "-pix_fmt", "yuv420p"].map(str::to_owned));
        if self.sound {
            all.extend(["-map", "0:a:0", "-c:a", "aac", "-b:a", "128k", "-ac", "2", "-ar", "48000"].map(str::to_owned));
            streams.push("a:0,agroup:a,name:a".to_owned());
        }
        let hls = ["-f", "hls", "-hls_time", "4", "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4"];
        all.extend(hls.map(str::to_owned));
        all.extend(["-var_stream_map".to_owned(), streams.join(" ")]);
        let names = [("-hls_segment_filename", "%v/%05d.m4s"), ("-hls_fmp4_init_filename", "init.mp4")];
        for (name, value) in names {
            all.extend([
                name.to_owned(),
                if name.contains("init") { value.to_owned() } else { format!("{out}/{value}") },
            ]);
        }
        all.push(format!("{out}/%v/index.m3u8"));
        all
    }
}

/// Seconds from the start of a run over `source` to the first segment of all its tracks; the run is then stopped.
pub(super) fn first_segments(source: &Path, folder: &Path) -> Result<f64> {
    let out = folder.join("first");
    let _ = std::fs::remove_dir_all(&out);
    let start = monotonic();
    let mut child = Command::new(program("lyceum-transcoder"))
        .arg("run")
        .args([source, &out])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed("lyceum-transcoder"))?;
    let seconds = loop {
        if begun(folder) {
            break (monotonic() - start).as_secs_f64();
        }
        if child.try_wait().map_err(failed("waiting"))?.is_some() {
            return Err(TranscodeError("the run ended before its first segments were there".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    let _ = child.wait();
    while !descendants(child.id()).is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(seconds)
}

/// Whether every track that a run is making has its first segment, whole.
fn begun(folder: &Path) -> bool {
    let making = |name: &str| name.starts_with(".first.making-");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let Some(making) = entries.map(|e| e.path()).find(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(making))
    else {
        return false;
    };
    let tracks: Vec<PathBuf> =
        std::fs::read_dir(making.join("1")).into_iter().flatten().flatten().map(|e| e.path()).collect();
    let tracks: Vec<&PathBuf> = tracks.iter().filter(|path| path.is_dir()).collect();
    !tracks.is_empty() && tracks.iter().all(|t| t.join("00000-0.m4s").metadata().is_ok_and(|m| m.len() > 0))
}

/// The bytes of the segments in a directory.
pub(super) fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let segments = entries.filter(|e| e.path().extension().is_some_and(|e| e == "m4s"));
    segments.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}

/// How alike two recordings are, frame by frame, on the grid of 25 a second.
pub(super) fn ssim(one: &Path, other: &Path) -> Result<f64> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-i"])
        .arg(one)
        .arg("-i")
        .arg(other)
        .args(["-lavfi", "[0:v]fps=25,format=yuv420p[a];[1:v]fps=25,format=yuv420p[b];[a][b]ssim", "-f", "null", "-"])
        .output()
        .map_err(failed("ffmpeg"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = said.rsplit("All:").next().and_then(|t| t.split_whitespace().next()).and_then(|t| t.parse().ok());
    value.ok_or_else(|| TranscodeError(format!("ffmpeg told no SSIM of {}", one.display())))
}

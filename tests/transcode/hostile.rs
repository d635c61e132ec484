//! Files made to hurt: bombs in headers, pictures and streams without measure, clocks that lie. Each ends soon, as a
//! lesson or with a code and a sentence that its creator understands, and leaves nothing behind.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{lesson, make};
use crate::support::{heavy, program, until};

/// How long any of them may take, with room for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most resident memory of any process, in KiB.
const MEMORY: u64 = 1 << 20;

/// What must come of a file.
enum Comes {
    /// Refused with one of these codes; the sentence holds these words.
    Refused(&'static [&'static str], &'static str),
    /// A lesson of about so many seconds, with these warnings.
    Lesson(f64, &'static [&'static str]),
    /// Refused, or what can be played of it.
    Either(&'static [&'static str]),
}
use Comes::{Either, Lesson, Refused};

/// A box of ISO/IEC 14496-12.
fn atom(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 8).expect("a small box");
    [&size.to_be_bytes()[..], kind, body].concat()
}

/// Where the last box called `kind` begins.
fn find(bytes: &[u8], kind: &[u8; 4]) -> usize {
    bytes.windows(4).rposition(|w| w == kind).expect("the box is there") - 4
}

/// The file with `value` at `offset` of its last box `kind`, counted from the end of the box's head.
fn patched(bytes: &[u8], kind: &[u8; 4], offset: usize, value: &[u8]) -> Vec<u8> {
    let (at, mut all) = (find(bytes, kind) + 8 + offset, bytes.to_vec());
    all[at..at + value.len()].copy_from_slice(value);
    all
}

/// A box within itself, `depth` times.
fn nested(kind: &[u8; 4], depth: usize) -> Vec<u8> {
    (0..depth).fold(Vec::new(), |inner, _| atom(kind, &inner))
}

/// The file with its one track told `count` times: `moov` is its last box.
fn repeated_track(bytes: &[u8], count: usize) -> Vec<u8> {
    let (moov, trak) = (find(bytes, b"moov"), find(bytes, b"trak"));
    let size = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let track = &bytes[trak..trak + size(trak)];
    let body = [&bytes[moov + 8..trak], &track.repeat(count), &bytes[trak + track.len()..moov + size(moov)]].concat();
    [&bytes[..moov], &atom(b"moov", &body)].concat()
}

/// Where every sample is one byte of one chunk, and there are `count`.
fn samples_of_a_byte(bytes: &[u8], count: u32) -> Vec<u8> {
    let count = count.to_be_bytes();
    let sized = patched(bytes, b"stsz", 4, &[&1u32.to_be_bytes()[..], &count].concat());
    let chunked = patched(&sized, b"stsc", 8 + 4, &count);
    patched(&chunked, b"stts", 8, &count)
}

fn files(dir: &Path) -> Vec<(&'static str, Vec<u8>, Comes)> {
    let small = ["-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=5", "-preset", "ultrafast", "-g", "25"];
    let made = |name: &str, options: &[&str]| {
        std::fs::read(make(dir, name, &[&small[..], options].concat())).expect("a recording")
    };
    let plain = made("plain.mp4", &["-c:v", "libx264"]);
    let still = made("still.avi", &["-c:v", "mjpeg"]);
    let transport = made("stream.ts", &["-c:v", "libx264"]);
    // Frames of an index of their own each: no B-frames, so that patched tables agree.
    let flat = made("flat.mp4", &["-c:v", "libx264", "-bf", "0", "-x264-params", "keyint=250"]);
    let many = 0x7fff_fff0u32.to_be_bytes();
    let table = |kind: &[u8; 4], offset: usize| patched(&plain, kind, offset, &many);
    let any: &[&str] = &["media_not_video", "media_limit_exceeded", "media_empty"];
    let side = 32_768u32.to_le_bytes();
    let frame = still.windows(2).position(|w| w == [0xff, 0xc0]).expect("a frame header");
    let mut giant_frames = still.clone();
    let mut at = Some(frame);
    while let Some(found) = at {
        giant_frames[found + 5..found + 9].copy_from_slice(&[0x7f, 0xf8, 0x7f, 0xf8]);
        at = giant_frames[found + 9..].windows(2).position(|w| w == [0xff, 0xc0]).map(|next| found + 9 + next);
    }
    let giant_header = {
        let head = still.windows(4).position(|w| w == b"strf").expect("a stream format") + 8;
        let mut all = still.clone();
        all[head + 4..head + 8].copy_from_slice(&side);
        all[head + 8..head + 12].copy_from_slice(&side);
        // Raw pictures take their size from the header alone.
        all[head + 16..head + 20].copy_from_slice(b"I420");
        all
    };
    let later = &["-c:v", "libx264", "-output_ts_offset", "3"];
    let recorded = made("r.webm", &["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-live", "1"]);
    vec![
        ("samples.mp4", table(b"stsz", 8), Either(any)),
        ("chunks.mp4", table(b"stco", 4), Either(any)),
        ("times.mp4", table(b"stts", 4), Either(any)),
        ("runs.mp4", table(b"stsc", 4), Either(any)),
        ("keys.mp4", table(b"stss", 4), Either(any)),
        ("edits.mp4", table(b"elst", 4), Either(any)),
        ("bomb.mp4", samples_of_a_byte(&flat, 0x3fff_fff0), Either(any)),
        ("nested.mp4", [atom(b"ftyp", b"isom\0\0\0\0isom"), nested(b"moov", 100_000)].concat(), Refused(any, "")),
        ("deep.mp4", [&plain[..], &atom(b"moov", &nested(b"udta", 50_000))].concat(), Either(any)),
        ("declared.mp4", [&1u32.to_be_bytes()[..], b"moov", &(1u64 << 62).to_be_bytes()].concat(), Refused(any, "")),
        ("giant-frames.avi", giant_frames, Either(any)),
        ("giant-header.avi", giant_header, Refused(any, "picture")),
        ("tracks.mp4", repeated_track(&plain, 3000), Refused(&["media_limit_exceeded"], "streams")),
        ("half.ts", transport[..transport.len() / 2].to_vec(), Lesson(2.5, &[])),
        ("noise-within.ts", noisy(&transport), Lesson(5.0, &[])),
        // The clock of 33 bits ends in the middle of one, and an edit list leaves out what is before 0 of the other.
        ("wrap.ts", made("w.ts", &["-c:v", "libx264", "-output_ts_offset", "95440"]), Lesson(5.0, &[])),
        (
            "negative.mp4",
            made("n.mp4", &["-c:v", "libx264", "-output_ts_offset", "-3", "-avoid_negative_ts", "disabled"]),
            Lesson(2.0, &[]),
        ),
        (
            "jump.mkv",
            made("j.mkv", &["-vf", "setpts='PTS+gt(N,60)*600/TB'", "-vsync", "passthrough", "-c:v", "libx264"]),
            Lesson(605.0, &[]),
        ),
        (
            "far.mkv",
            made("f.mkv", &["-vf", "setpts='PTS+gt(N,60)*100000/TB'", "-vsync", "passthrough", "-c:v", "libx264"]),
            Refused(&["media_limit_exceeded"], "longer than"),
        ),
        // A clock that goes back is gone on with. Where a muxer did not let it, two seconds have no time of their own.
        ("backwards.ts", [made("b0.ts", &["-c:v", "libx264"]), made("b3.ts", later)].concat(), Lesson(10.0, &[])),
        (
            "stuck.ts",
            made("s.ts", &["-c:v", "libx264", "-bsf:v", "setts=ts=TS-gt(N\\,60)*180000"]),
            Lesson(3.0, &["media_clock_damaged"]),
        ),
        (
            "stuck.mkv",
            made("s.mkv", &["-c:v", "libx264", "-bsf:v", "setts=ts=TS-gt(N\\,60)*2000"]),
            Lesson(3.0, &["media_clock_damaged"]),
        ),
        // As browsers record: neither length nor index, and nothing tells where another recording begins.
        ("joined.webm", recorded.repeat(2), Lesson(5.0, &["media_clock_damaged"])),
        (
            "stuck.mp4",
            made("s.mp4", &["-c:v", "libx264", "-bsf:v", "setts=ts=TS-gt(N\\,60)*25600"]),
            Lesson(3.0, &["media_clock_damaged"]),
        ),
    ]
}

/// A stream whose middle is noise: ten packets of it.
fn noisy(stream: &[u8]) -> Vec<u8> {
    let mut all = stream.to_vec();
    let from = stream.len() / 188 / 2 * 188;
    all[from..from + 1880].iter_mut().zip(0u32..).for_each(|(b, n)| *b = (n.wrapping_mul(2_654_435_761) >> 11) as u8);
    all
}

struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The most memory that each process of a run has held, in KiB.
fn peak(id: u32) -> u64 {
    let of = |id: u32| {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
    };
    super::processes::children(id).into_iter().map(of).max().unwrap_or(0)
}

#[test]
fn what_is_made_to_hurt_ends_soon_and_says_why() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let files = files(dir);
    let mut wrong = Vec::new();
    for (name, bytes, comes) in &files {
        let (input, out) = (dir.join(format!("in-{name}")), dir.join("out"));
        std::fs::write(&input, bytes).expect("a file");
        let mut run = Run(Command::new(program("lyceum-transcoder"))
            .arg("run")
            .args([&input, &out])
            .stderr(Stdio::from(std::fs::File::create(dir.join("said")).expect("a file")))
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts"));
        let mut most = 0;
        let status = until(name, PATIENCE, || {
            most = most.max(peak(run.0.id()));
            run.0.try_wait().expect("a child")
        });
        let said = std::fs::read_to_string(dir.join("said")).expect("what it said");
        // Above it may stand lines of the log: a task that was tried again.
        let last = said.trim().lines().last().unwrap_or_default();
        let code =
            last.strip_prefix("lyceum-transcoder: ").and_then(|s| s.split_once(": ")).map_or("", |(code, _)| code);
        let refused =
            |codes: &[&str], words: &str| status.code() == Some(1) && codes.contains(&code) && last.contains(words);
        let made = status.success().then(|| lesson(&out));
        let good = match (comes, &made) {
            (Refused(codes, words), _) => refused(codes, words),
            (Lesson(seconds, warnings), Some(lesson)) => {
                let found = lesson["duration"].as_f64().unwrap_or(0.0);
                let told = |w: &&str| said.contains(&format!("warning: {w}: The recording's clock "));
                (found - seconds).abs() < 0.6
                    && lesson["warnings"] == serde_json::json!(warnings)
                    && warnings.iter().all(told)
            }
            (Lesson(..), None) => false,
            (Either(codes), made) => made.is_some() || refused(codes, ""),
        };
        if !good || most > MEMORY {
            let found = made.map(|lesson| format!("{} {}", lesson["duration"], lesson["warnings"]));
            wrong.push(format!("{name}: {status}, {most} KiB, {said} {found:?}"));
        }
        assert_eq!(out.exists(), status.success(), "{name}");
        let _ = std::fs::remove_dir_all(&out);
        let left = std::fs::read_dir(dir).expect("a directory").filter_map(Result::ok);
        let left: Vec<_> = left.filter(|e| e.file_name().to_string_lossy().contains("making")).collect();
        assert!(left.is_empty(), "{name} left {left:?}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! Recordings that change on the way: their rate, their shape, their fields, the clock of their sound.

use std::fmt::Write as _;
use std::path::Path;

use super::joints::{raw, ssim};
use super::{lesson, make, probe, tracks, transcoded};
use crate::support::heavy;

fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Joins files of one kind without encoding them again.
fn joined(dir: &Path, name: &str, parts: &[&Path]) -> std::path::PathBuf {
    let list = parts.iter().fold(String::new(), |mut list, part| {
        let _ = writeln!(list, "file '{}'", part.display());
        list
    });
    std::fs::write(dir.join("parts"), list).expect("a file");
    let list = dir.join("parts");
    make(dir, name, &["-f", "concat", "-safe", "0", "-i", plain(&list), "-c", "copy"])
}

#[test]
fn the_liveliest_part_keeps_its_frames() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let codec = ["-vsync", "vfr", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "250"];
    let source = |slow: &str| format!("testsrc2=s=160x90:r=30:d=22,select='if(lt(t\\,12)\\,not(mod(n\\,{slow}))\\,1)'");
    let made = |name: &str, slow: &str| make(dir, name, &[&["-f", "lavfi", "-i", &source(slow)][..], &codec].concat());
    let doubles = made("doubles.mp4", "2");
    let wakes = made("wakes.mp4", "30");
    let copied =
        |name: &str, options: &[&str]| make(dir, name, &[&["-i", plain(&wakes), "-c", "copy"][..], options].concat());
    let fragments = copied("fragments.mp4", &["-movflags", "frag_keyframe+empty_moov+default_base_moof"]);
    // As a recorder leaves it that was ended by force: without the list of its fragments.
    let cut = dir.join("cut.mp4");
    let whole = std::fs::read(&fragments).expect("a file");
    let list = whole.windows(4).rposition(|four| four == b"mfra").expect("a list of fragments") - 4;
    std::fs::write(&cut, &whole[..list]).expect("a file");
    for input in [doubles, fragments, cut, copied("wakes.mkv", &[]), copied("wakes.flv", &[])] {
        let frames = |path: &Path| probe(path, &["-show_packets"])["packets"].as_array().map_or(0, Vec::len);
        let out = dir.join("out");
        transcoded(&input, &out);
        let (taken, found) = (frames(&input), tracks(&out).pop().expect("a track"));
        let kept = found.packets.len();
        assert!(kept * 100 >= taken * 97, "{}: {kept} of {taken}", input.display());
        assert_eq!(lesson(&out)["frame_rate"], 30.0, "{}", input.display());
        assert!((found.end - 22.0).abs() < 0.2, "{} ends at {}", input.display(), found.end);
        std::fs::remove_dir_all(&out).expect("the output goes");
    }
}

/// The mean luma of the left third, the middle and the right third at an instant.
fn thirds(playlist: &Path, at: &str) -> Vec<u8> {
    raw(playlist, &["-ss", at, "-frames:v", "1", "-vf", "scale=3:1:flags=area", "-pix_fmt", "gray", "-f", "rawvideo"])
}

#[test]
fn a_lesson_has_the_shape_that_is_shown_longest_at_its_largest() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let part = |name: &str, size: &str, seconds: u32| {
        let source = format!("color=white:s={size}:r=10:d={seconds}");
        make(dir, name, &["-f", "lavfi", "-i", &source, "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"])
    };
    let (small, large) = (part("small.webm", "320x180", 3), part("large.webm", "640x360", 8));
    let turned = part("turned.webm", "360x640", 4);
    let input = joined(dir, "call.webm", &[&small, &large, &turned]);
    let out = dir.join("out");
    transcoded(&input, &out);
    assert_eq!(tracks(&out).last().map(|t| t.size), Some((640, 360)));
    // What was small fills the picture; what was turned stands upright between black bars.
    let playlist = out.join("1/v360/index.m3u8");
    for (at, wanted) in [("1", [235, 235, 235]), ("5", [235; 3]), ("13", [16, 235, 16])] {
        let seen = thirds(&playlist, at);
        let alike = seen.len() == 3 && seen.iter().zip(wanted).all(|(seen, wanted)| seen.abs_diff(wanted) < 40);
        assert!(alike, "at {at} s: {seen:?}, not {wanted:?}");
    }
}

#[test]
fn mirrors_are_as_ffmpeg_reads_them() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let source = make(
        dir,
        "plain.mp4",
        &[
            "-f",
            "lavfi",
            "-i",
            "testsrc=s=320x240:r=10:d=1",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-pix_fmt",
            "yuv420p",
        ],
    );
    let bytes = std::fs::read(source).expect("a file");
    let matrix = bytes.windows(4).position(|four| four == b"tkhd").expect("a track") + 44;
    // Columns of the display matrix: mirrored, upside down, and mirrored on either diagonal.
    for (name, [a, b, c, d], [x, y]) in [
        ("mirrored", [-1, 0, 0, 1], [320, 0]),
        ("flipped", [1, 0, 0, -1], [0, 240]),
        ("diagonal", [0, 1, 1, 0], [0, 0]),
        ("other-diagonal", [0, -1, -1, 0], [240, 320]),
    ] {
        let mut turned = bytes.clone();
        for (place, value) in [a, b, 0, c, d, 0, x, y].into_iter().enumerate() {
            let value: i32 = value * 65_536;
            turned[matrix + place * 4..matrix + place * 4 + 4].copy_from_slice(&value.to_be_bytes());
        }
        let input = dir.join(format!("{name}.mp4"));
        std::fs::write(&input, turned).expect("a file");
        let out = dir.join("out");
        transcoded(&input, &out);
        let alike = ssim(&out.join("1/v240/index.m3u8"), &input);
        assert!(alike > 0.97, "{name}: {alike}");
        std::fs::remove_dir_all(&out).expect("the output goes");
    }
}

#[test]
fn each_frame_is_judged_by_its_own_fields() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let part = |name: &str, rate: u32, options: &[&str]| {
        let source = format!("testsrc2=s=352x288:r={rate}:d=5");
        let codec = ["-c:v", "mpeg2video", "-b:v", "4M", "-pix_fmt", "yuv420p"];
        make(dir, name, &[&["-f", "lavfi", "-i", &source][..], options, &codec].concat())
    };
    let frames = part("frames.ts", 25, &[]);
    let fields = part("fields.ts", 50, &["-vf", "interlace", "-flags", "+ildct+ilme"]);
    let input = joined(dir, "mixed.ts", &[&frames, &fields]);
    let out = dir.join("out");
    transcoded(&input, &out);
    assert_eq!(lesson(&out)["source"]["video"]["interlaced"], true);
    let wanted = make(
        dir,
        "wanted.mkv",
        &["-i", plain(&input), "-vf", "bwdif=mode=send_frame:deint=interlaced", "-r", "25", "-c:v", "ffv1"],
    );
    let alike = ssim(&out.join("1/v288/index.m3u8"), &wanted);
    assert!(alike > 0.95, "{alike}");
}

/// The loudness of each 10 ms from the first half second to the last, and where it falls below 0.8 of the usual, in
/// seconds.
fn holes(playlist: &Path) -> Vec<f64> {
    let bytes = raw(playlist, &["-vn", "-ac", "1", "-ar", "48000", "-f", "s16le"]);
    let samples: Vec<f64> = bytes.chunks_exact(2).map(|two| f64::from(i16::from_le_bytes([two[0], two[1]]))).collect();
    let inner = &samples[24_000..samples.len() - 24_000];
    let level = |window: &[f64]| (window.iter().map(|s| s * s).sum::<f64>() / window.len() as f64).sqrt();
    let levels: Vec<f64> = inner.chunks_exact(480).map(level).collect();
    let mut sorted = levels.clone();
    sorted.sort_by(f64::total_cmp);
    let usual = sorted[sorted.len() / 2];
    let quiet = levels.iter().enumerate().filter(|(_, level)| **level < usual * 0.8);
    quiet.map(|(n, _)| 0.5 + n as f64 / 100.0).collect()
}

/// Where the phase of a tone of about 440 Hz steps, in seconds: at holes, and where tasks do not join.
fn steps(playlist: &Path) -> Vec<f64> {
    let bytes = raw(playlist, &["-vn", "-ac", "1", "-ar", "48000", "-f", "s16le"]);
    let samples: Vec<f64> = bytes.chunks_exact(2).map(|two| f64::from(i16::from_le_bytes([two[0], two[1]]))).collect();
    let inner = &samples[24_000..samples.len() - 24_000];
    let turn = std::f64::consts::TAU;
    let phase = |(n, window): (usize, &[f64])| {
        let angle = |k: usize| (n * 480 + k) as f64 * 440.0 / 48_000.0 * turn;
        let sum = |of: fn(f64) -> f64| window.iter().enumerate().map(|(k, s)| s * of(angle(k))).sum::<f64>();
        sum(f64::sin).atan2(sum(f64::cos))
    };
    let phases: Vec<f64> = inner.chunks_exact(480).enumerate().map(phase).collect();
    let far = |pair: &[f64]| {
        let by = (pair[1] - pair[0]).rem_euclid(turn);
        by.min(turn - by)
    };
    // A clock that runs 0.2 % slow turns the phase by 0.06 in 10 ms.
    let stepped = phases.windows(2).enumerate().filter(|(_, pair)| far(pair) > 0.2);
    stepped.map(|(n, _)| 0.5 + n as f64 / 100.0).collect()
}

#[test]
fn a_tone_stays_whole_whatever_clock_stamped_it() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let tone = ["-f", "lavfi", "-i", "aevalsrc='0.4*sin(2*PI*440*t)':s=48000:d=26"];
    let stamped = |name: &str, frame: &str, times: &str| {
        let filter = format!("setts=ts={times}");
        let codec = ["-c:a", "libopus", "-b:a", "96k", "-frame_duration", frame, "-bsf:a", &filter];
        make(dir, name, &[&tone[..], &codec].concat())
    };
    let jitter = stamped("jitter.webm", "60", "PTS+round((random(0)-0.5)*30)");
    let slow = stamped("slow.webm", "20", "round(PTS*1.002)");
    let paused = stamped("paused.webm", "20", "if(lt(PTS\\,12000)\\,PTS\\,PTS+400)");
    for (input, seconds) in [(&jitter, 26.0), (&slow, 26.05), (&paused, 26.4)] {
        let out = dir.join("out");
        transcoded(input, &out);
        let playlist = out.join("1/a-und/index.m3u8");
        let found = holes(&playlist);
        let end = tracks(&out)[0].end;
        assert!((end - seconds).abs() < 0.1, "{}: {end} s", input.display());
        if input == &paused {
            // Silence where sound is missing, and there alone.
            let length = found.len() as f64 / 100.0;
            assert!((0.38..=0.43).contains(&length), "{length} s of silence: {found:?}");
            assert!(found.iter().all(|at| (11.95..12.45).contains(at)), "{found:?}");
        } else {
            assert!(found.is_empty(), "{}: holes at {found:?}", input.display());
            let steps = steps(&playlist);
            assert!(steps.is_empty(), "{}: the tone jumps at {steps:?}", input.display());
        }
        std::fs::remove_dir_all(&out).expect("the output goes");
    }
}

#[test]
fn joined_program_streams_follow_one_another() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let inputs = ["-f", "lavfi", "-i", "testsrc2=s=352x288:r=25:d=8", "-f", "lavfi", "-i", "sine=d=8:r=48000"];
    let codecs = ["-c:v", "mpeg2video", "-b:v", "2M", "-c:a", "ac3", "-f", "vob"];
    let one = std::fs::read(make(dir, "one.vob", &[&inputs[..], &codecs].concat())).expect("a file");
    let input = dir.join("two.vob");
    std::fs::write(&input, [one.clone(), one].concat()).expect("a file");
    let out = dir.join("out");
    transcoded(&input, &out);
    let found = lesson(&out);
    assert_eq!(found["source"]["breaks"].as_array().map(Vec::len), Some(1), "{}", found["source"]["breaks"]);
    for track in tracks(&out) {
        assert!((track.end - 16.0).abs() < 0.2, "{} ends at {}", track.name, track.end);
        let frames = if track.video { 400 } else { 750 };
        assert!(track.packets.len().abs_diff(frames) < 6, "{}: {} frames", track.name, track.packets.len());
    }
}

#[test]
fn every_channel_is_heard() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    // Sound on the last channel alone: of a layout that has names, and of ones that have none.
    for channels in [2, 3, 6, 10, 16] {
        let quiet = "0|".repeat(channels - 1);
        let source = format!("aevalsrc='{quiet}0.3*sin(2*PI*400*t)':d=3");
        let input = make(dir, "in.wav", &["-f", "lavfi", "-i", &source, "-c:a", "pcm_s16le"]);
        let out = dir.join("out");
        transcoded(&input, &out);
        let heard = raw(&out.join("1/a-und/index.m3u8"), &["-ac", "1", "-f", "s16le"]);
        let peak = heard.chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]]).unsigned_abs()).max();
        assert!(peak > Some(1000), "{channels} channels: a peak of {peak:?}");
        std::fs::remove_dir_all(&out).expect("the output goes");
    }
}

#[test]
fn tracks_of_a_camera_are_one_sound_and_chapters_come_along() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let notes = ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=2000\ntitle=Claim\n\
        [CHAPTER]\nTIMEBASE=1/1000\nSTART=2000\nEND=4000\n";
    std::fs::write(dir.join("notes"), notes).expect("a file");
    let notes = dir.join("notes");
    let tone = |hertz: u32| format!("sine=f={hertz}:d=4:r=48000");
    let (low, high, mute) = (tone(300), tone(900), "anullsrc=r=48000:cl=mono:d=4");
    let picture = ["-f", "lavfi", "-i", "testsrc2=s=160x90:r=25:d=4"];
    let sounds =
        ["-f", "lavfi", "-i", &low, "-f", "lavfi", "-i", &high, "-f", "lavfi", "-i", mute, "-f", "lavfi", "-i", mute];
    let maps =
        ["-i", plain(&notes), "-map", "0", "-map", "1", "-map", "2", "-map", "3", "-map", "4", "-map_metadata", "5"];
    let codecs = ["-c:v", "mpeg4", "-c:a", "pcm_s16le", "-ac", "1"];
    let input = make(dir, "camera.mov", &[&picture[..], &sounds, &maps, &codecs].concat());
    let out = dir.join("out");
    transcoded(&input, &out);
    let tracks = tracks(&out);
    assert_eq!(tracks.iter().filter(|t| !t.video).map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a-und"]);
    // The first track is heard on the left, the second on the right.
    let heard = |side: &str, hertz: u32| {
        let filter = format!("pan=mono|c0={side},bandpass=f={hertz}:w=60");
        let bytes = raw(&out.join("1/a-und/index.m3u8"), &["-af", &filter, "-f", "s16le"]);
        let squares = bytes.chunks_exact(2).map(|two| f64::from(i16::from_le_bytes([two[0], two[1]])).powi(2));
        (squares.sum::<f64>() / (bytes.len() / 2) as f64).sqrt()
    };
    assert!(heard("FL", 300) > heard("FR", 300) * 10.0 && heard("FR", 900) > heard("FL", 900) * 10.0);
    let told = lesson(&out)["chapters"].clone();
    let wanted = serde_json::json!([
        {"start": 0.0, "end": 2.0, "title": "Claim"},
        {"start": 2.0, "end": 4.0, "title": "Chapter 2"},
    ]);
    assert_eq!(told, wanted);
}

#[test]
fn old_and_rare_formats_become_lessons() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let moving = |size: &str| format!("testsrc2=s={size}:r=25:d=2");
    let (tape, small) = (moving("720x576"), moving("160x96"));
    let tone = ["-f", "lavfi", "-i", "sine=d=2:r=48000"];
    for (name, options, pictures) in [
        ("tape.dv", &[&["-f", "lavfi", "-i", &tape][..], &tone, &["-pix_fmt", "yuv420p", "-ac", "2"]].concat()[..], 1),
        ("web.rm", &[&["-f", "lavfi", "-i", &small][..], &["-c:v", "rv20"]].concat(), 1),
        ("voice.wv", &tone, 0),
        ("moving.gif", &["-f", "lavfi", "-i", &small], 1),
        ("moving.apng", &["-f", "lavfi", "-i", &small], 1),
    ] {
        let input = make(dir, name, options);
        let out = dir.join("out");
        transcoded(&input, &out);
        let tracks = tracks(&out);
        assert_eq!(tracks.iter().filter(|t| t.video).count().min(1), pictures, "{name}");
        assert!((tracks[0].end - 2.0).abs() < 0.15, "{name} ends at {}", tracks[0].end);
        std::fs::remove_dir_all(&out).expect("the output goes");
    }
    // A picture that does not move is none.
    for name in ["still.gif", "still.png"] {
        let input = make(dir, name, &["-f", "lavfi", "-i", &small, "-frames:v", "1"]);
        let refused = super::transcode(&input, &dir.join("out"));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains("media_not_video") && said.contains("picture"),
            "{name}: {said}"
        );
    }
}

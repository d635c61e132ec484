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

/// A rendition as it is played, frame by frame at 25 a second.
fn as_played(folder: &Path, out: &Path) -> std::path::PathBuf {
    let playlist = out.join("1/v360/index.m3u8");
    let playlist = playlist.to_str().expect("a path");
    make(
        folder,
        "played.mkv",
        &["-i", playlist, "-vf", "fps=25", "-c:v", "libx264", "-qp", "0", "-preset", "ultrafast"],
    )
}

#[test]
fn slides_are_encoded_when_they_change() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    // A new picture every 3.2 s; what stands still is the same to the bit, or as a lossy encoder leaves it.
    let slides = "mandelbrot=s=640x360:r=25:maxiter=200,trim=duration=20,select='not(mod(n,80))',fps=25,format=yuv420p";
    let picture = ["-f", "lavfi", "-i", slides, "-t", "20"];
    for (name, codec) in [
        ("exact.mkv", &["-c:v", "ffv1"][..]),
        ("lossy.mp4", &["-c:v", "libx264", "-preset", "medium", "-crf", "18", "-g", "60"]),
    ] {
        let input = make(folder.path(), name, &[&picture[..], codec].concat());
        let out = folder.path().join("out");
        transcoded(&input, &out);
        for track in tracks(&out) {
            // One frame a second at most, the changes, the segments' key frames, and the lossy source's own, of 500.
            assert!(track.packets.len() < 50, "{name}: {} has {} frames", track.name, track.packets.len());
        }
        let alike = ssim(&as_played(folder.path(), &out), &input);
        assert!(alike > 0.98, "{name}: {alike}");
        std::fs::remove_dir_all(&out).expect("the output goes");
    }
}

#[test]
fn what_moves_on_a_still_picture_is_shown_when_it_moves() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let page = "color=c=0xf0f0f0:s=640x360:r=25:d=4,drawgrid=w=40:h=40:c=0xd0d0d0,format=yuv420p";
    // A pointer of six by ten that moves each tenth of a second, a letter each half, and a fade over four seconds.
    let pointer = "drawbox=x=20:y=20:w=6:h=10:color=0x404040:t=fill:enable='lt(mod(t,0.2),0.1)'";
    let typed: Vec<String> = (1..8)
        .map(|n| format!("drawbox=x={}:y=200:w=2:h=7:color=0x606060:t=fill:enable='gte(t,{}/2)'", 100 + n * 5, n))
        .collect();
    for (name, filter, least) in [
        ("pointer.mp4", pointer.to_owned(), 38),
        ("typed.mp4", typed.join(","), 8),
        ("fade.mp4", "fade=t=out:st=0:d=4".to_owned(), 80),
    ] {
        let source = format!("{page},{filter}");
        let lossy = ["-f", "lavfi", "-i", &source, "-c:v", "libx264", "-preset", "fast", "-crf", "20"];
        let input = make(folder.path(), name, &lossy);
        let out = folder.path().join("out");
        transcoded(&input, &out);
        let frames = tracks(&out).pop().expect("a track").packets.len();
        assert!((least..=100).contains(&frames), "{name}: {frames} frames");
        let alike = ssim(&as_played(folder.path(), &out), &input);
        assert!(alike > 0.99, "{name}: {alike}");
        std::fs::remove_dir_all(&out).expect("the output goes");
    }
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

/// Runs with a ladder of these rungs at 240 lines: a codec and its cap in kbit/s each.
fn with_rungs(folder: &Path, input: &Path, rungs: &[(&str, u32)]) -> std::path::PathBuf {
    let (ladder, out) = (folder.join("ladder.toml"), folder.join("out"));
    let rung = |(codec, cap): &(&str, u32)| {
        format!("[[video]]\nheight = 240\ncodec = \"{codec}\"\nmax_bitrate = \"{cap}kbps\"\n")
    };
    std::fs::write(&ladder, rungs.iter().map(rung).collect::<String>()).expect("a file");
    let run = Command::new(program("lyceum-transcoder"))
        .arg("run")
        .args([input, &out])
        .arg("--ladder")
        .arg(&ladder)
        .output()
        .expect("it starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    out
}

#[test]
fn hevc_and_av1_stand_beside_h264_and_join_as_if_encoded_in_one_go() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let moving = "testsrc2=s=426x240:r=25:d=21,noise=alls=6:allf=t";
    let arguments = ["-f", "lavfi", "-i", moving, "-c:v", "libx264", "-preset", "ultrafast", "-crf", "12", "-g", "25"];
    let input = make(folder.path(), "in.mp4", &arguments);
    let out = with_rungs(folder.path(), &input, &[("hevc", 400), ("av1", 400)]);
    let tracks = tracks(&out);
    assert_eq!(tracks.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["v240", "v240-hevc", "v240-av1"]);
    let master = std::fs::read_to_string(out.join("master.m3u8")).expect("a master");
    let found = lesson(&out);
    let source = input.to_str().expect("a path");
    let alone: [(&str, &[&str]); 3] = [
        (
            "avc1.6400",
            &["-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-maxrate", "400k", "-bufsize", "400k"],
        ),
        (
            "hvc1.1.6.L",
            &[
                "-c:v",
                "libx265",
                "-preset",
                "veryfast",
                "-crf",
                "26",
                "-x265-params",
                "log-level=none:vbv-maxrate=400:vbv-bufsize=400",
            ],
        ),
        ("av01.0.0", &["-c:v", "libsvtav1", "-preset", "10", "-crf", "35"]),
    ];
    for ((track, rendition), (codec, encoder)) in
        tracks.iter().zip(found["renditions"].as_array().expect("renditions")).zip(alone)
    {
        assert_eq!(track.packets.len(), 525, "{}", track.name);
        assert!(master.contains(&format!("CODECS=\"{codec}")), "{master}");
        let once = make(folder.path(), "once.mkv", &[&["-i", source, "-g", "100"][..], encoder].concat());
        let (ours, theirs) = (ssim(&out.join("1").join(&track.name).join("index.m3u8"), &input), ssim(&once, &input));
        assert!(ours > theirs - 0.005, "{}: {ours} against {theirs} in one go", track.name);
        // What the lesson says of itself is what another meter says: of the luma alone, and over some frames.
        let told = rendition["ssim"].as_f64().expect("a similarity");
        assert!((told - ours).abs() < 0.03, "{}: told {told}, is {ours}", track.name);
    }
}

#[test]
fn no_rendition_passes_its_cap() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let wild = "testsrc2=s=426x240:r=25:d=9,noise=alls=60:allf=t";
    let input = make(folder.path(), "in.mp4", &["-f", "lavfi", "-i", wild, "-c:v", "libx264", "-preset", "ultrafast"]);
    let out = with_rungs(folder.path(), &input, &[("h264", 300), ("hevc", 300), ("av1", 300)]);
    for rendition in lesson(&out)["renditions"].as_array().expect("renditions") {
        let (peak, cap) = (rendition["peak_bitrate"].as_f64(), rendition["max_bitrate"].as_f64());
        let (peak, cap) = (peak.expect("a peak"), cap.expect("a cap"));
        // Of four seconds and a full buffer of one, and the container.
        assert!(peak <= cap * 1.25 + 8_000.0, "{}: {peak} with a cap of {cap}", rendition["track"]);
        assert!(peak > cap * 0.5, "{}: {peak}: nothing that the cap would have to hold", rendition["track"]);
    }
}

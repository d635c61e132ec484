//! What comes along with picture and sound: subtitles, a poster, a storyboard, encryption; and the judgement of a second
//! parser on every playlist.

use std::path::Path;
use std::process::Command;

use super::{contents, lesson, make, probe, tracks, transcode, transcoded};
use crate::support::{heavy, program, repository};

const SUBTITLES: &str =
    "1\n00:00:01,000 --> 00:00:02,500\n<i>Hello</i> there\n\n2\n00:00:03,000 --> 00:00:08,500\nStill & here\n";

/// Nine seconds with sound and subtitles in two languages.
pub fn captioned(folder: &Path) -> std::path::PathBuf {
    std::fs::write(folder.join("lines.txt"), SUBTITLES).expect("a file");
    let lines = folder.join("lines.txt");
    let lines = lines.to_str().expect("a path");
    let picture = ["-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=9", "-f", "lavfi", "-i", "sine=d=9"];
    let text = ["-f", "srt", "-i", lines, "-map", "0", "-map", "1", "-map", "2", "-map", "2"];
    let codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-c:a", "aac", "-c:s", "mov_text"];
    let languages = ["-metadata:s:s:0", "language=eng", "-metadata:s:s:1", "language=ger"];
    make(folder, "talk.mp4", &[&picture[..], &text, &codecs, &languages].concat())
}

/// Reads every playlist of an output with npm's hls-parser in its strict mode: an opinion other than FFmpeg's.
fn judged(out: &Path) {
    let script = "const HLS = (await import('hls-parser')).default; const fs = await import('fs'); HLS.setOptions({strictMode: true});\
        for (const file of process.argv.slice(1)) { const list = HLS.parse(fs.readFileSync(file, 'utf8'));\
        if (list.isMasterPlaylist ? !list.variants.length : !list.segments.length) throw new Error(file + ' lists nothing'); }";
    let playlists: Vec<_> = contents(out)
        .into_iter()
        .map(|(path, _)| out.join(path))
        .filter(|path| path.extension().is_some_and(|e| e == "m3u8"))
        .collect();
    assert!(playlists.len() > 2, "{playlists:?}");
    let output = Command::new("node")
        .args(["--input-type=module", "-e", script])
        .args(&playlists)
        .current_dir(repository("tests/browser"))
        .output()
        .expect("node starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()))
}

/// The MD5 of every decoded frame of the picture.
fn frames(playlist: &Path) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-allowed_extensions", "ALL", "-i"])
        .arg(playlist)
        .args(["-map", "0:v:0", "-f", "framemd5", "-"])
        .output()
        .expect("ffmpeg starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn subtitles_pictures_and_keys_come_along() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let input = captioned(dir);
    std::fs::write(dir.join("talk.fr.srt"), SUBTITLES.replace("Hello", "Bonjour")).expect("a file");
    let out = dir.join("out");
    transcoded(&input, &out);
    judged(&out);

    let master = text(&out.join("master.m3u8"));
    for (name, language, label) in [("s-en", "en", "English"), ("s-de", "de", "Deutsch"), ("s-fr", "fr", "Français")] {
        let listed = format!(
            "TYPE=SUBTITLES,GROUP-ID=\"subtitles\",NAME=\"{label}\",LANGUAGE=\"{language}\",DEFAULT=NO,AUTOSELECT=YES,FORCED=NO,URI=\"1/{name}/index.m3u8\""
        );
        assert!(master.contains(&listed), "{master}");
        let cues = text(&out.join("1").join(name).join("00000-0.vtt"));
        assert!(cues.starts_with("WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000\n"), "{cues}");
        assert!(cues.contains("00:00:03.000 --> 00:00:08.500\nStill &amp; here\n"), "{cues}");
        // FFmpeg reads the whole file as what it is.
        let found = probe(&out.join("1").join(name).join("subtitles.vtt"), &["-show_packets"]);
        assert_eq!(found["packets"].as_array().map(Vec::len), Some(2), "{found}");
    }
    assert!(text(&out.join("1/s-fr/00000-0.vtt")).contains("<i>Bonjour</i> there"));
    assert_eq!(master.matches("SUBTITLES=\"subtitles\"").count(), 2, "{master}");
    let manifest = text(&out.join("manifest.mpd"));
    assert_eq!(manifest.matches("mimeType=\"text/vtt\"").count(), 3, "{manifest}");
    assert!(manifest.contains("<BaseURL>1/s-fr/subtitles.vtt</BaseURL>"), "{manifest}");

    let lesson = lesson(&out);
    assert_eq!((&lesson["poster"], &lesson["storyboard"]), (&"1/poster.jpg".into(), &"1/storyboard.vtt".into()));
    let size = |name: &str| {
        let found = probe(&out.join("1").join(name), &["-show_streams"]);
        (found["streams"][0]["width"].as_u64(), found["streams"][0]["height"].as_u64())
    };
    assert_eq!(size("poster.jpg"), (Some(640), Some(360)));
    // Five tiles of two seconds on one row of eight.
    assert_eq!(size("storyboard-0.jpg"), (Some(8 * 192), Some(108)));
    let board = text(&out.join("1/storyboard.vtt"));
    assert!(board.ends_with("\n00:00:08.000 --> 00:00:09.000\nstoryboard-0.jpg#xywh=768,0,192,108\n"), "{board}");

    let key = dir.join("k1");
    std::fs::write(&key, "000102030405060708090a0b0c0d0e0f\n").expect("a file");
    let hidden = dir.join("hidden");
    let run = Command::new(program("lyceum-transcoder"))
        .arg("run")
        .args([&input, &hidden])
        .args(["--encrypt", key.to_str().expect("a path")])
        .output()
        .expect("it starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    judged(&hidden);
    let playlist = text(&hidden.join("1/v360/index.m3u8"));
    let tags = "#EXT-X-MAP:URI=\"init.mp4\"\n#EXT-X-KEY:METHOD=AES-128,URI=\"../keys/k1\"\n#EXTINF";
    assert!(playlist.contains(tags), "{playlist}");
    assert!(!hidden.join("manifest.mpd").exists() && !hidden.join("1/v360/iframes.m3u8").exists());
    assert!(!text(&hidden.join("master.m3u8")).contains("I-FRAME"));
    let (clear, sealed) =
        ("1/v360/00001-4000.m4s", std::fs::read(hidden.join("1/v360/00001-4000.m4s")).expect("a segment"));
    let clear = std::fs::read(out.join(clear)).expect("a segment");
    assert!(sealed.len() % 16 == 0 && sealed.len() > clear.len() && sealed[..64] != clear[..64]);
    std::fs::create_dir(hidden.join("1/keys")).expect("a directory");
    std::fs::write(hidden.join("1/keys/k1"), (0..16).collect::<Vec<u8>>()).expect("a file");
    let (sealed, clear) = (frames(&hidden.join("1/v360/index.m3u8")), frames(&out.join("1/v360/index.m3u8")));
    assert!(sealed == clear && clear.len() > 5000, "what is decrypted is not what was made");
}

#[test]
fn what_comes_along_must_be_readable() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path();
    let input = make(dir, "talk.mp4", &["-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=1", "-c:v", "libx264"]);
    std::fs::write(dir.join("notes.srt"), "Dear students,").expect("a file");
    let named = |option: &str, value: &str| {
        let mut run = Command::new(program("lyceum-transcoder"));
        let run = run.arg("run").args([&input, &dir.join("out")]).args([option, value]).output().expect("it starts");
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    let path = |name: &str| dir.join(name).to_str().expect("a path").to_owned();
    for (option, value, says) in [
        ("--subtitles", path("missing.srt:en"), "there is no such file"),
        ("--subtitles", path("notes.srt:en"), "holds no subtitles"),
        ("--encrypt", path("missing.key"), "there is no such file"),
        ("--encrypt", path("notes.srt"), "32 hexadecimal digits"),
    ] {
        let (code, said) = named(option, &value);
        assert_eq!(code, Some(2), "{option} {value}: {said}");
        assert!(said.contains(says) && said.trim().lines().count() == 1, "{option} {value}: {said}");
    }
    // A file that is merely found beside the input does not stop it.
    std::fs::write(dir.join("talk.srt"), "no lines").expect("a file");
    assert!(transcode(&input, &dir.join("out")).status.success());
    assert_eq!(tracks(&dir.join("out")).len(), 1);
}

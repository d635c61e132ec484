//! Every kind of input that people record, made with FFmpeg's own sources and encoders.

use super::{Track, lesson, make, tracks, transcoded};
use crate::support::heavy;

const PICTURE: &[&str] = &["-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=9"];
const SOUND: &[&str] = &["-f", "lavfi", "-i", "sine=f=440:b=1:d=9"];
const H264: &[&str] = &["-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-pix_fmt", "yuv420p", "-c:a", "aac"];

/// Name, inputs and options, the renditions' sizes, the picture's frames within one, and the sound tracks.
struct Kind {
    name: &'static str,
    arguments: Vec<&'static str>,
    sizes: &'static [(u64, u64)],
    frames: usize,
    sounds: &'static [&'static str],
}

const SMALL: &[(u64, u64)] = &[(426, 240), (640, 360)];
const ONE: &[&str] = &["a-und"];

fn kind(
    name: &'static str,
    parts: &[&[&'static str]],
    sizes: &'static [(u64, u64)],
    frames: usize,
    sounds: &'static [&'static str],
) -> Kind {
    Kind { name, arguments: parts.concat(), sizes, frames, sounds }
}

fn containers_and_codecs() -> Vec<Kind> {
    let usual = |name, codecs: &[&'static str]| kind(name, &[PICTURE, SOUND, codecs], SMALL, 225, ONE);
    vec![
        usual("plain.mp4", H264),
        usual("fragmented.mp4", &[H264, &["-movflags", "frag_keyframe+empty_moov"]].concat()),
        usual("matroska.mkv", H264),
        usual("transport.ts", H264),
        usual("flash.flv", H264),
        usual(
            "web.webm",
            &["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus", "-b:a", "64k"],
        ),
        usual("vp9.webm", &["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libvorbis"]),
        usual("divx.avi", &["-c:v", "mpeg4", "-c:a", "libmp3lame"]),
        usual("dvd.mpg", &["-c:v", "mpeg2video", "-c:a", "mp2"]),
        usual("prores.mov", &["-c:v", "prores_ks", "-c:a", "pcm_s16le"]),
        usual("mjpeg.mov", &["-c:v", "mjpeg", "-c:a", "pcm_s16le"]),
        usual(
            "hevc.mp4",
            &[
                "-c:v",
                "libx265",
                "-preset",
                "ultrafast",
                "-x265-params",
                "log-level=none",
                "-tag:v",
                "hvc1",
                "-c:a",
                "aac",
            ],
        ),
        usual("av1.mkv", &["-c:v", "libsvtav1", "-preset", "12", "-c:a", "flac"]),
        usual("ten-bit.mp4", &["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-c:a", "aac"]),
    ]
}

fn shapes_and_times() -> Vec<Kind> {
    let picture = |source: &'static str| ["-f", "lavfi", "-i", source];
    vec![
        kind(
            "odd.mp4",
            &[
                &picture("testsrc2=s=641x359:r=30000/1001:d=9"),
                SOUND,
                &["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p", "-c:a", "aac"],
            ],
            &[(430, 240), (640, 358)],
            270,
            ONE,
        ),
        kind(
            "anamorphic.mp4",
            &[&picture("testsrc2=s=720x576:r=25:d=5"), H264, &["-aspect", "16:9"]],
            &[(426, 240), (640, 360), (854, 480), (1024, 576)],
            125,
            &[],
        ),
        kind(
            "interlaced.mp4",
            &[&picture("testsrc2=s=640x360:r=50:d=9"), SOUND, &["-vf", "interlace", "-flags", "+ildct+ilme"], H264],
            SMALL,
            225,
            ONE,
        ),
        kind(
            "variable.mp4",
            &[
                &picture("testsrc2=s=640x360:r=30:d=9,select='not(mod(n,3))+lt(mod(n,50),20)'"),
                SOUND,
                &["-vsync", "vfr"],
                H264,
            ],
            SMALL,
            170,
            ONE,
        ),
        kind("late-start.ts", &[PICTURE, SOUND, H264, &["-output_ts_offset", "5"]], SMALL, 225, ONE),
        kind("no-sound.mp4", &[PICTURE, H264], SMALL, 225, &[]),
        kind("short-sound.mp4", &[PICTURE, &picture("sine=d=4"), H264], SMALL, 225, ONE),
        kind("long-sound.mp4", &[&picture("testsrc2=s=640x360:r=25:d=5"), SOUND, H264], SMALL, 129, ONE),
        kind("late-sound.mp4", &[PICTURE, &["-itsoffset", "2"], &picture("sine=d=7"), H264], SMALL, 225, ONE),
        kind("late-sound.mkv", &[PICTURE, &["-itsoffset", "2"], &picture("sine=d=7"), H264], SMALL, 225, ONE),
        // Its first second stands still, and has twelve frames all the same.
        kind(
            "late-picture.ts",
            &[&["-itsoffset", "1.2"], &picture("testsrc2=s=640x360:r=25:d=8"), SOUND, H264],
            SMALL,
            211,
            ONE,
        ),
        kind("fast.mp4", &[&picture("testsrc2=s=640x360:r=120:d=5"), H264], SMALL, 300, &[]),
        kind(
            "cover.m4a",
            &[
                SOUND,
                &picture("testsrc=s=300x300:r=1:d=1"),
                &[
                    "-map",
                    "0",
                    "-map",
                    "1",
                    "-c:a",
                    "aac",
                    "-c:v",
                    "mjpeg",
                    "-frames:v",
                    "1",
                    "-disposition:v",
                    "attached_pic",
                ],
            ],
            &[],
            0,
            ONE,
        ),
        kind(
            "voices.m4a",
            &[
                SOUND,
                &picture("sine=f=880:d=9"),
                &[
                    "-map",
                    "0",
                    "-map",
                    "1",
                    "-c:a",
                    "aac",
                    "-metadata:s:a:0",
                    "language=eng",
                    "-metadata:s:a:1",
                    "language=deu",
                ],
            ],
            &[],
            0,
            &["a-en", "a-de"],
        ),
        kind(
            "surround.mkv",
            &[
                PICTURE,
                &picture("sine=d=9,aformat=channel_layouts=5.1"),
                &["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "ac3"],
            ],
            SMALL,
            225,
            ONE,
        ),
        kind(
            "languages.mp4",
            &[
                PICTURE,
                SOUND,
                &picture("sine=f=880:d=9"),
                &[
                    "-map",
                    "0",
                    "-map",
                    "1",
                    "-map",
                    "2",
                    "-metadata:s:a:0",
                    "language=eng",
                    "-metadata:s:a:1",
                    "language=fra",
                ],
                H264,
            ],
            SMALL,
            225,
            &["a-en", "a-fr"],
        ),
        kind("tiny.mp4", &[&picture("testsrc2=s=160x120:r=10:d=5"), H264], &[(160, 120)], 50, &[]),
        kind("one-frame.mp4", &[&picture("testsrc2=s=64x64:r=25:d=0.04"), H264], &[(64, 64)], 1, &[]),
        kind("sound.mp3", &[SOUND, &["-c:a", "libmp3lame"]], &[], 0, ONE),
        kind("sound.m4a", &[SOUND, &["-c:a", "aac"]], &[], 0, ONE),
        kind("sound.wav", &[SOUND], &[], 0, ONE),
        kind("sound.ogg", &[SOUND, &["-c:a", "libvorbis"]], &[], 0, ONE),
    ]
}

fn all_become_lessons(kinds: Vec<Kind>) {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    for Kind { name, arguments, sizes, frames, sounds } in kinds {
        let input = make(folder.path(), name, &arguments);
        let out = folder.path().join(format!("{name}.out"));
        transcoded(&input, &out);
        let tracks = tracks(&out);
        let (pictures, heard): (Vec<&Track>, Vec<&Track>) = tracks.iter().partition(|t| t.video);
        assert_eq!(pictures.iter().map(|t| t.size).collect::<Vec<_>>(), sizes, "{name}");
        assert_eq!(heard.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), sounds, "{name}");
        for picture in pictures {
            let made = picture.packets.len();
            assert!(made.abs_diff(frames) <= 1, "{name}: {} has {made} frames, not {frames}", picture.name);
        }
        for sound in heard {
            let seconds = sound.packets.len() as f64 * 1024.0 / 48_000.0;
            let wanted = lesson(&out)["duration"].as_f64().expect("a duration");
            assert!((seconds - wanted).abs() < 0.05, "{name}: {seconds} s of sound for {wanted} s");
        }
        std::fs::remove_dir_all(&out).expect("the output goes");
    }
}

#[test]
fn containers_and_codecs_become_lessons() {
    all_become_lessons(containers_and_codecs());
}

#[test]
fn shapes_and_times_become_lessons() {
    all_become_lessons(shapes_and_times());
}

#[test]
fn fields_are_told_by_the_stream_or_by_its_frames() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let woven = ["-f", "lavfi", "-i", "testsrc2=s=720x576:r=50:d=1", "-vf", "interlace=scan=bff,format=yuv420p"];
    let plain = ["-f", "lavfi", "-i", "testsrc2=s=720x576:r=25:d=1"];
    let mpeg = ["-c:v", "mpeg2video", "-b:v", "6M"];
    for (name, input, codec, fields) in [
        ("camera.avi", &woven[..], &["-c:v", "dvvideo", "-an"][..], true),
        ("fields.ts", &woven, &[&mpeg[..], &["-flags", "+ildct+ilme", "-top", "0"]].concat(), true),
        ("frames.ts", &plain, &mpeg, false),
        ("frames.mov", &plain, &["-c:v", "mjpeg"], false),
    ] {
        let input = make(folder.path(), name, &[input, codec].concat());
        let out = folder.path().join("out");
        transcoded(&input, &out);
        assert_eq!(lesson(&out)["source"]["video"]["interlaced"], fields, "{name}");
        // Against FFmpeg's own idea of the same.
        let filter = if fields { "bwdif=mode=send_frame:parity=bff" } else { "null" };
        let wanted = ["-i", input.to_str().expect("a path"), "-vf", filter, "-c:v", "ffv1"];
        let wanted = make(folder.path(), "wanted.mkv", &wanted);
        let alike = super::joints::ssim(&out.join("1/v576/index.m3u8"), &wanted);
        assert!(alike > 0.97, "{name}: {alike}");
        std::fs::remove_dir_all(&out).expect("the output goes");
    }
}

#[test]
fn a_turned_recording_is_upright_and_keeps_its_picture() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let plain = make(folder.path(), "plain.mp4", &[PICTURE, H264].concat());
    let turned = make(
        folder.path(),
        "turned.mp4",
        &["-i", plain.to_str().expect("a path"), "-c", "copy", "-metadata:s:v", "rotate=90"],
    );
    let out = folder.path().join("out");
    transcoded(&turned, &out);
    assert_eq!(tracks(&out).last().map(|t| t.size), Some((360, 640)));
    // ffmpeg turns it by itself; both must show the same.
    let playlist = out.join("1/v360/index.m3u8");
    let same = super::joints::ssim(&playlist, &turned);
    assert!(same > 0.98, "{same}");
}

#[test]
fn time_that_starts_again_and_a_picture_that_changes_its_size_play_on() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let part = |name: &str, picture: &str, sound: &str| {
        let inputs = ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound];
        std::fs::read(make(folder.path(), name, &[&inputs[..], H264].concat())).expect("a part")
    };
    let mut joined = part("one.ts", "testsrc2=s=640x360:r=25:d=5", "sine=d=5");
    joined.extend(part("two.ts", "testsrc2=s=854x480:r=25:d=4", "sine=f=880:d=4"));
    let input = folder.path().join("joined.ts");
    std::fs::write(&input, joined).expect("a file");
    let out = folder.path().join("out");
    transcoded(&input, &out);
    let tracks = tracks(&out);
    for track in &tracks {
        let wanted = if track.video { 225 } else { 422 };
        assert!(track.packets.len().abs_diff(wanted) <= 2, "{} has {} frames", track.name, track.packets.len());
    }
    assert_eq!(lesson(&out)["source"]["breaks"].as_array().map(Vec::len), Some(1));
}

#[test]
fn high_dynamic_range_becomes_what_every_screen_shows() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let shade = [0xc0u8, 0x40, 0x40];
    for transfer in ["smpte2084", "arib-std-b67"] {
        let wide = format!(
            "format=yuv444p,zscale=pin=709:tin=709:min=170m:rin=limited:p=2020:t=linear:m=gbr:npl=203,format=gbrpf32le,\
             zscale=pin=2020:tin=linear:min=gbr:p=2020:t={transfer}:m=2020_ncl:r=limited:npl=203,format=yuv420p10le"
        );
        let tags = format!("log-level=none:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc");
        let flat = "color=c=0xc04040:s=426x240:r=25:d=1";
        let source = ["-f", "lavfi", "-i", flat, "-vf", &wide, "-c:v", "libx265", "-preset", "ultrafast"];
        let input =
            make(folder.path(), "wide.mp4", &[&source[..], &["-x265-params", &tags, "-tag:v", "hvc1"]].concat());
        let out = folder.path().join("out");
        transcoded(&input, &out);
        assert_eq!(lesson(&out)["source"]["video"]["bit_depth"], 10);
        let found = super::probe(&out.join("1/v240/index.m3u8"), &["-show_streams"]);
        for (name, value) in [
            ("color_transfer", "bt709"),
            ("color_primaries", "bt709"),
            ("color_space", "bt709"),
            ("pix_fmt", "yuv420p"),
        ] {
            assert_eq!(found["streams"][0][name], value, "{transfer}: {name}");
        }
        let master = std::fs::read_to_string(out.join("master.m3u8")).expect("a master");
        assert!(master.contains("VIDEO-RANGE=SDR") && !master.contains("VIDEO-RANGE=PQ"), "{master}");
        // Highlights are compressed, so it is a little darker; without tone mapping it would be far too grey.
        let shown = super::joints::raw(
            &out.join("1/v240/index.m3u8"),
            &["-frames:v", "1", "-vf", "scale=1:1:in_color_matrix=bt709", "-pix_fmt", "rgb24", "-f", "rawvideo"],
        );
        let far = shown.iter().zip(shade).map(|(shown, shade)| shown.abs_diff(shade)).max();
        assert!(shown.len() == 3 && far <= Some(24), "{transfer}: {shade:?} became {shown:?}");
        std::fs::remove_dir_all(&out).expect("the output goes");
    }
}

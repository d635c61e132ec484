use super::*;
use crate::grid::FrameRate;
use crate::info::{AudioInfo, MediaInfo, VideoInfo};
use crate::{DeliveredObject, Ladder, ObjectIndex, ObjectKind, Plan, TrackFacts, plan};

fn info() -> MediaInfo {
    MediaInfo {
        duration_us: 10_010_000,
        video: Some(VideoInfo {
            width: 640,
            height: 360,
            sample_aspect: [1, 1],
            rate: FrameRate::new(30_000, 1001),
            ..VideoInfo::default()
        }),
        audio: vec![
            AudioInfo { language: "eng".into(), ..AudioInfo::default() },
            AudioInfo { language: "deu".into(), title: "Commentary \"B\" & <C>".into(), ..AudioInfo::default() },
        ],
        ..MediaInfo::default()
    }
}

/// Everything that the plan asks for, `bytes` each.
fn all(plan: &Plan) -> Vec<DeliveredObject> {
    let mut out = Vec::new();
    for track in &plan.tracks {
        let codec = if track.is_video() { "avc1.64001e" } else { "mp4a.40.2" };
        let facts =
            TrackFacts { codec: codec.into(), channels: if track.is_video() { 0 } else { 2 }, ..TrackFacts::default() };
        let base = DeliveredObject {
            path: track.init_path(),
            kind: ObjectKind::Init,
            track: track.name.clone(),
            n: 0,
            start: 0,
            duration: 0,
            timescale: track.timescale,
            bytes: 700,
            key_bytes: None,
            ssim: None,
            facts: Some(facts),
        };
        out.push(base.clone());
        for n in 0..track.segments {
            let (start, duration) = track.segment(&plan.grid, n);
            let path = track.segment_path(&plan.grid, n);
            let key_bytes = track.is_video().then_some(10_000);
            out.push(DeliveredObject {
                path,
                kind: ObjectKind::Segment,
                n,
                start,
                duration,
                bytes: 50_050,
                key_bytes,
                facts: None,
                ..base.clone()
            });
        }
    }
    out
}

#[test]
fn a_finished_lesson_names_measured_rates_and_every_segment() {
    let plan = plan(&info(), &Ladder::default()).unwrap();
    let handovers = all(&plan);
    let index = ObjectIndex::new(&plan, &handovers);
    let master = master(&index, "1").unwrap();
    let tag = "#EXT-X-STREAM-INF:BANDWIDTH=";
    assert_eq!(master.matches(tag).count(), 2);
    assert!(
        master.contains(
            ",CODECS=\"avc1.64001e,mp4a.40.2\",RESOLUTION=640x360,FRAME-RATE=29.970,VIDEO-RANGE=SDR,AUDIO=\"audio\""
        ),
        "{master}"
    );
    assert!(master.contains("\n1/v360/index.m3u8\n") && !master.contains("event.m3u8"), "{master}");
    assert!(
        master.contains(
            "NAME=\"English\",LANGUAGE=\"en\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\",URI=\"1/a-en/index.m3u8\""
        ),
        "{master}"
    );
    assert!(master.contains("NAME=\"Commentary 'B' & <C>\",LANGUAGE=\"de\",DEFAULT=NO"), "{master}");
    assert!(
        master.contains("#EXT-X-I-FRAME-STREAM-INF:") && master.contains("URI=\"1/v240/iframes.m3u8\""),
        "{master}"
    );

    let playlist = media_playlist(&index, "v360").unwrap();
    assert_eq!(
        playlist,
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:VOD\n\
         #EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:4.004000,\n00000-0.m4s\n#EXTINF:4.004000,\n\
         00001-4004.m4s\n#EXTINF:2.002000,\n00002-8008.m4s\n#EXT-X-ENDLIST\n"
    );
    let manifest = manifest(&index, "1").unwrap();
    assert!(manifest.contains("<S t=\"0\" d=\"4004\" r=\"1\"/>\n            <S t=\"8008\" d=\"2002\"/>"), "{manifest}");
    assert!(
        manifest.contains("media=\"1/v360/$Number%05d$-$Time$.m4s\"") && manifest.contains("&amp; &lt;C&gt;"),
        "{manifest}"
    );
    let lesson: serde_json::Value = serde_json::from_str(&lesson_json(&index, &info(), "1")).unwrap();
    assert_eq!((lesson["complete"].as_bool(), lesson["renditions"].as_array().map(Vec::len)), (Some(true), Some(4)));
    // Three segments of 50,050 bytes in 10.01 s are 120 kbit/s; the caps are 400 and 800.
    assert_eq!(
        (lesson["renditions"][1]["max_bitrate"].as_u64(), lesson["saved_bytes"].as_u64()),
        (Some(800_000), Some(1_201_200))
    );
}

#[test]
fn a_growing_lesson_lists_what_is_there_without_a_gap() {
    let plan = plan(&info(), &Ladder::default()).unwrap();
    let mut handovers = all(&plan);
    handovers.retain(|h| !(h.track == "v360" && h.kind == ObjectKind::Segment && h.n == 1));
    let index = ObjectIndex::new(&plan, &handovers);
    assert!(!index.complete() && index.begun());
    assert_eq!(index.ready_ms(), 4004);
    assert!(media_playlist(&index, "v360").is_none() && manifest(&index, "1").is_none());
    let event = event_playlist(&index, "v360").unwrap();
    assert!(event.contains("#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-START:TIME-OFFSET=0"), "{event}");
    assert!(
        event.contains("00000-0.m4s")
            && !event.contains("00001")
            && !event.contains("00002")
            && !event.contains("ENDLIST"),
        "{event}"
    );
    assert!(event_playlist(&index, "v240").unwrap().ends_with("#EXT-X-ENDLIST\n"));
    let master = master(&index, "1").unwrap();
    let peak = plan.tracks.iter().find(|t| t.name == "v360").unwrap().peak_bitrate + plan.tracks[2].peak_bitrate;
    assert!(
        master.contains(&format!("BANDWIDTH={peak},CODECS")) && master.contains("\n1/v360/event.m3u8\n"),
        "{master}"
    );

    handovers.retain(|h| h.track != "a-de");
    let index = ObjectIndex::new(&plan, &handovers);
    assert!(super::master(&index, "1").is_none() && index.ready_ms() == 0);
}

#[test]
fn audio_alone_is_an_audio_lesson() {
    let mut info = MediaInfo { video: None, ..info() };
    info.audio.truncate(1);
    let plan = plan(&info, &Ladder::default()).unwrap();
    let handovers = all(&plan);
    let master = master(&ObjectIndex::new(&plan, &handovers), "1").unwrap();
    assert!(master.contains("CODECS=\"mp4a.40.2\"\n1/a-en/index.m3u8") && !master.contains("RESOLUTION"), "{master}");
}

#[test]
fn objects_outside_the_plan_are_left_out() {
    let plan = plan(&info(), &Ladder::default()).unwrap();
    let good = all(&plan).into_iter().find(|h| h.kind == ObjectKind::Segment).unwrap();
    assert_eq!(good.check(&plan), Ok(()));
    let bad: Vec<(&str, DeliveredObject)> = vec![
        ("path", DeliveredObject { path: "v240/../../x.m4s".into(), ..good.clone() }),
        ("number", DeliveredObject { n: 77, ..good.clone() }),
        ("track", DeliveredObject { track: "v999".into(), ..good.clone() }),
        ("start", DeliveredObject { start: 1, ..good.clone() }),
        ("empty", DeliveredObject { bytes: 0, ..good.clone() }),
        ("key", DeliveredObject { key_bytes: Some(1 << 40), ..good.clone() }),
        ("image", DeliveredObject { kind: ObjectKind::Image, path: "../poster.jpg".into(), ..good.clone() }),
        ("init", DeliveredObject { kind: ObjectKind::Init, path: "v240/init.mp4".into(), ..good.clone() }),
    ];
    for (what, handover) in bad {
        assert!(handover.check(&plan).is_err(), "{what}");
    }
}

#[test]
fn an_encrypted_lesson_names_its_key_and_has_neither_key_frames_nor_dash() {
    let mut plan = plan(&info(), &Ladder::default()).unwrap();
    for uri in ["", "a b", "x\"y", "\n"] {
        assert!(plan.protect(uri).is_err(), "{uri:?}");
    }
    plan.protect("../keys/k1").unwrap();
    plan.add_subtitles("en", "").unwrap();
    assert!(plan.tasks.iter().any(|task| task.spec.wants_key()));
    let key = super::super::ContentKey::new([7; 16]);
    plan.tasks.iter_mut().for_each(|task| task.spec.set_key(&key));
    assert!(!plan.tasks.iter().any(|task| task.spec.wants_key()));
    let handovers = all(&plan);
    let index = ObjectIndex::new(&plan, &handovers);
    let playlist = media_playlist(&index, "v360").unwrap();
    assert!(
        playlist.contains("#EXT-X-MAP:URI=\"init.mp4\"\n#EXT-X-KEY:METHOD=AES-128,URI=\"../keys/k1\"\n#EXTINF"),
        "{playlist}"
    );
    assert!(event_playlist(&index, "a-en").unwrap().contains("#EXT-X-KEY:"));
    assert!(!media_playlist(&index, "s-en").unwrap().contains("#EXT-X-KEY:"));
    assert!(manifest(&index, "1").is_none() && iframe_playlist(&index, "v360").is_none());
    assert!(!master(&index, "1").unwrap().contains("I-FRAME"));
}

#[test]
fn a_short_last_segment_does_not_set_the_peak() {
    // Two segments of four seconds and one of half a second.
    let info = MediaInfo { duration_us: 8_508_500, audio: Vec::new(), ..info() };
    let plan = plan(&info, &Ladder::default()).unwrap();
    let handovers = all(&plan);
    let index = ObjectIndex::new(&plan, &handovers);
    let track = index.track("v360").unwrap();
    assert_eq!((track.target_duration(), track.contiguous().count()), (4, 3));
    // 50,050 bytes in 4.004 s are 100 kbit/s; the last two segments are 100,100 bytes in 4.5045 s.
    assert_eq!(track.peak_bitrate(), (100_100.0 * 8.0 / 4.5045f64).ceil() as u64);
    assert_eq!(track.key_peak_bitrate(), Some((20_000.0 * 8.0 / 4.5045f64).ceil() as u64));
    // What lasts less than half a target duration in all is taken as a whole.
    let short = MediaInfo { duration_us: 200_200, ..info };
    let plan = super::super::plan(&short, &Ladder::default()).unwrap();
    let handovers = all(&plan);
    assert_eq!(ObjectIndex::new(&plan, &handovers).track("v360").unwrap().peak_bitrate(), 2_000_000);
}

#[test]
fn tracks_of_a_group_have_unique_names_and_one_automatic_choice() {
    use crate::info::Purpose;
    use crate::info::SubtitleInfo;
    let sound = |language: &str, default| AudioInfo {
        language: language.into(),
        title: "Stereo".into(),
        default,
        ..AudioInfo::default()
    };
    let text = |purpose| SubtitleInfo { language: "eng".into(), purpose, ..SubtitleInfo::default() };
    let info = MediaInfo {
        audio: vec![sound("eng", false), sound("eng", true), sound("deu", false)],
        subtitles: [Purpose::Dialogue, Purpose::Forced, Purpose::HardOfHearing, Purpose::Dialogue].map(text).into(),
        ..info()
    };
    let plan = plan(&info, &Ladder::default()).unwrap();
    let handovers = all(&plan);
    let index = ObjectIndex::new(&plan, &handovers);
    let master = master(&index, "1").unwrap();
    for line in [
        "NAME=\"Stereo\",LANGUAGE=\"en\",DEFAULT=NO,AUTOSELECT=NO,",
        "NAME=\"Stereo 2\",LANGUAGE=\"en\",DEFAULT=YES,AUTOSELECT=YES,",
        "NAME=\"Stereo 3\",LANGUAGE=\"de\",DEFAULT=NO,AUTOSELECT=YES,",
        "NAME=\"English\",LANGUAGE=\"en\",DEFAULT=NO,AUTOSELECT=YES,FORCED=NO,URI",
        "NAME=\"English 2\",LANGUAGE=\"en\",DEFAULT=NO,AUTOSELECT=YES,FORCED=YES,URI",
        "NAME=\"English 3\",LANGUAGE=\"en\",DEFAULT=NO,AUTOSELECT=YES,FORCED=NO,CHARACTERISTICS=\"public.accessibility.",
        "NAME=\"English 4\",LANGUAGE=\"en\",DEFAULT=NO,AUTOSELECT=NO,FORCED=NO,URI",
    ] {
        assert!(master.contains(line), "{line} in {master}");
    }
}

#[test]
fn several_audio_languages_alone_are_one_variant() {
    let info = MediaInfo { video: None, ..info() };
    let plan = plan(&info, &Ladder::default()).unwrap();
    let handovers = all(&plan);
    let master = master(&ObjectIndex::new(&plan, &handovers), "1").unwrap();
    assert_eq!(master.matches("#EXT-X-STREAM-INF:").count(), 1, "{master}");
    assert_eq!(master.matches("#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\"").count(), 2, "{master}");
    assert!(master.ends_with(",CODECS=\"mp4a.40.2\",AUDIO=\"audio\"\n1/a-en/index.m3u8\n"), "{master}");
}

use super::*;
use crate::grid::FrameRate;
use crate::index::ObjectIndex;
use crate::info::{MediaInfo, SubtitleInfo, VideoInfo};
use crate::ladder::Ladder;
use crate::plan::Plan;
use crate::planner::plan;
use crate::webvtt::Cue;
use proptest::prelude::*;

fn lesson() -> Plan {
    let video = VideoInfo { width: 640, height: 360, rate: FrameRate::new(30_000, 1001), ..VideoInfo::default() };
    let subtitles =
        vec![SubtitleInfo { stream: 2, codec: "subrip".into(), language: "eng".into(), ..Default::default() }];
    let info = MediaInfo { duration_us: 150_000_000, video: Some(video), subtitles, ..MediaInfo::default() };
    plan(&info, &Ladder::default()).unwrap()
}

fn cue(start_ms: u64, end_ms: u64, text: &str) -> Cue {
    Cue { start_ms, end_ms, settings: String::new(), text: text.to_owned() }
}

#[test]
fn a_cue_is_in_every_segment_that_it_overlaps() {
    let mut plan = lesson();
    assert_eq!(plan.add_subtitles("en", "").map(|t| t.name), Some("s-en2".to_owned()));
    let added = plan.add_subtitles("pt-BR", "Para \u{7}todos").expect("a track");
    assert_eq!(added.name, "s-pt-br");
    assert_eq!(added.segments, 3);
    let cues = [cue(1_000, 2_000, "first"), cue(59_000, 61_000, "crosses"), cue(130_000, 990_000, "to the end")];
    let objects = objects(&plan.grid, &added, &cues);
    let names: Vec<&str> = objects.iter().map(|(h, _)| h.path.as_str()).collect();
    assert_eq!(
        names,
        ["s-pt-br/00000-0.vtt", "s-pt-br/00001-60060.vtt", "s-pt-br/00002-120120.vtt", "s-pt-br/subtitles.vtt"]
    );
    let text = |n: usize| String::from_utf8(objects[n].1.clone()).unwrap();
    assert!(
        text(0).starts_with(
            "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000\n\n00:00:01.000 --> 00:00:02.000\nfirst\n"
        )
    );
    assert!(text(0).contains("crosses") && text(1).contains("00:00:59.000 --> 00:01:01.000\ncrosses"), "{}", text(1));
    assert!(!text(1).contains("first") && text(2).contains("to the end"));
    assert!(!text(3).contains("X-TIMESTAMP-MAP") && text(3).matches("-->").count() == 3);
    for (handover, bytes) in &objects {
        assert_eq!(handover.check(&plan), Ok(()));
        assert_eq!(handover.bytes, bytes.len() as u64);
    }
    let index = ObjectIndex::new(&plan, objects.iter().map(|(h, _)| h));
    assert!(index.track("s-pt-br").unwrap().complete() && !index.track("s-en").unwrap().complete());
}

#[test]
fn files_in_every_encoding_are_read() {
    let srt = "1\r\n00:00:01,000 --> 00:00:02,500 X1:1 Y1:2\r\n<i>Grüße</i>\r\n\r\n2\r\n00:00:03,000 --> 00:00:04,000\r\n{\\an8}oben\r\n";
    let vtt = "WEBVTT - Lesson\n\nNOTE nothing\nhere\n\nSTYLE\n::cue { color: red }\n\nintro\n00:01.000 --> 00:02.500 align:start evil:\"\nGrüße\n\n01:00:00.000 --> 01:00:01.000\n- a\n- b\n";
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(srt.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let latin: Vec<u8> = srt.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    for bytes in [srt.as_bytes(), &utf16, &latin, &[b"\xef\xbb\xbf", srt.as_bytes()].concat()] {
        let cues = parse(bytes).unwrap();
        assert_eq!(
            cues,
            [cue(1000, 2500, "<i>Grüße</i>"), Cue { settings: "line:0".into(), ..cue(3000, 4000, "oben") }]
        );
    }
    let cues = parse(vtt.as_bytes()).unwrap();
    assert_eq!(cues[0], Cue { settings: "align:start".into(), ..cue(1000, 2500, "Grüße") });
    assert_eq!(cues[1], cue(3_600_000, 3_601_000, "- a\n- b"));
    // A blank line that was left out.
    let damaged = parse(b"1\n00:00:01,000 --> 00:00:02,000\none\n2\n00:00:03,000 --> 00:00:04,000\ntwo").unwrap();
    assert_eq!(damaged, [cue(1000, 2000, "one"), cue(3000, 4000, "two")]);
    assert_eq!(parse(b"Dear students,"), Err(FileError::NoCues));
    assert_eq!(parse(&vec![b' '; MAX_FILE_BYTES + 1]), Err(FileError::TooLarge));
}

#[test]
fn embedded_packets_become_cues() {
    let timed = vec![(0, 1000, b"\0\x05Hello\0\0\0\x0cstyl".to_vec()), (1000, 500, b"\0\0".to_vec())];
    assert_eq!(packet_cues("mov_text", &timed), [cue(0, 1000, "Hello")]);
    let ass = vec![(2000, 0, b"0,0,Default,,0,0,0,,{\\i1}Hi, you\\Nthere".to_vec()), (4000, 0, b"broken".to_vec())];
    assert_eq!(packet_cues("ass", &ass), [cue(2000, 4000, "Hi, you\nthere")]);
    assert_eq!(packet_cues("subrip", &[(-500, 1500, b"early".to_vec())]), [cue(0, 1000, "early")]);
}

proptest! {
    #[test]
    fn any_bytes_give_cues_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400), text in ".{0,200}") {
        let _ = parse(&bytes);
        let srt = format!("00:00:01,000 --> 00:00:02,000\n{text}");
        for cue in parse(srt.as_bytes()).unwrap_or_default() {
            prop_assert!(!cue.text.contains("-->") && !cue.text.contains("\n\n") && !cue.text.is_empty());
        }
    }
}

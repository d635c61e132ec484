//! Playlists that have to be read, and such as have to be refused.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::attributes::Attributes;
use super::*;

const MULTIVARIANT: &str = r#"#EXTM3U
#EXT-X-VERSION:7
#EXT-X-INDEPENDENT-SEGMENTS

#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="Deutsch, leicht",LANGUAGE="de",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="1/a-de/index.m3u8"
# a comment
#EXT-X-STREAM-INF:BANDWIDTH=900000,AVERAGE-BANDWIDTH=700000,CODECS="avc1.64001e,mp4a.40.2",RESOLUTION=640x360,FRAME-RATE=29.970,AUDIO="audio"
1/v360/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=2900000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=720x1280,AUDIO="audio"
1/v720/index.m3u8
#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=90000,URI="1/v360/iframes.m3u8"
"#;

const MEDIA: &str = "#EXTM3U\r
#EXT-X-VERSION:7\r
#EXT-X-TARGETDURATION:4\r
#EXT-X-MEDIA-SEQUENCE:0\r
#EXT-X-PLAYLIST-TYPE:VOD\r
#EXT-X-START:TIME-OFFSET=0\r
#EXT-X-MAP:URI=\"init.mp4\"\r
#EXTINF:4.004,\r
00000-0.m4s\r
#EXTINF:1.5,the last\r
00001-4004.m4s\r
#EXT-X-ENDLIST\r
";

fn multivariant(text: &str) -> Multivariant {
    match parse(text.as_bytes()) {
        Ok(Playlist::Multivariant(playlist)) => playlist,
        other => panic!("{other:?}"),
    }
}

fn media(text: &str) -> Media {
    match parse(text.as_bytes()) {
        Ok(Playlist::Media(playlist)) => playlist,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_multivariant_playlist_is_read() {
    let playlist = multivariant(MULTIVARIANT);
    let [low, high] = &playlist.variants[..] else { panic!("{playlist:?}") };
    assert_eq!((low.uri.as_str(), low.bandwidth, low.average_bandwidth), ("1/v360/index.m3u8", 900_000, Some(700_000)));
    assert_eq!((low.frame_rate, low.height(), high.height()), (Some(29_970), Some(360), Some(720)));
    assert_eq!(low.codecs.as_deref(), Some("avc1.64001e,mp4a.40.2"), "a comma in quotes parts nothing");
    let [audio] = &playlist.renditions[..] else { panic!("{playlist:?}") };
    assert_eq!(
        (audio.name.as_str(), audio.default, audio.uri.as_deref()),
        ("Deutsch, leicht", true, Some("1/a-de/index.m3u8"))
    );
}

#[test]
fn a_media_playlist_is_read_with_exact_times() {
    let playlist = media(MEDIA);
    assert!(playlist.ended && playlist.kind == Some(PlaylistType::Vod));
    assert_eq!(playlist.start, Some(Start { offset: Duration::ZERO, from_end: false }));
    let [first, last] = &playlist.segments[..] else { panic!("{playlist:?}") };
    assert_eq!((first.start, first.end()), (Duration::ZERO, Duration::from_millis(4004)));
    assert_eq!((last.start, last.end()), (Duration::from_millis(4004), Duration::from_millis(5504)));
    assert_eq!(last.map.as_deref(), Some(&("init.mp4".to_owned(), None)));
    assert_eq!(playlist.duration(), Duration::from_millis(5504));
}

#[test]
fn byte_ranges_go_on_where_the_one_before_ended() {
    let text = "#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-TARGETDURATION:2\n#EXT-X-I-FRAMES-ONLY\n#EXTINF:2,\n#EXT-X-BYTERANGE:10@5\na\n\
                #EXTINF:2,\n#EXT-X-BYTERANGE:7\na\n#EXT-X-ENDLIST\n";
    let ranges: Vec<_> = media(text).segments.iter().map(|s| s.byte_range).collect();
    assert_eq!(ranges, [Some(ByteRange { length: 10, offset: 5 }), Some(ByteRange { length: 7, offset: 15 })]);
}

/// What is refused, each as one change to a playlist that is taken.
#[test]
fn what_is_wrong_is_refused_with_its_line() {
    let cases: &[(&str, &str, &str, &str)] = &[
        (MEDIA, "#EXTM3U", "#EXTM3U8", "begins with #EXTM3U"),
        (MEDIA, "#EXTM3U", "\u{feff}#EXTM3U", "begins with #EXTM3U"),
        (MEDIA, "#EXT-X-TARGETDURATION:4\r\n", "", "needs EXT-X-TARGETDURATION"),
        (MEDIA, "#EXT-X-TARGETDURATION:4", "#EXT-X-TARGETDURATION:3", "longer than EXT-X-TARGETDURATION"),
        (MEDIA, "#EXT-X-TARGETDURATION:4", "#EXT-X-TARGETDURATION:4\n#EXT-X-TARGETDURATION:4", "comes twice"),
        (MEDIA, "#EXT-X-ENDLIST\r\n", "", "without EXT-X-ENDLIST"),
        (MEDIA, "#EXT-X-ENDLIST", "#EXT-X-ENDLIST\n#EXTINF:1,\nx", "behind EXT-X-ENDLIST"),
        (MEDIA, "#EXT-X-ENDLIST", "#EXTINF:1,\n#EXT-X-ENDLIST", "has no URI"),
        (MEDIA, "#EXTINF:4.004,", "#EXTINF:-4,", "no whole number"),
        (MEDIA, "#EXTINF:4.004,", "#EXTINF:4.,", "no number of seconds"),
        (MEDIA, "#EXTINF:4.004,\r\n", "", "neither EXTINF nor"),
        (MEDIA, "#EXT-X-VERSION:7\r\n", "", "need EXT-X-VERSION:3"),
        (MEDIA, "URI=\"init.mp4\"", "URI=init.mp4", "has to stand in quotes"),
        (MEDIA, "PLAYLIST-TYPE:VOD", "PLAYLIST-TYPE:LIVE", "VOD or EVENT"),
        (MEDIA, "#EXT-X-ENDLIST", "#EXT-X-STREAM-INF:BANDWIDTH=1\nx", "not both"),
        (MEDIA, "00000-0.m4s", "00000\u{7}0.m4s", "control character"),
        (MULTIVARIANT, "BANDWIDTH=2900000,", "", "without BANDWIDTH"),
        (MULTIVARIANT, "AVERAGE-BANDWIDTH=700000", "AVERAGE-BANDWIDTH=1000000", "not below AVERAGE-BANDWIDTH"),
        (MULTIVARIANT, "GROUP-ID=\"audio\"", "GROUP-ID=\"sound\"", "no EXT-X-MEDIA"),
        (MULTIVARIANT, "TYPE=AUDIO,", "TYPE=AUDIO,TYPE=AUDIO,", "comes twice"),
        (MULTIVARIANT, "RESOLUTION=640x360", "RESOLUTION=640", "no resolution"),
        (MULTIVARIANT, "1/v360/index.m3u8\n", "", "no URI on the line behind"),
        (MULTIVARIANT, "URI=\"1/v360/iframes.m3u8\"", "URI=\"1/v360/iframes.m3u8", "does not end"),
    ];
    for (good, from, to, why) in cases {
        assert!(good.contains(from), "the case {why:?} changes nothing");
        assert!(parse(good.as_bytes()).is_ok());
        let error = parse(good.replacen(from, to, 1).as_bytes()).expect_err(why);
        assert!(error.what.contains(why), "{why:?}: {error}");
    }
}

#[test]
fn an_event_playlist_may_only_grow() {
    let event = media(&MEDIA.replace(":VOD", ":EVENT").replace("#EXT-X-ENDLIST\r\n", ""));
    let mut grown = event.clone();
    grown.segments.push(Segment { uri: "00002-5504.m4s".into(), start: event.duration(), ..event.segments[0].clone() });
    assert_eq!(event.may_become(&grown), Ok(()));
    assert!(grown.may_become(&event).is_err_and(|e| e.contains("shrank")));
    grown.segments[0].duration += Duration::from_millis(1);
    assert!(event.may_become(&grown).is_err_and(|e| e.contains("segment 0 changed")));
    let ended = Media { ended: true, ..event.clone() };
    assert_eq!(event.may_become(&ended), Ok(()));
    assert!(ended.may_become(&event).is_err_and(|e| e.contains("ENDLIST")));
}

/// The normal examples of RFC 3986, section 5.4.1, and the abnormal ones that matter to a token in the path.
#[test]
fn uris_resolve_as_the_rfc_says() {
    let base = Url::parse("http://a/b/c/d;p?q").unwrap();
    for (uri, whole) in [
        ("g", "http://a/b/c/g"),
        ("./g", "http://a/b/c/g"),
        ("g/", "http://a/b/c/g/"),
        ("/g", "http://a/g"),
        ("//g", "http://g/"),
        ("?y", "http://a/b/c/d;p?y"),
        ("g?y", "http://a/b/c/g?y"),
        (";x", "http://a/b/c/;x"),
        ("g;x?y", "http://a/b/c/g;x?y"),
        (".", "http://a/b/c/"),
        ("../g", "http://a/b/g"),
        ("../../g", "http://a/g"),
        ("../../../g", "http://a/g"),
        ("https://h/g", "https://h/g"),
    ] {
        assert_eq!(resolve(&base, uri).map(String::from), Ok(whole.into()), "{uri}");
    }
    let base = Url::parse("http://e:8090/t/aa.bb_c.d-d/v/lesson1/master.m3u8").unwrap();
    assert_eq!(resolve(&base, "2/v720/index.m3u8").unwrap().path(), "/t/aa.bb_c.d-d/v/lesson1/2/v720/index.m3u8");
    assert!(resolve(&base, "file:///etc/passwd").is_err());
    assert!(resolve(&base, "http://[").is_err());
}

/// Writes a media playlist as plainly as can be, to be read again.
fn written(playlist: &Media) -> String {
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:7\n");
    let _ = writeln!(text, "#EXT-X-TARGETDURATION:{}", playlist.target_duration.as_secs());
    let _ = writeln!(text, "#EXT-X-MEDIA-SEQUENCE:{}", playlist.media_sequence);
    match playlist.kind {
        Some(PlaylistType::Vod) => text.push_str("#EXT-X-PLAYLIST-TYPE:VOD\n"),
        Some(PlaylistType::Event) => text.push_str("#EXT-X-PLAYLIST-TYPE:EVENT\n"),
        None => {}
    }
    let mut map = None;
    for segment in &playlist.segments {
        if segment.map != map {
            map.clone_from(&segment.map);
            let _ = writeln!(text, "#EXT-X-MAP:URI=\"{}\"", map.as_ref().unwrap().0);
        }
        if segment.discontinuity {
            text.push_str("#EXT-X-DISCONTINUITY\n");
        }
        if let Some(ByteRange { length, offset }) = segment.byte_range {
            let _ = writeln!(text, "#EXT-X-BYTERANGE:{length}@{offset}");
        }
        let d = segment.duration;
        let _ = writeln!(text, "#EXTINF:{}.{:09},\n{}", d.as_secs(), d.subsec_nanos(), segment.uri);
    }
    if playlist.ended {
        text.push_str("#EXT-X-ENDLIST\n");
    }
    text
}

prop_compose! {
    fn any_media()(
        parts in prop::collection::vec(
            ("[a-z0-9/._-]{1,20}", 0u64..6_000_000_000, any::<bool>(), any::<Option<(u32, u32)>>(), 0u8..3), 0..40),
        media_sequence in any::<u64>(),
        kind in prop::sample::select(vec![None, Some(PlaylistType::Event), Some(PlaylistType::Vod)]),
        ended in any::<bool>(),
    ) -> Media {
        let mut playlist = Media {
            target_duration: Duration::from_secs(6),
            media_sequence,
            kind,
            ended: ended || kind == Some(PlaylistType::Vod),
            ..Media::default()
        };
        // A map, once given, holds for all that follow: no segment may lose it.
        let mut map = None;
        for (uri, nanos, discontinuity, range, of) in parts {
            if of > 0 {
                map = Some(Arc::new((format!("init{of}.mp4"), None)));
            }
            let byte_range = range.map(|(length, offset)| ByteRange { length: length.into(), offset: offset.into() });
            let segment = Segment {
                uri, duration: Duration::from_nanos(nanos), discontinuity, byte_range,
                start: playlist.duration(), map: map.clone(), key: None, gap: false,
            };
            playlist.segments.push(segment);
        }
        playlist
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(playlist in any_media()) {
        prop_assert_eq!(parse(written(&playlist).as_bytes()), Ok(Playlist::Media(playlist)));
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes);
        let _ = parse(&[b"#EXTM3U\n", &bytes[..]].concat());
    }

    /// Lines that nearly make sense, in any order, neither crash the parser nor break what it promises.
    #[test]
    fn no_lines_are_too_strange(lines in prop::collection::vec(prop_oneof![
        "#EXT(-X-)?[A-Z-]{1,20}(:[A-Z=0-9\",.@x-]{0,30})?",
        prop::sample::select(MULTIVARIANT.lines().chain(MEDIA.lines()).map(String::from).collect::<Vec<_>>()),
        "#EXT-X-BYTERANGE:[0-9]{1,20}(@[0-9]{1,20})?",
        "#EXTINF:[0-9]{1,12}(\\.[0-9]{0,12})?,",
    ], 0..30)) {
        let text = format!("#EXTM3U\n{}\n", lines.join("\n"));
        match parse(text.as_bytes()) {
            Ok(Playlist::Media(media)) => {
                let sum: Duration = media.segments.iter().map(|s| s.duration).sum();
                prop_assert_eq!(media.duration(), sum);
            }
            Ok(Playlist::Multivariant(playlist)) => prop_assert!(!playlist.variants.is_empty()),
            Err(error) => prop_assert!(error.line >= 1 && error.line <= text.split('\n').count() + 1),
        }
    }

    #[test]
    fn attribute_lists_read_what_was_written(pairs in prop::collection::btree_map(
        "[A-Z0-9-]{1,12}", prop_oneof!["\"[^\"\n\r\u{0}-\u{1f}\u{7f}]{0,20}\"", "[A-Za-z0-9.x-]{1,12}"], 1..12)) {
        let text = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
        let read = Attributes::parse(&text).unwrap();
        for (name, value) in &pairs {
            match value.strip_prefix('"') {
                Some(rest) => prop_assert_eq!(read.quoted(name).unwrap(), rest.strip_suffix('"').map(String::from)),
                None => prop_assert_eq!(read.bare(name).unwrap(), Some(value.as_str())),
            }
        }
    }
}

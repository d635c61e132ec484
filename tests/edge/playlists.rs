//! Playlists that are cut for a token, and what players say of their playback.

use http::{Method, StatusCode};

use super::harness::*;

const MASTER: &str = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=5,RESOLUTION=1280x720\n1/v720/index.m3u8\n\
    #EXT-X-STREAM-INF:BANDWIDTH=1,RESOLUTION=426x240\n1/v240/index.m3u8\n";
const MEDIA: &str = "#EXTM3U\n#EXTINF:4.000,\n00000-0.m4s\n#EXTINF:4.000,\n00001-4000.m4s\n#EXT-X-ENDLIST\n";

async fn playlists() -> Origin {
    Origin::start(|seen: &Seen| {
        let fields = [("cache-control", "public, max-age=60"), ("etag", "\"whole\"")];
        if seen.target.ends_with("master.m3u8") {
            Reply::new(200, &fields, MASTER)
        } else {
            Reply::new(200, &fields, MEDIA)
        }
    })
    .await
}

#[tokio::test]
async fn each_token_sees_its_own_cut_of_one_stored_playlist() {
    let origin = playlists().await;
    let edge = TestEdge::paid(&[&origin]).await;
    let low = edge.sign(|claims| claims.max_height = Some(480));
    let taste = edge.sign(|claims| claims.preview = Some(4.0));
    let (whole_token, master, media) = (edge.token(), "v/a/master.m3u8", "v/a/1/v240/index.m3u8");
    for _ in 0..2 {
        let cut = edge.get(&format!("/t/{low}/{master}")).await;
        assert!(cut.text().contains("v240") && !cut.text().contains("v720"));
        assert_eq!(cut.field("content-length"), cut.text().len().to_string());
        assert_ne!(cut.field("etag"), "\"whole\"");
        let again =
            edge.send(Method::GET, &format!("/t/{low}/{master}"), &[("if-none-match", cut.field("etag"))]).await;
        assert_eq!(again.status, StatusCode::NOT_MODIFIED);
        assert_eq!(edge.get(&format!("/t/{whole_token}/{master}")).await.text(), MASTER);
        let cut = edge.get(&format!("/t/{taste}/{media}")).await.text();
        assert!(cut.ends_with("00000-0.m4s\n#EXT-X-ENDLIST\n"), "{cut}");
    }
    assert_eq!(origin.seen().len(), 2);
    for (token, path) in [(&low, "v/a/1/v720/00000-0.m4s"), (&taste, "v/a/1/v240/00001-4000.m4s")] {
        assert_eq!(edge.get(&format!("/t/{token}/{path}")).await.code(), "token_out_of_scope");
    }
    assert_eq!(origin.seen().len(), 2);
}

const TRICKS: &str = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=5,RESOLUTION=1280x720\n1/v720/index.m3u8\n\
    #EXT-X-STREAM-INF:BANDWIDTH=1,RESOLUTION=426x240\n1/v240/index.m3u8\n\
    #EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=2,RESOLUTION=1280x720,URI=\"1/v720/iframes.m3u8\"\n\
    #EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,RESOLUTION=426x240,URI=\"1/v240/iframes.m3u8\"\n";
const IFRAMES: &str = "#EXTM3U\n#EXT-X-I-FRAMES-ONLY\n#EXTINF:4.000,\n#EXT-X-BYTERANGE:10@700\n00000-0.m4s\n\
    #EXTINF:4.000,\n#EXT-X-BYTERANGE:10@700\n00001-4000.m4s\n#EXT-X-ENDLIST\n";
const MANIFEST: &str = "<?xml version=\"1.0\"?>\n<MPD type=\"static\" mediaPresentationDuration=\"PT8S\">\n<Period>\n\
    <AdaptationSet contentType=\"video\">\n<SegmentTemplate timescale=\"1000\" media=\"$RepresentationID$/$Number%05d$-$Time$.m4s\">\n\
    <SegmentTimeline><S t=\"0\" d=\"4000\" r=\"1\"/></SegmentTimeline>\n</SegmentTemplate>\n\
    <Representation id=\"v720\" bandwidth=\"5\" width=\"1280\" height=\"720\"/>\n\
    <Representation id=\"v240\" bandwidth=\"1\" width=\"426\" height=\"240\"/>\n\
    </AdaptationSet>\n</Period>\n</MPD>\n";

#[tokio::test]
async fn pictures_alone_manifests_and_ranges_are_cut_like_the_rest() {
    let origin = Origin::start(|seen: &Seen| {
        let fields = [("cache-control", "public, max-age=60"), ("etag", "\"whole\"")];
        let text = match seen.target.rsplit('/').next() {
            Some("master.m3u8") => TRICKS,
            Some("iframes.m3u8") => IFRAMES,
            Some("manifest.mpd") => MANIFEST,
            _ => "segment",
        };
        Reply::new(200, &fields, text)
    })
    .await;
    let edge = TestEdge::paid(&[&origin]).await;
    let low = edge.sign(|claims| claims.max_height = Some(480));
    let taste = edge.sign(|claims| claims.preview = Some(4.0));
    let get = async |token: &str, path: &str| edge.get(&format!("/t/{token}/v/a/{path}")).await;
    let master = get(&low, "master.m3u8").await.text();
    assert!(master.contains("v240/iframes") && !master.contains("v720"), "{master}");
    let manifest = get(&low, "manifest.mpd").await.text();
    assert!(manifest.contains("\"v240\"") && !manifest.contains("v720"), "{manifest}");
    for path in ["1/v720/iframes.m3u8", "1/v720/00000-0.m4s"] {
        assert_eq!(get(&low, path).await.code(), "token_out_of_scope", "{path}");
    }

    let pictures = get(&taste, "1/v240/iframes.m3u8").await.text();
    assert!(pictures.contains("00000-0.m4s") && !pictures.contains("00001-4000"), "{pictures}");
    let manifest = get(&taste, "manifest.mpd").await.text();
    assert!(!manifest.contains("PT8S") && !manifest.contains("r=\"1\""), "{manifest}");
    // Nor does a part of what is whole come out of a range.
    let path = format!("/t/{taste}/v/a/1/v240/iframes.m3u8");
    for range in ["bytes=0-", "bytes=40-", "bytes=-60", "bytes=0-9,30-"] {
        let part = edge.send(Method::GET, &path, &[("range", range)]).await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert!(!part.text().contains("00001-4000"), "{range}: {}", part.text());
        let of_cut = format!("/{}", pictures.len());
        assert!(part.field("content-range").ends_with(&of_cut) || part.text().contains(&of_cut), "{range}: {part:?}");
    }
    for range in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
        let path = format!("/t/{taste}/v/a/1/v240/00001-4000.m4s");
        assert_eq!(edge.send(Method::GET, &path, &[("range", range)]).await.code(), "token_out_of_scope", "{range}");
    }
}

#[tokio::test]
async fn what_players_say_becomes_metrics() {
    let origin = playlists().await;
    let edge = TestEdge::paid(&[&origin]).await;
    let token = edge.token();
    let query = "CMCD=bl%3D2000%2Cbr%3D3200%2Cmtp%3D48100%2Cot%3Dv%2Csid%3D%22s1%22";
    let answer = edge.get(&format!("/t/{token}/v/a/1/v240/00000-0.m4s?{query}")).await;
    assert_eq!(answer.status, StatusCode::OK);
    let headers = [("cmcd-object", "br=1000,ot=v"), ("cmcd-request", "bl=500,mtp=100"), ("cmcd-session", "sid=\"s2\"")];
    edge.send(Method::GET, &format!("/t/{token}/v/a/1/v240/00000-0.m4s"), &headers).await;
    assert_eq!(origin.seen().len(), 1, "CMCD is no part of the key");
    assert_eq!(edge.metric("lyceum_playback_bitrate_bits_per_second_sum", &[]), 4.2e6);
    assert_eq!(edge.metric("lyceum_playback_buffer_seconds_count", &[]), 2.0);
    assert_eq!(edge.metric("lyceum_playback_throughput_bits_per_second_count", &[]), 2.0);

    let events = "e=ps,sid=\"s1\",sta=s,ts=1000,v=2\ne=ps,sid=\"s1\",sta=p,ts=1900,v=2\n\
        e=ps,sid=\"s1\",sta=r,ts=3900,v=2\ne=ps,sid=\"s1\",sta=p,ts=4400,v=2\n";
    let post =
        async |path: &str| send(&edge.url, Method::POST, path, &[("content-type", "application/cmcd")], events).await;
    let answer = post(&format!("/t/{token}/cmcd")).await;
    assert_eq!((answer.status, answer.field("access-control-allow-origin")), (StatusCode::NO_CONTENT, "*"));
    assert_eq!(edge.metric("lyceum_playback_startup_seconds_count", &[]), 1.0);
    assert_eq!(edge.metric("lyceum_playback_startup_seconds_sum", &[]), 0.9);
    assert_eq!(edge.metric("lyceum_playback_rebuffers_total", &[]), 1.0);
    assert_eq!(edge.metric("lyceum_playback_rebuffer_seconds_total", &[]), 0.5);
    assert_eq!(edge.metric("lyceum_playback_sessions", &[]), 2.0);
    assert_eq!(post("/cmcd").await.code(), "token_missing");
    assert_eq!(post(&format!("/cmcd?token={token}")).await.status, StatusCode::NO_CONTENT);
    let large = "x".repeat(100_000);
    let answer = send(&edge.url, Method::POST, &format!("/t/{token}/cmcd"), &[], &large).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

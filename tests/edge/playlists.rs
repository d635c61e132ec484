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

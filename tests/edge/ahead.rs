//! Read-ahead: what comes next is there before it is asked for, within bounds.

use std::time::Duration;

use http::StatusCode;

use super::harness::*;
use crate::support::until_async;

const SEGMENTS: usize = 8;

fn media(seen: &Seen) -> Reply {
    if seen.target.ends_with("index.m3u8") {
        let names: String = (0..SEGMENTS).map(|n| format!("#EXTINF:4,\n{n:05}-{}.m4s\n", n * 4000)).collect();
        return Reply::new(200, &[IMMUTABLE], format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n{names}#EXT-X-ENDLIST\n"));
    }
    Reply::new(200, &[IMMUTABLE, ("surrogate-key", "lesson-a")], [seen.target.as_bytes(), &[1; 10_000]].concat())
}

fn segment(edge: &TestEdge, n: usize) -> String {
    format!("/t/{}/v/a/1/v720/{n:05}-{}.m4s", edge.token(), n * 4000)
}

fn asked(origin: &Origin) -> Vec<usize> {
    let number = |target: &str| target.rsplit('/').next()?.split('-').next()?.parse().ok();
    origin.seen().iter().filter_map(|seen| number(&seen.target)).collect()
}

async fn until_asked(origin: &Origin, count: usize) {
    until_async("segments to be asked for", Duration::from_secs(5), async || {
        (asked(origin).len() >= count).then_some(())
    })
    .await;
}

async fn until_metric(edge: &TestEdge, name: &str, label: &str, value: f64) {
    until_async(&format!("{name} {label} to be {value}"), Duration::from_secs(5), async || {
        (edge.metric(name, &[label]) == value).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_next_segments_of_a_rendition_are_there_before_they_are_asked_for() {
    let origin = Origin::start(media).await;
    let edge = TestEdge::paid(&[&origin]).await;
    edge.get(&segment(&edge, 7)).await;
    assert_eq!(asked(&origin), [7], "without the playlist no one knows what comes next");
    edge.get(&format!("/t/{}/v/a/1/v720/index.m3u8", edge.token())).await;
    edge.get(&segment(&edge, 0)).await;
    until_asked(&origin, 4).await;
    let mut seen = asked(&origin);
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 7]);
    until_metric(&edge, "lyceum_edge_fills_open", "", 0.0).await;
    for n in 1..4 {
        until_metric(&edge, "lyceum_edge_ahead_total", "fetched", 1.0 + n as f64).await;
        until_asked(&origin, 3 + n).await;
        let answer = edge.get(&segment(&edge, n)).await;
        assert!(
            answer.status == StatusCode::OK
                && answer.body.unwrap().starts_with(format!("/v/a/1/v720/{n:05}").as_bytes())
        );
        assert!(
            !answer.headers["cache-status"].to_str().unwrap().contains("fwd=uri-miss; fwd-status"),
            "fetched or on its way"
        );
    }
    until_metric(&edge, "lyceum_edge_ahead_total", "useful", 3.0).await;
    let mut seen = asked(&origin);
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 7], "each once, and two beyond the last");
    until_metric(&edge, "lyceum_edge_ahead_unused_bytes", "", 2.0 * 10_027.0).await;

    // What goes unused was wasted.
    let admin = edge.admin().await;
    send(&admin, http::Method::POST, "/purge", &[("content-type", "application/json")], r#"{"tag": "lesson-a"}"#).await;
    // The table gives back what was taken away as it is used.
    until_async("the waste to be counted", Duration::from_secs(15), async || {
        edge.get(&format!("/t/{}/v/a/1/v720/index.m3u8", edge.token())).await;
        let wasted = edge.metric("lyceum_edge_ahead_total", &["wasted"]);
        (wasted == 2.0 && edge.metric("lyceum_edge_ahead_unused_bytes", &[]) == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_budget_a_busy_origin_and_a_switch_bound_it() {
    for (ahead, result) in [("bytes = \"5KiB\"", Some("budget")), ("busy = 1", Some("busy")), ("segments = 0", None)] {
        let origin = Origin::start(|seen: &Seen| match seen.target.ends_with("busy.m4s") {
            true => Reply::head(100, &[IMMUTABLE]).then(Step::Wait(Duration::from_secs(60))),
            false => media(seen),
        })
        .await;
        let edge = TestEdge::start(&paid(&[&origin], &format!("[ahead]\n{ahead}\n"))).await;
        edge.get(&format!("/t/{}/v/a/1/v720/index.m3u8", edge.token())).await;
        let busy =
            begin(&edge.url, http::Method::GET, &format!("/t/{}/v/a/1/v720/busy.m4s", edge.token()), &[], "").await;
        edge.get(&segment(&edge, 0)).await;
        match result {
            Some(result) => until_metric(&edge, "lyceum_edge_ahead_total", result, 2.0).await,
            None => assert_eq!(edge.metric("lyceum_edge_ahead_total", &[]), 0.0),
        }
        assert_eq!(asked(&origin), [0], "{ahead}");
        drop(busy);
    }
}

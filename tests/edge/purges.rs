//! Purges: over the origin's feed to all edges, under a fill that runs, of slices, of variants, on disk.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt as _;
use tokio::sync::Notify;

use super::harness::*;
use crate::support::until_async;

/// Purges at an edge, and how many entries it says that it found.
async fn purge(admin: &str, order: &str) -> u64 {
    let answer = send(admin, Method::POST, "/purge", &[("content-type", "application/json")], order).await;
    serde_json::from_str::<serde_json::Value>(&answer.text()).unwrap()["purged"].as_u64().unwrap()
}

/// A representation that is the same for ever, and says so when it is asked for with its tag.
fn same(seen: &Seen, tag: &str) -> Reply {
    let fields = [IMMUTABLE, ("etag", "\"one\""), ("surrogate-key", tag)];
    match seen.field("if-none-match") {
        Some("\"one\"") => Reply::new(304, &fields, ""),
        _ => Reply::new(200, &fields, "media"),
    }
}

#[tokio::test]
async fn the_feed_purges_softly_and_hard_at_every_edge() {
    let news = Arc::new(Notify::new());
    let told = Arc::clone(&news);
    // What comes last is what the story waits for.
    let events = r#"{"next": 5, "events": [
        {"purge": {"url": "/v/a/url.m4s"}}, {"purge": {"url": "https://edge.example/v/a/soft-url.m4s", "soft": true}},
        {"purge": {"prefix": "/v/a/soft/", "soft": true}}, {"purge": {"tag": "soft-tag.m4s", "soft": true}},
        {"purge": {"prefix": "/v/a/hard/"}}]}"#;
    let origin = Origin::start(move |seen: &Seen| match seen.target.as_str() {
        feed if feed.contains("after=0&") => {
            let mut reply = Reply::new(200, &[], events);
            reply.0.insert(0, Step::Until(Arc::clone(&told)));
            reply
        }
        feed if feed.starts_with("/v1/revocations") => Reply(vec![Step::Wait(Duration::from_secs(60))]),
        lease if lease.ends_with("/lease") => Reply::new(204, &[], ""),
        path => same(seen, path.rsplit('/').next().unwrap()),
    })
    .await;
    let control = format!("[control]\norigins = [\"{}\"]\nbearer = \"secret\"\n", origin.url());
    let toml = paid(&[&origin], &control);
    let edges = [TestEdge::start(&toml).await, TestEdge::start(&toml).await];
    let names = ["url.m4s", "soft-url.m4s", "soft/x.m4s", "soft-tag.m4s", "hard/x.m4s", "hardly.m4s", "url.m4s.vtt"];
    let get = async |edge: &TestEdge, name: &str| edge.get(&format!("/t/{}/v/a/{name}", edge.token())).await;
    for edge in &edges {
        for name in names {
            get(edge, name).await;
            assert_eq!(get(edge, name).await.field("cache-status"), "lyceum; hit");
        }
    }
    assert_eq!(origin.count("/v1/revocations?after=0&wait=25s"), 2, "each follows the feed");
    news.notify_waiters();
    for edge in &edges {
        until_async("the last purge", Duration::from_secs(5), async || {
            get(edge, "hard/x.m4s").await.field("cache-status").contains("fwd=uri-miss").then_some(())
        })
        .await;
        for (name, fate) in names.into_iter().zip(["uri-miss", "stale", "stale", "stale", "hit", "hit", "hit"]) {
            let status = get(edge, name).await.field("cache-status").to_owned();
            assert!(
                status.contains(fate) && (fate != "stale" || status.contains("fwd-status=304")),
                "{name}: {status}"
            );
            assert_eq!(get(edge, name).await.field("cache-status"), "lyceum; hit", "{name}, once it was renewed");
        }
    }
}

#[tokio::test]
async fn a_fill_under_way_serves_those_who_asked_before_the_purge_and_no_one_after_it() {
    for order in [
        r#"{"url": "/v/a/x.m4s"}"#,
        r#"{"prefix": "/v/a/"}"#,
        r#"{"tag": "lesson-a"}"#,
        r#"{"tag": "lesson-a", "soft": true}"#,
    ] {
        let go = Arc::new(Notify::new());
        let held = Arc::clone(&go);
        let fields = [IMMUTABLE, ("surrogate-key", "lesson-a")];
        let origin = Origin::start(move |_| {
            Reply::head(6, &fields).bytes("old").then(Step::Until(Arc::clone(&held))).bytes("old")
        })
        .await;
        let edge = TestEdge::paid(&[&origin]).await;
        let path = format!("/t/{}/v/a/x.m4s", edge.token());
        let mut early = begin(&edge.url, Method::GET, &path, &[], "").await;
        assert_eq!(early.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "old");
        origin.now(move |_| Reply::new(200, &fields, "new"));
        purge(&edge.admin().await, order).await;
        let late = edge.get(&path).await;
        assert_eq!((late.text().as_str(), late.field("cache-status").contains("uri-miss")), ("new", true), "{order}");
        go.notify_waiters();
        assert_eq!(early.into_body().collect().await.unwrap().to_bytes(), "old", "{order}");
        let after = edge.get(&path).await;
        assert_eq!((after.text().as_str(), after.field("cache-status")), ("new", "lyceum; hit"), "{order}");
        assert_eq!(origin.count("/v/a/x.m4s"), 2, "{order}");
    }
}

const KIB: usize = 1 << 10;

/// A large body in parts, and one by language.
fn parts_and_variants(seen: &Seen, body: &[u8]) -> Reply {
    let fields = [IMMUTABLE, ("etag", "\"one\""), ("surrogate-key", "lesson-a"), ("accept-ranges", "bytes")];
    if seen.target == "/variants" {
        let language = seen.field("accept-language").unwrap_or("none").to_owned();
        let fields = [IMMUTABLE, ("vary", "accept-language"), ("etag", "\"one\""), ("surrogate-key", "lesson-a")];
        return match seen.field("if-none-match") {
            Some(_) => Reply::new(304, &fields, ""),
            None => Reply::new(200, &fields, language),
        };
    }
    if seen.field("if-none-match").is_some() {
        return Reply::new(304, &fields, "");
    }
    let Some(range) = seen.field("range") else { return Reply::new(200, &fields, body) };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let last = last.min(body.len() - 1);
    let place = format!("bytes {first}-{last}/{}", body.len());
    let fields = [fields.as_slice(), &[("content-range", &place)]].concat();
    Reply::new(206, &fields, &body[first..=last])
}

#[tokio::test]
async fn slices_and_variants_go_with_what_leads_to_them_in_memory_and_on_disk() {
    let body = Arc::new(pattern(300 * KIB));
    let sent = Arc::clone(&body);
    let origin = Origin::start(move |seen: &Seen| parts_and_variants(seen, &sent)).await;
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    let cache = format!(
        "[cache]\nobject = \"128KiB\"\nslice = \"64KiB\"\nmemory = \"16MiB\"\ndisk = {{ path = {:?}, size = \"64MiB\" }}\n",
        disk.display().to_string()
    );
    let route = "[[route]]\nprefix = \"/\"\npool = \"origin\"\nauth = \"none\"\ncache_key_host = false\n";
    let edge = TestEdge::start(&format!("{cache}{}\n{route}", pool(&[&origin], ""))).await;
    let admin = edge.admin().await;
    let fetch = async || {
        let before = origin.seen().len();
        assert!(edge.get("/large").await.body.as_deref() == Some(&body));
        for language in ["de", "en"] {
            let answer = edge.send(Method::GET, "/variants", &[("accept-language", language)]).await;
            assert_eq!(answer.text(), language);
        }
        origin.seen().len() - before
    };
    // What leads to five slices, these, the signpost and two variants.
    let on_disk = async |files: f64| {
        until_async("the disk to hold them", Duration::from_secs(10), async || {
            (edge.metric("lyceum_edge_disk_objects", &[]) == files).then_some(())
        })
        .await;
    };
    let all = fetch().await;
    on_disk(9.0).await;
    assert_eq!(fetch().await, 0, "all is stored");
    for (large, variants) in
        [(r#"{"url": "/large"}"#, r#"{"url": "/variants"}"#), (r#"{"prefix": "/la"}"#, r#"{"prefix": "/v"}"#)]
    {
        assert_eq!((purge(&admin, large).await, purge(&admin, variants).await), (6, 3), "{large}");
        on_disk(0.0).await;
        assert_eq!(fetch().await, all, "{large}: all is fetched again");
        on_disk(9.0).await;
    }
    // By tag goes what has it; the signpost, which has none, leads to nothing then.
    purge(&admin, r#"{"tag": "lesson-a"}"#).await;
    on_disk(1.0).await;
    assert_eq!(fetch().await, all);
    on_disk(9.0).await;
    for soft in [r#"{"tag": "lesson-a", "soft": true}"#, r#"{"prefix": "/", "soft": true}"#] {
        purge(&admin, soft).await;
        let before = origin.seen().len();
        assert_eq!(fetch().await, 3, "{soft}: each is asked for once");
        assert!(origin.seen()[before..].iter().all(|seen| seen.field("if-none-match") == Some("\"one\"")), "{soft}");
        assert_eq!(fetch().await, 0, "{soft}: and stays, slices and all");
    }
}

#[tokio::test]
async fn what_was_purged_softly_is_used_for_as_long_as_its_origin_allows_counted_from_the_purge() {
    let control = "max-age=1000, stale-while-revalidate=20, stale-if-error=100";
    let origin = Origin::start(move |_| Reply::new(200, &[("cache-control", control), ("etag", "\"1\"")], "old")).await;
    let edge = TestEdge::open(&[&origin]).await;
    let admin = edge.admin().await;
    let status = async |path: &str| edge.get(path).await.field("cache-status").to_owned();
    for path in ["/beside", "/late", "/error"] {
        edge.get(path).await;
    }
    edge.clock.advance(Duration::from_secs(500));
    assert_eq!(purge(&admin, r#"{"prefix": "/", "soft": true}"#).await, 3);
    edge.clock.advance(Duration::from_secs(19));
    assert_eq!(status("/beside").await, "lyceum; hit; ttl=-19; detail=stale-while-revalidate");
    until_async("the check beside it", Duration::from_secs(5), async || {
        (status("/beside").await == "lyceum; hit").then_some(())
    })
    .await;
    assert_eq!(origin.count("/beside"), 2);
    edge.clock.advance(Duration::from_secs(1));
    assert!(status("/late").await.contains("fwd=stale"), "validated before it is used");
    origin.now(|_| Reply::new(503, &[], "down"));
    for (seconds, code) in [(0, 200), (79, 200), (1, 503)] {
        edge.clock.advance(Duration::from_secs(seconds));
        assert_eq!(edge.get("/error").await.status, code, "{seconds} more");
    }
}

#[tokio::test]
async fn an_edge_below_a_shield_is_purged_by_tag_and_tells_clients_no_tags() {
    let origin = Origin::start(|seen: &Seen| {
        let fields =
            [IMMUTABLE, ("surrogate-key", "lesson-a all"), ("cache-tag", "more"), ("cdn-cache-control", "max-age=60")];
        Reply::new(200, &fields, &seen.target)
    })
    .await;
    let guarded = "[[route]]\nprefix = \"/v/\"\npool = \"origin\"\nauth = \"bearer\"\nbearer = \"between\"\n";
    let shield = TestEdge::start(&format!("{}{guarded}", pool(&[&origin], ""))).await;
    let above = format!(
        "[[pool]]\nname = \"origin\"\norigins = [{{ url = \"{}\" }}]\nauth = {{ bearer = \"between\" }}\n",
        shield.url
    );
    let toml = paid(&[&origin], "").replace(&pool(&[&origin], ""), &above);
    let edge = TestEdge::start(&toml).await;
    let (edge_admin, shield_admin) = (edge.admin().await, shield.admin().await);
    let path = format!("/t/{}/v/a/x.m4s", edge.token());
    for (tag, fetches) in [("lesson-a", 1), ("all", 2), ("more", 3)] {
        let answer = edge.get(&path).await;
        assert_eq!((answer.text().as_str(), origin.seen().len()), ("/v/a/x.m4s", fetches), "{tag}");
        for name in ["surrogate-key", "cache-tag", "cdn-cache-control"] {
            assert!(answer.headers.get(name).is_none(), "{name} is no client's");
        }
        assert_eq!(edge.get(&path).await.field("cache-status"), "lyceum; hit");
        let order = format!(r#"{{"tag": "{tag}"}}"#);
        assert_eq!((purge(&shield_admin, &order).await, purge(&edge_admin, &order).await), (1, 1), "{tag}");
    }
}

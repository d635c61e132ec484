//! The second tier: what is on disk is found again, verified, purged, and never in the way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use super::harness::*;
use crate::support::process::Role;
use crate::support::{free_port, until_async};

/// A directory that outlives its edges.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    fn cache(&self, more: &str) -> String {
        format!("[cache]\n{more}\ndisk = {{ path = \"{}\", size = \"64MiB\" }}\n", self.root().display())
    }

    async fn paid(&self, origin: &Origin, more: &str) -> TestEdge {
        TestEdge::start(&paid(&[origin], &self.cache(more))).await
    }

    async fn open(&self, origin: &Origin) -> TestEdge {
        let route = "[[route]]\nprefix = \"/\"\npool = \"origin\"\nauth = \"none\"\ncache_key_host = false\n";
        TestEdge::start(&format!("{}\n{}\n{route}", self.cache(""), pool(&[origin], ""))).await
    }

    /// Ends an edge, once so many files are written, and waits until the directory is free.
    async fn end(&self, edge: TestEdge, files: f64) {
        written(&edge, files).await;
        drop(edge);
        let lock = self.root().join("lock");
        until_async("the edge to let go of its directory", Duration::from_secs(10), async || {
            let lock = std::fs::File::open(&lock).unwrap();
            lock.try_lock().is_ok().then_some(())
        })
        .await;
    }

    fn files(&self) -> Vec<PathBuf> {
        let list =
            |path: &Path| std::fs::read_dir(path).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
        let folders = list(&self.root()).into_iter().filter(|path| path.file_name().unwrap().len() == 2);
        folders.flat_map(|folder| list(&folder)).collect()
    }
}

async fn written(edge: &TestEdge, files: f64) {
    until_async("files to be written", Duration::from_secs(10), async || {
        (edge.metric("lyceum_edge_disk_writes_total", &["\"ok\""]) >= files).then_some(())
    })
    .await;
}

const FROM_DISK: &str = "lyceum; hit; detail=disk";

#[tokio::test]
async fn what_was_fetched_is_served_after_a_restart_without_any_origin() {
    let body = Arc::new(pattern(300_000));
    let sent = Arc::clone(&body);
    let origin =
        Origin::start(move |_| Reply::new(200, &[IMMUTABLE, ("etag", "\"one\""), ("x-own", "kept")], &*sent)).await;
    let disk = Disk::new();
    let edge = disk.paid(&origin, "").await;
    let path = |edge: &TestEdge| format!("/t/{}/v/a/x.m4s", edge.token());
    edge.get(&path(&edge)).await;
    disk.end(edge, 1.0).await;
    origin.kill();
    let edge = disk.paid(&origin, "").await;
    for status in [FROM_DISK, "lyceum; hit"] {
        let answer = edge.get(&path(&edge)).await;
        assert!(answer.body.as_deref() == Some(&body));
        assert_eq!(
            (answer.field("cache-status"), answer.field("x-own"), answer.field("etag")),
            (status, "kept", "\"one\"")
        );
        assert_eq!(answer.field("cache-control"), "private, max-age=31536000, immutable");
    }
    assert_eq!(edge.metric("lyceum_edge_disk_reads_total", &["hit"]), 1.0);
    assert_eq!(
        edge.send(Method::GET, "/v/a/x.m4s", &[]).await.code(),
        "token_missing",
        "and to no one without a token"
    );
}

#[tokio::test]
async fn freshness_validators_variants_and_slices_are_kept() {
    let large = Arc::new(pattern(9 << 20));
    let sent = Arc::clone(&large);
    let control = ("cache-control", "max-age=100");
    let script = move |seen: &Seen| match seen.target.as_str() {
        "/large" => match seen.field("range") {
            None => Reply::new(200, &[control, ("etag", "\"l\""), ("accept-ranges", "bytes")], &*sent),
            Some(range) => {
                let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                let last = last.min(sent.len() - 1);
                let content_range = format!("bytes {first}-{last}/{}", sent.len());
                Reply::new(206, &[control, ("etag", "\"l\""), ("content-range", &content_range)], &sent[first..=last])
            }
        },
        "/variants" => {
            let language = seen.field("accept-language").unwrap_or("none").to_owned();
            Reply::new(200, &[control, ("vary", "accept-language")], language)
        }
        _ if seen.field("if-none-match") == Some("\"s\"") => Reply::new(304, &[control, ("etag", "\"s\"")], ""),
        _ => Reply::new(200, &[control, ("etag", "\"s\"")], "small"),
    };
    let origin = Origin::start(script).await;
    let disk = Disk::new();
    let edge = disk.open(&origin).await;
    let german = [("accept-language", "de")];
    edge.get("/small").await;
    edge.send(Method::GET, "/variants", &german).await;
    edge.send(Method::GET, "/variants", &[("accept-language", "en")]).await;
    assert!(edge.get("/large").await.body.as_deref() == Some(&large));
    let before = origin.seen().len();
    // One, the signpost and two variants, what leads to the slices and five of these.
    disk.end(edge, 10.0).await;

    let edge = disk.open(&origin).await;
    // What leads there is on disk and so are its slices, each under a name that the other gives.
    edge.clock.advance(Duration::from_secs(50));
    let answer = edge.send(Method::GET, "/variants", &german).await;
    assert_eq!((answer.text().as_str(), answer.field("cache-status"), answer.field("age")), ("de", FROM_DISK, "50"));
    let only = [("cache-control", "only-if-cached"), ("accept-language", "en")];
    assert_eq!(edge.send(Method::GET, "/variants", &only).await.text(), "en");
    let answer = edge.send(Method::GET, "/large", &[("range", "bytes=-1000")]).await;
    assert_eq!((answer.status, answer.field("cache-status")), (StatusCode::PARTIAL_CONTENT, FROM_DISK));
    assert!(answer.body.as_deref() == Some(&large[large.len() - 1000..]));
    assert!(edge.get("/large").await.body.as_deref() == Some(&large));
    assert_eq!(origin.seen().len(), before, "nothing was fetched again");
    edge.clock.advance(Duration::from_secs(60));
    let answer = edge.get("/small").await;
    assert_eq!(
        (answer.text().as_str(), answer.field("cache-status")),
        ("small", "lyceum; fwd=stale; fwd-status=304; ttl=100")
    );
}

#[tokio::test]
async fn what_memory_has_no_room_for_is_promoted_from_disk() {
    let origin =
        Origin::start(|seen: &Seen| Reply::new(200, &[IMMUTABLE], [seen.target.as_bytes(), &[7; 100_000]].concat()))
            .await;
    let disk = Disk::new();
    let edge = disk.paid(&origin, "memory = \"1MiB\"").await;
    let path = |n: usize| format!("/t/{}/v/a/{n}.m4s", edge.token());
    for n in 0..30 {
        edge.get(&path(n)).await;
    }
    written(&edge, 30.0).await;
    for n in 0..30 {
        let answer = edge.get(&path(n)).await;
        assert!(answer.body.unwrap().starts_with(format!("/v/a/{n}.m4s").as_bytes()));
    }
    assert_eq!(origin.seen().len(), 30, "each once");
    let promoted = edge.metric("lyceum_edge_requests_total", &["outcome=\"disk\""]);
    assert!(promoted >= 5.0, "{promoted}: memory holds ten");
    assert_eq!(edge.metric("lyceum_edge_disk_reads_total", &["hit"]), promoted);
}

#[tokio::test]
async fn purges_reach_what_an_earlier_run_left() {
    let origin = Origin::start(|seen: &Seen| {
        let tag = seen.target.rsplit('/').next().unwrap().to_owned();
        Reply::new(200, &[IMMUTABLE, ("surrogate-key", &tag), ("etag", "\"one\"")], "media")
    })
    .await;
    let disk = Disk::new();
    let edge = disk.paid(&origin, "").await;
    for name in ["url", "tag", "prefix", "soft", "kept"] {
        edge.get(&format!("/t/{}/v/a/{name}/{name}", edge.token())).await;
    }
    disk.end(edge, 5.0).await;
    let edge = disk.paid(&origin, "").await;
    let admin = edge.admin().await;
    let purge = async |order: &str| {
        let answer = send(&admin, Method::POST, "/purge", &[("content-type", "application/json")], order).await;
        assert_eq!(answer.text(), "{\"purged\":1}", "{order}");
    };
    until_async("the directory to be read", Duration::from_secs(10), async || {
        (edge.metric("lyceum_edge_disk_objects", &[]) == 5.0).then_some(())
    })
    .await;
    purge(r#"{"url": "/v/a/url/url"}"#).await;
    purge(r#"{"tag": "tag"}"#).await;
    purge(r#"{"prefix": "/v/a/prefix/"}"#).await;
    purge(r#"{"tag": "soft", "soft": true}"#).await;
    let before = origin.seen().len();
    for (name, status) in
        [("url", "uri-miss"), ("tag", "uri-miss"), ("prefix", "uri-miss"), ("soft", "stale"), ("kept", "hit")]
    {
        let answer = edge.get(&format!("/t/{}/v/a/{name}/{name}", edge.token())).await;
        assert!(
            answer.field("cache-status").contains(status) || name == "soft",
            "{name}: {}",
            answer.field("cache-status")
        );
    }
    assert_eq!(origin.seen().len(), before + 4);
    let soft = origin.seen().into_iter().rfind(|seen| seen.target == "/v/a/soft/soft").unwrap();
    assert_eq!(soft.field("if-none-match"), Some("\"one\""), "made stale, not taken away");
}

#[tokio::test]
async fn what_was_purged_while_the_edge_was_away_goes_when_the_feed_says_so() {
    let script = |seen: &Seen, events: &str| match seen.target.as_str() {
        feed if feed.contains("after=0&") => Reply::new(200, &[], format!("{{\"next\": 3, \"events\": [{events}]}}")),
        feed if feed.starts_with("/v1/revocations") => Reply(vec![Step::Wait(Duration::from_secs(60))]),
        lease if lease.ends_with("/lease") => Reply::new(204, &[], ""),
        path => Reply::new(200, &[IMMUTABLE, ("surrogate-key", path.rsplit('/').next().unwrap())], "media"),
    };
    let origin = Origin::start(move |seen: &Seen| script(seen, "")).await;
    let disk = Disk::new();
    let control = format!("[control]\norigins = [\"{}\"]\nbearer = \"secret\"\n", origin.url());
    let toml = paid(&[&origin], &format!("{}{control}", disk.cache("")));
    let edge = TestEdge::start(&toml).await;
    for name in ["gone", "kept"] {
        edge.get(&format!("/t/{}/v/a/{name}", edge.token())).await;
    }
    disk.end(edge, 2.0).await;
    origin.now(move |seen: &Seen| script(seen, "{\"purge\": {\"tag\": \"gone\"}}"));
    let edge = TestEdge::start(&toml).await;
    until_async("the purge", Duration::from_secs(10), async || {
        (edge.metric("lyceum_edge_disk_objects", &[]) == 1.0).then_some(())
    })
    .await;
    for (name, status) in [("gone", "fwd=uri-miss"), ("kept", "hit")] {
        let answer = edge.get(&format!("/t/{}/v/a/{name}", edge.token())).await;
        assert!(answer.field("cache-status").contains(status), "{name}: {}", answer.field("cache-status"));
    }
}

#[tokio::test]
async fn a_corrupt_or_half_written_entry_is_never_served() {
    let origin = Origin::start(|_| Reply::new(200, &[IMMUTABLE], pattern(50_000))).await;
    let disk = Disk::new();
    let edge = disk.paid(&origin, "").await;
    for n in 0..3 {
        edge.get(&format!("/t/{}/v/a/{n}.m4s", edge.token())).await;
    }
    disk.end(edge, 3.0).await;
    for (n, file) in disk.files().iter().enumerate() {
        let mut bytes = std::fs::read(file).unwrap();
        let end = bytes.len();
        match n {
            0 => bytes[end - 100] ^= 1,
            1 => bytes.truncate(end - 1),
            _ => bytes[60] ^= 1,
        }
        std::fs::write(file, bytes).unwrap();
    }
    let edge = disk.paid(&origin, "").await;
    for n in 0..3 {
        let answer = edge.get(&format!("/t/{}/v/a/{n}.m4s", edge.token())).await;
        assert!(answer.status == StatusCode::OK && answer.body.as_deref() == Some(&pattern(50_000)));
        assert!(answer.field("cache-status").contains("fwd=uri-miss"));
    }
    assert_eq!(edge.metric("lyceum_edge_disk_reads_total", &["corrupt"]), 3.0);
    assert_eq!(origin.seen().len(), 6);
    written(&edge, 3.0).await;
}

#[tokio::test]
async fn a_disk_that_fails_is_no_client_s_matter() {
    let origin = Origin::start(|_| Reply::new(200, &[IMMUTABLE], "media")).await;
    let disk = Disk::new();
    let edge = disk.paid(&origin, "").await;
    std::fs::remove_dir_all(disk.root()).unwrap();
    std::fs::write(disk.root(), "no directory").unwrap();
    for n in 0..5 {
        for _ in 0..2 {
            let answer = edge.get(&format!("/t/{}/v/a/{n}.m4s", edge.token())).await;
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "media"));
        }
    }
    assert_eq!(origin.seen().len(), 5, "memory goes on alone");
    until_async("the failure to be counted", Duration::from_secs(5), async || {
        (edge.metric("lyceum_edge_disk_writes_total", &["failed"]) >= 1.0).then_some(())
    })
    .await;
}

/// A file system that is full before `size` is reached, of what its mount's options say, before objects of `bytes`:
/// those that were asked for last are on disk, and no write fails.
async fn the_oldest_make_room(options: &str, objects: usize, bytes: usize, last: usize) {
    let origin = Origin::start(move |seen: &Seen| {
        Reply::new(200, &[IMMUTABLE], [seen.target.as_bytes(), &vec![7; bytes]].concat())
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let (folder, log, admin) = (dir.path().join("cache"), dir.path().join("log"), free_port());
    let config = dir.path().join("edge.toml");
    let cache = format!("[cache]\ndisk = {{ path = \"{}/disk\", size = \"64MiB\" }}\n", folder.display());
    let route = "[[route]]\nprefix = \"/\"\npool = \"origin\"\nauth = \"none\"\n";
    let listen = format!("listen = [{{ address = \"127.0.0.1:0\" }}]\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n");
    std::fs::write(&config, format!("{listen}{cache}{}\n{route}", pool(&[&origin], ""))).unwrap();
    let edge = Role::on_file_system("edge", &config, &folder, options, Some(&log));
    let admin = format!("http://127.0.0.1:{admin}");
    let count = async |metric: &str| {
        let text = send(&admin, Method::GET, "/metrics", &[], "").await.text();
        text.lines().find_map(|found| found.strip_prefix(metric)?.trim().parse::<f64>().ok()).unwrap()
    };
    for n in 0..objects {
        assert_eq!(send(edge.url(), Method::GET, &format!("/{n}"), &[], "").await.status, StatusCode::OK);
    }
    until_async("all of them to be written", Duration::from_secs(20), async || {
        (count("lyceum_edge_disk_writes_total{result=\"ok\"}").await == objects as f64).then_some(())
    })
    .await;
    assert_eq!(count("lyceum_edge_disk_writes_total{result=\"failed\"}").await, 0.0);
    assert!(count("lyceum_edge_disk_evictions_total").await >= 1.0);
    let on_disk = async |n: usize| {
        let explained = send(&admin, Method::GET, &format!("/status?url={}/{n}", edge.url()), &[], "").await.text();
        serde_json::from_str::<serde_json::Value>(&explained).unwrap()["disk"] == true
    };
    for n in objects - last..objects {
        assert!(on_disk(n).await, "{n} of {objects}");
    }
    assert!(!on_disk(0).await);
    until_async("the log to say it, once", Duration::from_secs(10), async || {
        (std::fs::read_to_string(&log).unwrap().matches("the oldest responses make room").count() == 1).then_some(())
    })
    .await;
    let halves = std::fs::read_dir(edge.sees(&folder.join("disk/new"))).map_or(0, Iterator::count);
    assert_eq!(halves, 0, "nothing half written is left");
}

#[tokio::test]
async fn on_a_file_system_that_is_full_the_oldest_make_room() {
    the_oldest_make_room("size=8m", 12, 1 << 20, 4).await;
}

#[tokio::test]
async fn on_a_file_system_without_inodes_the_oldest_make_room() {
    the_oldest_make_room("size=64m,nr_inodes=320", 400, 100, 20).await;
}

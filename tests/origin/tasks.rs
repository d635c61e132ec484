//! The task protocol as a worker sees it, spoken word by word: leases that are lost, objects that are not there,
//! recordings that are refused.

use std::io::Write;
use std::time::Duration;

use lyceum_storage::db::{Db, PoolConfig, Url};
use serde_json::{Value, json};

use super::services::Postgres;
use super::world::{EDGE, Engines, World, rest_of};
use crate::support::until_async;

/// A lesson with a recording; its id.
async fn uploaded(world: &World) -> String {
    let (_, lesson) = world.lesson().await;
    world.post(&format!("/v1/lessons/{lesson}/media")).body("a recording").send().await.expect(202);
    lesson
}

async fn lease(world: &World) -> Value {
    world.post("/v1/tasks/lease").json(&json!({ "wait": 10 })).send().await.expect(200).json()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap()
}

async fn say(world: &World, task: &Value, what: &str, mut body: Value) -> super::world::Answer {
    body["lease"] = task["lease"].clone();
    world.post(&format!("/v1/tasks/{}/{what}", text(task, "id"))).json(&body).send().await
}

/// What a probe would find: 10 s of silent picture.
fn media_info() -> Value {
    json!({ "container": "mov", "bytes": 11, "start_us": 0, "duration_us": 10_000_000, "audio": [],
        "video": { "stream": 0, "codec": "h264", "width": 426, "height": 240, "sample_aspect": [1, 1],
            "rate": { "num": 25, "den": 1 }, "duration_us": 10_000_000 } })
}

async fn put(world: &World, task: &Value, path: &str, bytes: &str) -> super::world::Answer {
    let url = format!("{}{path}", task["objects"]["url"].as_str().unwrap());
    let kind = lyceum_packaging::handover::content_type(path);
    let ask = world.put(&url).header("lyceum-lease", text(task, "lease")).header("content-type", kind);
    ask.body(bytes).send().await
}

fn init() -> Value {
    json!({ "path": "v240/init.mp4", "kind": "init", "track": "v240", "timescale": 25, "bytes": 4,
        "facts": { "codec": "avc1.640015", "video_range": "SDR" } })
}

fn segment(n: u64) -> Value {
    let frames = if n == 2 { 50 } else { 100 };
    json!({ "path": format!("v240/{n:05}-{}.m4s", n * 4000), "kind": "segment", "track": "v240", "n": n,
        "start": n * 100, "duration": frames, "timescale": 25, "bytes": 5 })
}

/// The timescale is the plan's to choose; the story takes it from there.
fn scaled(mut handover: Value, timescale: u64) -> Value {
    for name in ["start", "duration"] {
        if let Some(ticks) = handover[name].as_u64() {
            handover[name] = json!(ticks * timescale / 25);
        }
    }
    handover["timescale"] = json!(timescale);
    handover
}

async fn a_lesson_is_made_segment_by_segment(engines: Engines) {
    let world = World::new(engines, 2, "");
    let lesson = uploaded(&world).await;
    let probe = lease(&world).await;
    say(&world, &probe, "complete", json!({ "segments": [] })).await.expect(422);
    say(&world, &probe, "complete", json!({ "segments": [], "report": media_info() })).await.expect(204);
    say(&world, &probe, "complete", json!({ "segments": [], "report": media_info() })).await.expect(204);
    let planned = world.get(&format!("/v1/lessons/{lesson}")).at(1).send().await.json();
    assert_eq!((&planned["state"], &planned["duration"]), (&json!("transcoding"), &json!(10.0)));
    let master = format!("/v/{lesson}/master.m3u8");
    assert_eq!(world.get(&master).key(EDGE).send().await.expect(404).code(), "not_ready");

    let (mut made, mut images) = (0, 0);
    while made < 3 || images < 2 {
        let task = world.post("/v1/tasks/lease").at(1).json(&json!({ "wait": 10 })).send().await.expect(200).json();
        if task["spec"]["task"] == "images" {
            images += 1;
            pictures(&world, &lesson, &task).await;
            continue;
        }
        let rate = 25 * u64::from(lyceum_timescale(&task));
        let (first, count) =
            (task["spec"]["first_segment"].as_u64().unwrap(), task["spec"]["segments"].as_u64().unwrap());
        assert_eq!(first, made, "the earliest stretch first");
        put(&world, &task, "v240/init.mp4", "init").await.expect(201);
        let mut handed = vec![scaled(init(), rate)];
        // Said before it is there, with a wrong size, or of another plan: refused, and nothing of it is kept.
        let next = scaled(segment(first), rate);
        say(&world, &task, "heartbeat", json!({ "handed": [&next] })).await.expect(404);
        put(&world, &task, next["path"].as_str().unwrap(), "longer than that").await.expect(201);
        say(&world, &task, "heartbeat", json!({ "handed": [&next] })).await.expect(422);
        let mut foreign = next.clone();
        foreign["path"] = json!("v240/../../../x.m4s");
        say(&world, &task, "heartbeat", json!({ "handed": [foreign] })).await.expect(422);
        say(&world, &task, "complete", json!({ "segments": handed })).await.expect(422);
        for n in first..first + count {
            let next = scaled(segment(n), rate);
            let path = next["path"].as_str().unwrap().to_owned();
            put(&world, &task, &path, &format!("seg{n:02}")).await.expect(201);
            handed.push(next);
            let beat = say(&world, &task, "heartbeat", json!({ "progress": 0.5, "handed": handed })).await.expect(200);
            assert_eq!(beat.json()["cancel"], false);
            // Committed: what players may have stays as it is.
            put(&world, &task, &path, "other").await.expect(201);
            let version = text(&planned, "version");
            let got = world.get(&format!("/v/{lesson}/{version}/{path}")).at(1).key(EDGE).send().await.expect(200);
            assert_eq!(String::from_utf8_lossy(&got.body), format!("seg{n:02}"));
            assert_eq!(got.header("cache-control"), "public, max-age=31536000, immutable");
            assert_eq!(got.header("surrogate-key"), format!("lesson-{lesson}"));
            let event = world.get(&format!("/v/{lesson}/{version}/v240/event.m3u8")).key(EDGE).send().await.expect(200);
            let event = String::from_utf8_lossy(&event.body).into_owned();
            assert_eq!(event.matches("#EXTINF").count() as u64, n + 1, "{event}");
            assert_eq!(event.contains("#EXT-X-ENDLIST"), n == 2, "{event}");
        }
        made = first + count;
        say(&world, &task, "complete", json!({ "segments": handed })).await.expect(204);
        say(&world, &task, "complete", json!({ "segments": handed })).await.expect(204);
    }
    let ready = world.until_lesson(&lesson, "ready", |lesson| lesson["state"] == "ready").await;
    assert_eq!((&ready["playable"], &ready["progress"]), (&json!(true), &json!(1.0)));
    let answer = world.get(&master).key(EDGE).send().await.expect(200);
    let text_of_master = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text_of_master.contains("/v240/index.m3u8"), "{text_of_master}");
    let unchanged = world.get(&master).at(1).key(EDGE).header("if-none-match", answer.header("etag")).send().await;
    assert_eq!(unchanged.status, 304, "both origins give one tag");
    let index = format!("/v/{lesson}/{}/v240/index.m3u8", text(&ready, "version"));
    let part = world.get(&index).key(EDGE).header("range", "bytes=0-6").send().await.expect(206);
    assert_eq!(part.body, b"#EXTM3U");
    assert!(part.header("content-range").starts_with("bytes 0-6/"));
    world.get(&index).key(EDGE).header("if-match", "\"x\"").send().await.expect(412);
    world.get(&index).key(EDGE).header("range", "bytes=999999-").send().await.expect(416);
    world.get(&format!("/v/{lesson}/manifest.mpd")).key(EDGE).send().await.expect(200);
    world.get(&master).key("").send().await.expect(401);
    world.get(&master).key("not-the-edges-secret").send().await.expect(401);
}

/// The poster is handed over; a storyboard that could not be made is missed by nobody.
async fn pictures(world: &World, lesson: &str, task: &Value) {
    if task["spec"]["images"]["make"] != "poster" {
        say(world, task, "complete", json!({ "segments": [] })).await.expect(204);
        return;
    }
    put(world, task, "poster.jpg", "jpeg").await.expect(201);
    let poster = json!({ "path": "poster.jpg", "kind": "image", "bytes": 4 });
    let stray = json!({ "path": "cover.jpg", "kind": "image", "bytes": 4 });
    say(world, task, "complete", json!({ "segments": [stray] })).await.expect(422);
    say(world, task, "complete", json!({ "segments": [poster] })).await.expect(204);
    let told = world.get(&format!("/v/{lesson}/lesson.json")).key(EDGE).send().await.expect(200).json();
    let got = world.get(&format!("/v/{lesson}/{}", text(&told, "poster"))).key(EDGE).send().await.expect(200);
    assert_eq!((got.header("content-type"), &got.body[..]), ("image/jpeg", &b"jpeg"[..]));
    assert_eq!(got.header("cache-control"), "public, max-age=31536000, immutable");
}

/// Ticks per frame that the plan gave the picture.
fn lyceum_timescale(task: &Value) -> u32 {
    let grid: lyceum_packaging::Grid = serde_json::from_value(task["spec"]["grid"].clone()).unwrap();
    grid.timescale().0 / 25
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lesson_is_made_segment_by_segment_over_files() {
    a_lesson_is_made_segment_by_segment(Engines::Files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lesson_is_made_segment_by_segment_over_servers() {
    a_lesson_is_made_segment_by_segment(Engines::Servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_workers_task_goes_to_another_and_it_is_told() {
    for engines in [Engines::Files, Engines::Servers] {
        let world = World::new(engines, 1, "queue = { lease = \"2s\", backoff = \"10ms\" }");
        uploaded(&world).await;
        let first = lease(&world).await;
        let none = world.post("/v1/tasks/lease").json(&json!({ "wait": 0 })).send().await;
        assert_eq!(none.status, 204, "a task has one worker");
        let second = lease(&world).await;
        assert_eq!(first["id"], second["id"]);
        for (what, body) in [
            ("heartbeat", json!({})),
            ("complete", json!({ "report": media_info() })),
            ("fail", json!({ "code": "x" })),
        ] {
            assert_eq!(say(&world, &first, what, body).await.expect(409).code(), "lease_lost", "{what}");
        }
        assert_eq!(put(&world, &first, "v240/init.mp4", "init").await.expect(409).code(), "lease_lost");
        let source = world.get(first["source"]["url"].as_str().unwrap()).header("lyceum-lease", text(&first, "lease"));
        source.send().await.expect(409);
        say(&world, &second, "heartbeat", json!({})).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_media_fails_the_lesson_at_once_over_files() {
    refused_media_fails_the_lesson_at_once_and_other_failures_after_their_tries(Engines::Files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_media_fails_the_lesson_at_once_over_servers() {
    refused_media_fails_the_lesson_at_once_and_other_failures_after_their_tries(Engines::Servers).await;
}

async fn refused_media_fails_the_lesson_at_once_and_other_failures_after_their_tries(engines: Engines) {
    let world = World::new(engines, 1, "queue = { attempts = 2, backoff = \"10ms\" }");
    let lesson = uploaded(&world).await;
    let probe = lease(&world).await;
    let refusal = json!({ "code": "media_not_video", "detail": "This is a text file.", "retry": false });
    say(&world, &probe, "fail", refusal).await.expect(204);
    let failed = world.get(&format!("/v1/lessons/{lesson}")).send().await.json();
    assert_eq!(failed["state"], "failed");
    assert_eq!(failed["error"], json!({ "code": "media_not_video", "detail": "This is a text file." }));

    world.post(&format!("/v1/lessons/{lesson}/media")).body("another").send().await.expect(202);
    for _ in 0..2 {
        let probe = lease(&world).await;
        say(&world, &probe, "fail", json!({ "code": "media_crashed", "detail": "gone", "retry": true }))
            .await
            .expect(204);
    }
    let failed = world.get(&format!("/v1/lessons/{lesson}")).send().await.json();
    assert_eq!((&failed["state"], &failed["error"]["code"]), (&json!("failed"), &json!("media_crashed")));

    let empty = world.post(&format!("/v1/lessons/{lesson}/media")).body("").send().await.expect(202).json();
    assert_eq!((&empty["state"], &empty["error"]["code"]), (&json!("failed"), &json!("media_empty")));
}

async fn a_newer_upload_or_a_deletion_ends_the_work(engines: Engines) {
    let world = World::one(engines);
    let lesson = uploaded(&world).await;
    let older = lease(&world).await;
    world.post(&format!("/v1/lessons/{lesson}/media")).body("a better take").send().await.expect(202);
    assert_eq!(say(&world, &older, "heartbeat", json!({})).await.expect(200).json()["cancel"], true);
    let newer = lease(&world).await;
    assert_ne!(newer["id"], older["id"]);
    world.delete(&format!("/v1/lessons/{lesson}")).send().await.expect(204);
    world.get(&format!("/v1/lessons/{lesson}")).send().await.expect(404);
    if engines == Engines::Files {
        let recordings = world.dir.path().join("objects/uploads");
        until_async("the recordings to go", Duration::from_secs(10), async || {
            (std::fs::read_dir(&recordings).unwrap().count() == 0).then_some(())
        })
        .await;
    }
    // Its row goes with the lesson, a moment later.
    until_async("the task to be forgotten", Duration::from_secs(10), async || {
        let beat = say(&world, &newer, "heartbeat", json!({})).await;
        (beat.status == 409).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_upload_or_a_deletion_ends_the_work_over_files() {
    a_newer_upload_or_a_deletion_ends_the_work(Engines::Files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_upload_or_a_deletion_ends_the_work_over_servers() {
    a_newer_upload_or_a_deletion_ends_the_work(Engines::Servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_while_it_begins_leaves_no_transaction_behind() {
    let url: Url = Postgres::shared().database().parse().unwrap();
    let one = PoolConfig { connections: 1, ..PoolConfig::default() };
    let db = Db::open(&url, &one).await.unwrap();
    let later = async |turns: usize| {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    };
    let mut given_up = 0;
    // Each a little later than the one before: some fall into the moment in which a transaction begins.
    for turns in 0..300 {
        tokio::select! {
            biased;
            begun = db.read() => drop(begun.unwrap()),
            () = later(turns * 10) => given_up += 1,
        }
        let mut tx = db.begin().await.unwrap();
        tx.execute("CREATE TABLE IF NOT EXISTS written (at BIGINT)", Vec::new()).await.expect("it may write");
        tx.execute("INSERT INTO written VALUES (1)", Vec::new()).await.expect("it may write");
        tx.commit().await.unwrap();
    }
    assert!(given_up > 10, "{given_up} of 300 were given up");
    db.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_restarts_under_the_origins_and_they_go_on() {
    let mut postgres = Postgres::start();
    let dir = tempfile::tempdir().unwrap();
    let store = format!("{{ directory = \"{}\" }}", dir.path().join("objects").display());
    let world = World::over(dir, postgres.database(), store, 2, "database_pool = { wait = \"2s\" }");
    let (_, lesson) = world.lesson().await;
    let bytes = super::world::noise(20 << 20, 8);
    let upload = world.create(&lesson, bytes.len() as u64).send().await.expect(201).header("location").to_owned();
    let ghost = world.ghost(0, &upload, 0, bytes.len() as u64, &bytes[..18 << 20]);
    world.until_lesson(&lesson, "bytes to be acknowledged", |lesson| lesson["progress"].as_f64().unwrap() > 0.0).await;
    tokio::task::block_in_place(|| postgres.restart());
    let head = until_async("PostgreSQL to be there again", Duration::from_secs(20), async || {
        let head = world.head(&upload).at(1).send().await;
        assert!(matches!(head.status, 200 | 503), "{}", String::from_utf8_lossy(&head.body));
        (head.status == 200).then_some(head)
    })
    .await;
    drop(ghost);
    let offset: usize = head.header("upload-offset").parse().unwrap();
    assert!(offset >= 16 << 20, "{offset} bytes are left of what was acknowledged");
    until_async("the upload to go on", Duration::from_secs(20), async || {
        let patched = world.patch(&upload, offset as u64, &bytes[offset..]).send().await;
        (patched.status == 204).then_some(())
    })
    .await;
    let probe = lease(&world).await;
    let source = world.get(probe["source"]["url"].as_str().unwrap()).header("lyceum-lease", text(&probe, "lease"));
    assert!(source.send().await.expect(200).body == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_believed_within_the_origins_own_limits() {
    let world = World::new(Engines::Files, 1, "[recordings]\nduration = \"2h\"");
    let hours = |hours: f64| (hours * 3_600_000_000.0) as u64;
    let report = |name: &str, value: Value| {
        let mut report = media_info();
        report[name] = value;
        report
    };
    for (what, excessive) in [
        ("a year", report("duration_us", json!(hours(365.0 * 24.0)))),
        ("a second too much", report("duration_us", json!(hours(2.0) + 1_000_000))),
        ("streams", report("audio", json!(vec![json!({ "stream": 1 }); 1001]))),
        ("a title of a page", report("audio", json!([{ "title": "x".repeat(2000) }]))),
        (
            "breaks of its clock",
            report("breaks", json!(vec![json!({ "byte": 1, "shift_us": 1, "start_us": 1 }); 5000])),
        ),
    ] {
        let lesson = uploaded(&world).await;
        let probe = lease(&world).await;
        let told = say(&world, &probe, "complete", json!({ "report": excessive })).await;
        assert_eq!((told.status, told.code().as_str()), (422, "unprocessable"), "{what}");
        let failed = world.get(&format!("/v1/lessons/{lesson}")).send().await.expect(200).json();
        assert_eq!(failed["error"]["code"], "media_limit_exceeded", "{what}");
    }
    // Of what it hands over, nothing is stored that the plan does not name.
    uploaded(&world).await;
    let probe = lease(&world).await;
    put(&world, &probe, "v240/init.mp4", "init").await.expect(422);
    say(&world, &probe, "complete", json!({ "report": media_info() })).await.expect(204);
    let task = lease(&world).await;
    put(&world, &task, "v240/init.mp4", "init").await.expect(201);
    for foreign in ["v241/init.mp4", "v240/00000-1.m4s", "v240/00009-36000.m4s", "v240/a.m4s", "film.mkv"] {
        put(&world, &task, foreign, "bytes").await.expect(422);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_lesson_is_queued_in_parts_also_over_a_crash() {
    for engines in [Engines::Files, Engines::Servers] {
        let mut world = World::one(engines);
        let lesson = uploaded(&world).await;
        let probe = lease(&world).await;
        let mut report = media_info();
        report["duration_us"] = json!(4 * 3_600_000_000_u64);
        report["audio"] = json!([{ "stream": 1, "codec": "aac", "channels": 2, "sample_rate": 48000 }]);
        say(&world, &probe, "complete", json!({ "report": report })).await.expect(204);
        world.kill(0);
        let before = world.number("select count(*) from tasks where kind <> 'probe'");
        assert!(before >= 250 && before % 250 == 0, "whole transactions: {before}");
        world.start(0);
        until_async("all tasks to be queued", Duration::from_secs(120), async || {
            (world.number("select tasks_left from versions") == 0).then_some(())
        })
        .await;
        // Four hours are 1,200 tasks of pictures and 240 of sound, with the first one shorter, and those of images.
        let tasks = world.number("select count(*) from tasks where kind <> 'probe'");
        assert!((1_430..1_450).contains(&tasks), "{tasks}");
        assert!(before < tasks, "it was killed in between");
        let highest = "select count(distinct position) from tasks where kind <> 'probe'";
        assert_eq!(world.number(highest), tasks, "each once");
        world.delete(&format!("/v1/lessons/{lesson}")).send().await.expect(204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_uploads_keep_no_worker_and_no_other_creator_waiting() {
    let world = World::new(Engines::Servers, 1, "");
    uploaded(&world).await;
    let (_, lesson) = world.lesson().await;
    let mut slow = Vec::new();
    // More than there is memory for.
    for _ in 0..8 {
        let upload = world.create(&lesson, 9 << 20).send().await.expect(201).header("location").to_owned();
        slow.push(world.ghost(0, &upload, 0, 9 << 20, &[7; 1000]));
    }
    let probe = lease(&world).await;
    say(&world, &probe, "complete", json!({ "segments": [], "report": media_info() })).await.expect(204);
    let key = world.key("creator").await;
    let course = world.post("/v1/courses").key(&key).json(&json!({ "title": "C" })).send().await.expect(201).json();
    let lessons = format!("/v1/courses/{}/lessons", text(&course, "id"));
    let other = world.post(&lessons).key(&key).json(&json!({ "title": "L" })).send().await.expect(201).json();
    let media = world.post(&format!("/v1/lessons/{}/media", text(&other, "id"))).key(&key).body("a recording");
    let begin = lyceum_core::time::monotonic();
    tokio::join!(async { drop(media.send().await.expect(202)) }, async {
        let task = lease(&world).await;
        let path = if task["spec"]["task"] == "images" { "poster.jpg" } else { "v240/init.mp4" };
        if task["spec"]["task"] != "probe" {
            put(&world, &task, path, "made").await.expect(201);
        }
    });
    assert!(begin.elapsed() < Duration::from_secs(20), "they waited {:?}", begin.elapsed());
    drop(slow);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_comes_after_its_lesson_was_deleted_leaves_nothing() {
    let world = World::one(Engines::Files);
    let lesson = uploaded(&world).await;
    let probe = lease(&world).await;
    assert_eq!(put(&world, &probe, "v240/init.mp4", "init").await.expect(422).code(), "unprocessable");
    say(&world, &probe, "complete", json!({ "segments": [], "report": media_info() })).await.expect(204);
    let task = lease(&world).await;
    assert_eq!(put(&world, &task, "v999/init.mp4", "init").await.expect(422).code(), "unprocessable");
    let mut late = std::net::TcpStream::connect(world.url(0).trim_start_matches("http://")).unwrap();
    let head = format!(
        "PUT /v1/tasks/{}/objects/v240/init.mp4 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nLyceum-Lease: {}\r\n\
         Content-Length: 4\r\n\r\nin",
        text(&task, "id"),
        super::world::ADMIN,
        text(&task, "lease")
    );
    late.write_all(head.as_bytes()).unwrap();
    let objects = world.dir.path().join("objects");
    let files = |folder: &str| -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![objects.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
            }
        }
        found
    };
    // Its bytes lie in a temporary file: the lease was looked at.
    until_async("the object to be under way", Duration::from_secs(10), async || {
        (!files(".tmp").is_empty()).then_some(())
    })
    .await;
    world.delete(&format!("/v1/lessons/{lesson}")).send().await.expect(204);
    until_async("the lesson to be removed", Duration::from_secs(20), async || {
        files("uploads").is_empty().then_some(())
    })
    .await;
    late.write_all(b"it").unwrap();
    let answer = rest_of(late);
    assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
    assert_eq!(files("v"), Vec::<std::path::PathBuf>::new());
}

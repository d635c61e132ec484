//! Subtitle files beside a recording: added, replaced and taken away while the lesson plays.

use serde_json::{Value, json};

use super::world::{EDGE, Engines, World};

/// What a probe would find: 4 s of silent picture, one segment.
fn media_info() -> Value {
    json!({ "container": "mov", "bytes": 11, "start_us": 0, "duration_us": 4_000_000, "audio": [],
        "video": { "stream": 0, "codec": "h264", "width": 426, "height": 240, "sample_aspect": [1, 1],
            "rate": { "num": 25, "den": 1 }, "duration_us": 4_000_000 } })
}

/// Hands over all that the next task wants: one segment of picture, or nothing. Answers false when none waits.
async fn do_task(world: &World, wait: u64) -> bool {
    let leased = world.post("/v1/tasks/lease").json(&json!({ "wait": wait })).send().await;
    if leased.status == 204 {
        return false;
    }
    let task = leased.expect(200).json();
    let lease = task["lease"].as_str().unwrap();
    let mut handed = Vec::new();
    if task["spec"]["task"] == "video" {
        let grid: lyceum_packaging::Grid = serde_json::from_value(task["spec"]["grid"].clone()).unwrap();
        let scale = grid.timescale().0;
        handed.push(json!({ "path": "v240/init.mp4", "kind": "init", "track": "v240", "timescale": scale, "bytes": 4,
            "facts": { "codec": "avc1.640015", "video_range": "SDR" } }));
        handed.push(json!({ "path": "v240/00000-0.m4s", "kind": "segment", "track": "v240", "n": 0, "start": 0,
            "duration": 4 * scale, "timescale": scale, "bytes": 4 }));
        for object in &handed {
            let url = format!("{}{}", task["objects"]["url"].as_str().unwrap(), object["path"].as_str().unwrap());
            world.put(&url).header("lyceum-lease", lease).body("byte").send().await.expect(201);
        }
    }
    let report = if task["spec"]["task"] == "probe" { media_info() } else { Value::Null };
    let done = json!({ "lease": lease, "segments": handed, "report": report });
    world.post(&format!("/v1/tasks/{}/complete", task["id"].as_str().unwrap())).json(&done).send().await.expect(204);
    true
}

const FIRST: &str = "1\r\n00:00:00,500 --> 00:00:01,500\r\nHello & welcome\r\n";
const SECOND: &str = "WEBVTT\n\n00:01.000 --> 00:02.000\nBetter words\n";

async fn subtitles_come_and_go(engines: Engines) {
    let world = World::new(engines, 2, "");
    let (_, lesson) = world.lesson().await;
    let path = |language: &str| format!("/v1/lessons/{lesson}/subtitles/{language}");
    assert_eq!(world.put(&path("en")).body(FIRST).send().await.expect(409).code(), "not_planned");
    world.post(&format!("/v1/lessons/{lesson}/media")).body("a recording").send().await.expect(202);
    assert!(do_task(&world, 10).await, "the probe");
    // While it is made, at one origin; the other one's players see it as soon as its first segment is there.
    let told = world.put(&path("eng")).body(FIRST).send().await.expect(200).json();
    assert_eq!(told["items"], json!([{ "language": "en", "title": "English", "embedded": false }]));
    for wrong in ["e", "en_GB", "en-", "toolonglanguage"] {
        world.put(&path(wrong)).body(FIRST).send().await.expect(400);
    }
    world.put(&format!("{}?title=%0A", path("fr"))).body(FIRST).send().await.expect(400);
    assert_eq!(
        world.put(&path("fr")).body("no subtitles at all").send().await.expect(422).code(),
        "subtitles_not_readable"
    );
    let tasks = world.get(&format!("/v1/lessons/{lesson}")).send().await.json();
    assert_eq!(tasks["state"], "transcoding");
    while world.get(&format!("/v1/lessons/{lesson}")).send().await.json()["progress"].as_f64().unwrap() < 1.0 {
        assert!(do_task(&world, 10).await, "it is not all made");
    }
    let master = async |origin| {
        let answer = world.get(&format!("/v/{lesson}/master.m3u8")).at(origin).key(EDGE).send().await.expect(200);
        String::from_utf8(answer.body).unwrap()
    };
    let text = async |version: &str, track: &str| {
        let list =
            world.get(&format!("/v/{lesson}/{version}/{track}/index.m3u8")).at(1).key(EDGE).send().await.expect(200);
        let list = String::from_utf8(list.body).unwrap();
        assert!(list.contains("#EXT-X-ENDLIST"), "{list}");
        let segment = list.lines().find(|line| line.ends_with(".vtt")).unwrap().to_owned();
        let answer = world.get(&format!("/v/{lesson}/{version}/{track}/{segment}")).key(EDGE).send().await.expect(200);
        assert!(answer.header("content-type").starts_with("text/vtt"), "{}", answer.header("content-type"));
        String::from_utf8(answer.body).unwrap()
    };
    let version =
        world.get(&format!("/v1/lessons/{lesson}")).send().await.json()["version"].as_str().unwrap().to_owned();
    assert!(master(1).await.contains(&format!("URI=\"{version}/s-en/index.m3u8\"")), "{}", master(1).await);
    assert!(text(&version, "s-en").await.contains("Hello &amp; welcome"));

    // The lesson gets ready a moment after its last task.
    while do_task(&world, 0).await {}
    world.until_lesson(&lesson, "ready", |lesson| lesson["state"] == "ready").await;
    let told =
        world.put(&format!("{}?title=English%20CC", path("en"))).at(1).body(SECOND).send().await.expect(200).json();
    assert_eq!(told["items"], json!([{ "language": "en", "title": "English CC", "embedded": false }]));
    let now = master(0).await;
    assert!(
        now.contains("/s-en-2/index.m3u8") && !now.contains("/s-en/"),
        "another track, since segments never change: {now}"
    );
    assert!(text(&version, "s-en-2").await.contains("Better words"));
    let listed = world.get(&format!("/v1/lessons/{lesson}/subtitles")).send().await.expect(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    world.delete(&path("en")).send().await.expect(204);
    assert!(!master(1).await.contains("SUBTITLES"));
    world.delete(&path("en")).send().await.expect(404);
    let other = world.key("creator").await;
    world.put(&path("en")).key(&other).body(FIRST).send().await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn subtitles_come_and_go_over_files() {
    subtitles_come_and_go(Engines::Files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subtitles_come_and_go_over_servers() {
    subtitles_come_and_go(Engines::Servers).await;
}

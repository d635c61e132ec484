//! Encrypted lessons: what plays needs the key, and the key needs the token.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::world::{EDGE, Engines, World};
use crate::support::lessons::{curl, lesson_like, playback, recording};
use crate::support::{demo, heavy};

#[test]
fn an_encrypted_lesson_plays_through_an_edge_and_its_key_wants_the_token() {
    let demo = demo::shared();
    let _alone = heavy();
    let folder = tempfile::tempdir().unwrap();
    let file = recording(folder.path(), "secret.mp4", 5);
    let lesson = lesson_like(demo, &json!({ "title": "Secret", "encrypt": true }), &file);
    let told = playback(demo, &lesson, "ada");
    let url = told["url"].as_str().unwrap().to_owned();
    let played = Command::new("ffmpeg")
        .args(["-v", "error", "-xerror", "-i", &url, "-map", "0:v:0", "-f", "null", "-progress", "-", "-"])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&played.stderr).into_owned();
    assert!(played.status.success() && words.trim().is_empty(), "{words}");
    let frames = String::from_utf8_lossy(&played.stdout);
    let frames: u32 =
        frames.lines().filter_map(|line| line.strip_prefix("frame=")?.trim().parse().ok()).next_back().unwrap();
    assert!(frames > 60, "{frames} frames");

    let text = |url: &str| String::from_utf8(curl(&[url]).body).unwrap();
    let master = text(&url);
    let base = url.rsplit_once('/').unwrap().0.to_owned();
    let media = master.lines().find(|line| line.ends_with("/index.m3u8") && !line.starts_with('#')).unwrap();
    let list = text(&format!("{base}/{media}"));
    assert!(list.contains("#EXT-X-KEY:METHOD=AES-128,URI=\"../keys/"), "{list}");
    let track = format!("{base}/{}", media.rsplit_once('/').unwrap().0);
    let segment = list.lines().find(|line| line.ends_with(".m4s")).unwrap();
    let bytes = curl(&[&format!("{track}/{segment}")]).body;
    assert!(bytes.len() > 1000 && bytes.len().is_multiple_of(16));
    assert!(!bytes.windows(4).any(|window| window == b"moof"), "the segment is in the clear");

    let key = list.split("URI=\"../").nth(1).unwrap().split('"').next().unwrap();
    let version = media.split('/').next().unwrap();
    let key_url = format!("{base}/{version}/{key}");
    let headers = folder.path().join("headers");
    for _ in 0..2 {
        let answer = curl(&["-D", headers.to_str().unwrap(), &key_url]);
        assert_eq!((answer.status, answer.body.len()), (200, 16));
        let seen = std::fs::read_to_string(&headers).unwrap().to_ascii_lowercase();
        assert!(seen.contains("no-store"), "{seen}");
        assert!(!seen.contains("; hit"), "an edge kept a key: {seen}");
    }
    let bare = format!("{}/v/{lesson}/{version}/{key}", demo.text("/edges/0"));
    assert_eq!(curl(&[&bare]).status, 401);
    let other = demo.text("/playback/token");
    assert_eq!(curl(&["-H", &format!("Authorization: Bearer {other}"), &bare]).status, 403);
    let at_origin = format!("{}/v/{lesson}/{version}/{key}", demo.text("/origins/0"));
    assert_eq!(curl(&[&at_origin]).status, 401);
    let wrong = bare.replace(version, "v0");
    let token = told["token"].as_str().unwrap();
    assert_eq!(curl(&["-H", &format!("Authorization: Bearer {token}"), &wrong]).status, 404);
}

fn media_info() -> Value {
    json!({ "container": "mov", "bytes": 11, "start_us": 0, "duration_us": 10_000_000, "audio": [],
        "video": { "stream": 0, "codec": "h264", "width": 426, "height": 240, "sample_aspect": [1, 1],
            "rate": { "num": 25, "den": 1 }, "duration_us": 10_000_000 } })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_for_a_version_kept_sealed_and_given_to_workers_and_edges_alone() {
    for engines in [Engines::Files, Engines::Servers] {
        let world = World::new(engines, 2, "");
        let course =
            world.post("/v1/courses").json(&json!({ "title": "C", "encrypt": true })).send().await.expect(201).json();
        let lessons = format!("/v1/courses/{}/lessons", course["id"].as_str().unwrap());
        let lesson = world.post(&lessons).json(&json!({ "title": "L" })).send().await.expect(201).json();
        assert_eq!(lesson["encrypt"], true, "as its course");
        let lesson = lesson["id"].as_str().unwrap().to_owned();
        world.post(&format!("/v1/lessons/{lesson}/media")).body("a recording").send().await.expect(202);
        let lease = async |origin| {
            world.post("/v1/tasks/lease").at(origin).json(&json!({ "wait": 10 })).send().await.expect(200).json()
        };
        let probe = lease(0).await;
        let done = json!({ "lease": probe["lease"], "segments": [], "report": media_info() });
        world
            .post(&format!("/v1/tasks/{}/complete", probe["id"].as_str().unwrap()))
            .json(&done)
            .send()
            .await
            .expect(204);
        // Sealed by the one origin, opened by the other.
        let task = lease(1).await;
        let key = task["spec"]["protection"]["key"].as_str().unwrap_or_else(|| panic!("no key: {task}")).to_owned();
        let audit = world.get("/v1/audit").send().await.json();
        let deed = audit["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|deed| deed["action"] == "content_key.create")
            .unwrap()
            .clone();
        let version =
            world.get(&format!("/v1/lessons/{lesson}")).send().await.json()["version"].as_str().unwrap().to_owned();
        let path = format!("/v/{lesson}/{version}/keys/{}", deed["subject"].as_str().unwrap());
        let given = world.get(&path).key(EDGE).send().await.expect(200);
        assert_eq!((hex(&given.body), given.header("cache-control")), (key.clone(), "no-store"));
        world.get(&path).key("").send().await.expect(401);
        world.get(&path).send().await.expect(401);
        if engines == Engines::Files {
            a_new_sealing_key_takes_over(&world, &path, &key).await;
        }
        world.delete(&format!("/v1/lessons/{lesson}")).send().await.expect(204);
        world.get(&path).key(EDGE).send().await.expect(404);
    }
}

async fn a_new_sealing_key_takes_over(world: &World, path: &str, key: &str) {
    let database = world.dir.path().join("db/lyceum.db");
    let bytes: Vec<u8> = (0..32).step_by(2).map(|at| u8::from_str_radix(&key[at..at + 2], 16).unwrap()).collect();
    for name in ["db/lyceum.db", "db/lyceum.db-wal"] {
        let kept = std::fs::read(world.dir.path().join(name)).unwrap_or_default();
        assert!(!kept.windows(16).any(|window| window == bytes), "{name} holds a key in the clear");
        assert!(!kept.windows(32).any(|window| window == key.as_bytes()), "{name} holds a key in the clear");
    }
    let sealing = world.dir.path().join("keys/sealing");
    std::fs::write(sealing.join("2.key"), "5a".repeat(32)).unwrap();
    let sealed_by = || {
        let sql = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); print(c.execute('select sealed_by from content_keys').fetchone()[0])";
        let told = Command::new("python3").args(["-c", sql]).arg(&database).output().unwrap();
        (String::from_utf8_lossy(&told.stdout).trim() == "2").then_some(())
    };
    crate::support::until("the key to be sealed again", Duration::from_secs(30), sealed_by);
    std::fs::remove_file(sealing.join("0.key")).unwrap();
    // The other origin has to look into the folder.
    let given = crate::support::until_async("the other origin to open it", Duration::from_secs(30), async || {
        let given = world.get(path).key(EDGE).at(1).send().await;
        (given.status == 200).then_some(given)
    })
    .await;
    assert_eq!(hex(&given.body), key, "another seal, the same key");
}

//! A full disk: in the middle of an upload, and while a lesson is made. What was acknowledged stays, the refusal says
//! what is wrong, and all goes on by itself once there is room.

use std::time::Duration;

use serde_json::json;

use super::world::{World, noise};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_keeps_what_was_acknowledged_and_goes_on_when_there_is_room() {
    let world = World::on_small_disk(44, "");
    let filler = world.small_disk().join("filler");
    std::fs::write(&filler, vec![1; 20 << 20]).unwrap();
    let (_, lesson) = world.lesson().await;
    let bytes = noise(30 << 20, 21);
    let upload = world.create(&lesson, bytes.len() as u64).send().await.expect(201).header("location").to_owned();
    let full = world.patch(&upload, 0, &bytes).send().await.expect(507);
    assert_eq!(full.code(), "store_full");
    let head = world.head(&upload).send().await.expect(200);
    let offset: usize = head.header("upload-offset").parse().unwrap();
    assert!(offset >= 16 << 20, "only {offset} bytes of the first 24 MiB are kept");
    world.patch(&upload, offset as u64, &bytes[offset..]).send().await.expect(507);
    let head = world.head(&upload).send().await.expect(200);
    let kept: usize = head.header("upload-offset").parse().unwrap();
    assert!(kept >= offset, "{offset} was acknowledged, then {kept}");
    std::fs::remove_file(&filler).unwrap();
    world.patch(&upload, kept as u64, &bytes[kept..]).send().await.expect(204);
    let task = world.post("/v1/tasks/lease").json(&json!({ "wait": 10 })).send().await.expect(200).json();
    let source = world.get(task["source"]["url"].as_str().unwrap());
    let source = source.header("lyceum-lease", task["lease"].as_str().unwrap()).send().await.expect(200);
    assert!(source.body == bytes, "every byte in its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lesson_that_is_made_on_a_full_disk_waits_for_room() {
    let _alone = tokio::task::block_in_place(crate::support::heavy);
    let ladder = "queue = { attempts = 2, backoff = \"100ms\" }\nworkers = { count = 1 }\n\
        ladder = { segment = \"2s\", video = [{ height = 240, max_bitrate = \"400kbps\" }] }";
    let world = World::on_small_disk(16, ladder);
    let file = crate::support::lessons::recording(world.dir.path(), "r.mp4", 5);
    let bytes = std::fs::read(file).unwrap();
    let (_, lesson) = world.lesson().await;
    world.post(&format!("/v1/lessons/{lesson}/media")).body(bytes).send().await.expect(202);
    // Not one byte is left for what the worker hands over.
    let filler = world.small_disk().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    drop(file);
    let failed_once = || {
        let sql = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); print(c.execute(\"select count(*) from tasks where error_code='worker_transfer_failed'\").fetchone()[0])";
        let database = world.dir.path().join("db/lyceum.db");
        let told = std::process::Command::new("python3").args(["-c", sql]).arg(&database).output().unwrap();
        (String::from_utf8_lossy(&told.stdout).trim() != "0").then_some(())
    };
    crate::support::until("a hand-over to fail", Duration::from_secs(90), failed_once);
    let told = world.get(&format!("/v1/lessons/{lesson}")).send().await.json();
    assert_eq!(told["state"], "transcoding", "it waits: {told}");
    std::fs::remove_file(&filler).unwrap();
    let made = |told: &serde_json::Value| {
        assert_ne!(told["state"], "failed", "{told}");
        told["state"] == "ready"
    };
    world.until_lesson_at(0, &lesson, Duration::from_secs(120), "it to go on", made).await;
}

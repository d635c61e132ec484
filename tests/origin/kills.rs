//! Two origins over PostgreSQL and a bucket, three workers: one of each is killed during a run of uploads, and every
//! lesson gets ready.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::world::{Engines, World};
use crate::support::lessons::recording;
use crate::support::process::Process;
use crate::support::{heavy, program};

const LESSONS: usize = 4;

fn worker(world: &World, key: &str, number: usize) -> Process {
    let config = world.dir.path().join(format!("worker-{number}.toml"));
    let text = format!("origins = [\"{}\", \"{}\"]\napi_key = \"{key}\"\nslots = 1\n", world.url(0), world.url(1));
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(program("lyceum-transcoder"));
    Process::start(command.args(["worker", "--exit-with-stdin", "--config"]).arg(&config).stderr(Stdio::null()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lesson_gets_ready_although_an_origin_and_a_worker_are_killed() {
    let _alone = tokio::task::block_in_place(heavy);
    let extra = "queue = { lease = \"3s\", backoff = \"100ms\" }\n\
        ladder = { segment = \"2s\", video = [{ height = 240, max_bitrate = \"400kbps\" }] }";
    let mut world = World::new(Engines::Servers, 2, extra);
    let bytes = std::fs::read(recording(world.dir.path(), "r.mp4", 5)).unwrap();
    let half = bytes.len() / 2;
    let key = world.key("worker").await;
    let workers: Vec<Process> = (0..3).map(|number| worker(&world, &key, number)).collect();
    let mut uploads = Vec::new();
    for number in 0..LESSONS {
        let (_, lesson) = world.lesson().await;
        let origin = number % 2;
        let made = world.create(&lesson, bytes.len() as u64).at(origin).send().await.expect(201);
        let upload = made.header("location").to_owned();
        world.patch(&upload, 0, &bytes[..half]).at(origin).send().await.expect(204);
        // Half of them are whole and being made when the kills come, half are not.
        if number < LESSONS / 2 {
            world.patch(&upload, half as u64, &bytes[half..]).at(origin).send().await.expect(204);
        }
        uploads.push((lesson, upload));
    }
    let made = |lesson: &serde_json::Value| lesson["state"] == "transcoding" || lesson["state"] == "ready";
    world.until_lesson_at(1, &uploads[0].0, Duration::from_secs(30), "the work to begin", made).await;
    world.kill(0);
    workers[0].signal("KILL");
    for (_, upload) in uploads.iter().skip(LESSONS / 2) {
        let offset: usize = world.head(upload).at(1).send().await.expect(200).header("upload-offset").parse().unwrap();
        assert_eq!(offset, half, "what was acknowledged is there");
        world.patch(upload, offset as u64, &bytes[offset..]).at(1).send().await.expect(204);
    }
    for (lesson, _) in &uploads {
        let made = |told: &serde_json::Value| {
            assert_ne!(told["state"], "failed", "{told}");
            told["state"] == "ready"
        };
        world.until_lesson_at(1, lesson, Duration::from_secs(180), "every lesson to get ready", made).await;
    }
}

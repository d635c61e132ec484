//! The origin's own workers: a recording becomes a lesson with nothing started beside the origin; a worker that dies
//! is started again; none outlives its origin.

use std::process::Command;
use std::time::Duration;

use super::world::{Engines, World, path};
use crate::support::process::{alive, signal};
use crate::support::{heavy, until};

fn workers_of(pid: u32) -> Vec<u32> {
    let listed =
        Command::new("pgrep").args(["-P", &pid.to_string(), "-f", "lyceum-transcoder worker"]).output().unwrap();
    String::from_utf8_lossy(&listed.stdout).split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[test]
fn an_origin_with_a_worker_of_its_own_needs_nothing_beside_it() {
    let _alone = heavy();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut world = World::new(Engines::Files, 1, "workers = { count = 1 }");
    let origin = world.origins[0].as_ref().unwrap().process.id();
    let first = until("the worker", Duration::from_secs(10), || workers_of(origin).first().copied());
    let arguments = std::fs::read(format!("/proc/{first}/cmdline")).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains("lyw_"), "no key where everybody can read it");
    signal(first, "KILL");
    let second =
        until("another worker", Duration::from_secs(10), || workers_of(origin).into_iter().find(|pid| *pid != first));
    let file = path(&world, "clip.mp4");
    let made = Command::new("ffmpeg")
        .args([
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=320x240:rate=25:duration=5",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
        ])
        .arg(&file)
        .status();
    assert!(made.unwrap().success());
    runtime.block_on(async {
        let (_, lesson) = world.lesson().await;
        let body = std::fs::read(&file).unwrap();
        world.post(&format!("/v1/lessons/{lesson}/media")).body(body).send().await.expect(202);
        let ready = world
            .until_lesson(&lesson, "ready", |lesson| lesson["state"] == "ready" || lesson["state"] == "failed")
            .await;
        assert_eq!(ready["state"], "ready", "{ready}");
    });
    world.kill(0);
    until("the worker to end with its origin", Duration::from_secs(5), || (!alive(second)).then_some(()));
}

//! A wall clock that jumps an hour forward and back under a running origin (libfaketime): what was acknowledged stays,
//! workers that live keep their tasks, uploads and sessions go on, and what is silent is still taken back.

use std::time::Duration;

use serde_json::{Value, json};

use super::access::{ready, session};
use super::world::{ADMIN, Answer, EDGE, World, noise};
use crate::support::until_async;

async fn lease(world: &World) -> Option<Value> {
    let leased = world.post("/v1/tasks/lease").json(&json!({ "wait": 0 })).send().await;
    (leased.status == 200).then(|| leased.json())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_forth_and_back_ends_nothing() {
    let extra = "queue = { lease = \"4s\", backoff = \"10ms\" }\nstreams = { limit = 1, lease = \"5s\" }";
    let world = World::with_jumping_clock(extra);
    let expires = |answer: &Answer| httpdate::parse_http_date(answer.header("upload-expires")).unwrap();
    // What is under way: a task of a worker that lives, an upload whose sender lives, a login, a stream.
    let (_, queued) = world.lesson().await;
    world.post(&format!("/v1/lessons/{queued}/media")).body("a recording").send().await.expect(202);
    let task = lease(&world).await.expect("a task waits");
    let heartbeat = format!("/v1/tasks/{}/heartbeat", task["id"].as_str().unwrap());
    let (course, lesson) = world.lesson().await;
    let bytes = noise(3_000_000, 21);
    let made = world.create(&lesson, bytes.len() as u64).send().await.expect(201);
    let upload = made.header("location").to_owned();
    let mut sent = 0;
    let login = world.post("/v1/login").key("").json(&json!({ "key": ADMIN })).send().await.expect(200);
    let cookie = login.header("set-cookie").split(';').next().unwrap().to_owned();
    let (_, watched) = world.lesson().await;
    ready(&world, &watched);
    let course_of = world.get(&format!("/v1/lessons/{watched}")).send().await.json()["course"].clone();
    let stream = session(&world, "eve", course_of.as_str().unwrap(), &watched).await;

    for jump in [0, 3600, 0, -3600, 0] {
        world.jump(jump);
        // Two sweeps see the new clock before the worker is heard again.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let beat = json!({ "lease": task["lease"], "progress": 0.5 });
        world.post(&heartbeat).json(&beat).send().await.expect(200);
        assert!(lease(&world).await.is_none(), "the task has one worker ({jump})");
        let offset = world.head(&upload).send().await.expect(200).header("upload-offset").to_owned();
        assert_eq!(offset, sent.to_string(), "what was acknowledged ({jump})");
        let more = &bytes[sent..sent + 500_000];
        let taken = world.patch(&upload, sent as u64, more).send().await.expect(204);
        sent += more.len();
        let off = expires(&taken).duration_since(expires(&made));
        let off = off.map_or_else(|earlier| -earlier.duration().as_secs_f64(), |later| later.as_secs_f64());
        assert!((off - f64::from(jump)).abs() < 120.0, "the origin's clock is {off} s off, not {jump}");
        world.get("/v1/me").key("").header("cookie", &cookie).send().await.expect(200);
        world.post(&format!("/v1/sessions/{stream}/lease")).key(EDGE).send().await.expect(204);
    }
    world.patch(&upload, sent as u64, &bytes[sent..]).send().await.expect(204);
    let queued_up = |told: &Value| told["state"] == "queued";
    world.until_lesson(&lesson, "the upload to be taken", queued_up).await;
    // Leases from before a jump hold nobody up either: the viewer leaves, the worker dies, and the clock goes back.
    world.post(&format!("/v1/sessions/{stream}/lease")).key(EDGE).send().await.expect(204);
    world.jump(-3600);
    let next = session(&world, "eve", course_of.as_str().unwrap(), &watched).await;
    world.post(&format!("/v1/sessions/{next}/lease")).key(EDGE).send().await.expect(204);
    let mut taken = Vec::new();
    until_async("both tasks to find another worker", Duration::from_secs(30), async || {
        taken.extend(lease(&world).await.map(|task| task["id"].clone()));
        (taken.contains(&task["id"]) && taken.len() == 2).then_some(())
    })
    .await;
    assert_eq!(world.post(&heartbeat).json(&json!({ "lease": task["lease"] })).send().await.code(), "lease_lost");
    world.get(&format!("/v1/courses/{course}")).send().await.expect(200);
}

//! The queue as creators and workers see it, over both engines: turns, urgency, lessons that died and are tried again,
//! uploads of lessons that are gone.

use std::time::Duration;

use serde_json::{Value, json};

use super::services::Postgres;
use super::world::{Answer, Engines, World, noise};
use crate::support::until_async;

/// What a probe would find: silent picture.
fn media_info(seconds: u64) -> Value {
    json!({ "container": "mov", "bytes": 11, "start_us": 0, "duration_us": seconds * 1_000_000, "audio": [],
        "video": { "stream": 0, "codec": "h264", "width": 426, "height": 240, "sample_aspect": [1, 1],
            "rate": { "num": 25, "den": 1 }, "duration_us": seconds * 1_000_000 } })
}

async fn lease(world: &World, origin: usize) -> Value {
    world.post("/v1/tasks/lease").at(origin).json(&json!({ "wait": 10 })).send().await.expect(200).json()
}

async fn say(world: &World, task: &Value, what: &str, mut body: Value) -> Answer {
    body["lease"] = task["lease"].clone();
    world.post(&format!("/v1/tasks/{}/{what}", task["id"].as_str().unwrap())).json(&body).send().await
}

/// A creator's key, and a course of theirs.
async fn creator(world: &World) -> (String, String) {
    let key = world.key("creator").await;
    let course = world.post("/v1/courses").key(&key).json(&json!({ "title": "C" })).send().await.expect(201).json();
    (key, course["id"].as_str().unwrap().to_owned())
}

/// A lesson of a creator's, with these bytes for a recording.
async fn upload(world: &World, (key, course): &(String, String), bytes: &str) -> String {
    let lessons = format!("/v1/courses/{course}/lessons");
    let lesson = world.post(&lessons).key(key).json(&json!({ "title": "L" })).send().await.expect(201).json();
    let lesson = lesson["id"].as_str().unwrap().to_owned();
    world.post(&format!("/v1/lessons/{lesson}/media")).key(key).body(bytes).send().await.expect(202);
    lesson
}

/// Whose recording a task is about.
async fn of(world: &World, task: &Value) -> String {
    let source = world.get(task["source"]["url"].as_str().unwrap());
    let source = source.header("lyceum-lease", task["lease"].as_str().unwrap()).send().await.expect(200);
    String::from_utf8(source.body).unwrap()
}

async fn creators_take_turns_and_first_stretches_go_first(engines: Engines) {
    let world = World::new(engines, 2, "");
    let (ada, bob) = (creator(&world).await, creator(&world).await);
    for recording in ["ada 1", "ada 2", "ada 3"] {
        upload(&world, &ada, recording).await;
    }
    upload(&world, &bob, "bob 1").await;
    // Ada's second and third came before Bob's only one, and wait all the same.
    let first = lease(&world, 0).await;
    assert_eq!(of(&world, &first).await, "ada 1");
    let second = lease(&world, 1).await;
    assert_eq!(of(&world, &second).await, "bob 1");
    let third = lease(&world, 0).await;
    assert_eq!(of(&world, &third).await, "ada 2");
    // The rest of one lesson waits for the first stretch of the next, though its creator has more under way.
    say(&world, &first, "complete", json!({ "segments": [], "report": media_info(120) })).await.expect(204);
    let fourth = lease(&world, 1).await;
    assert_eq!(of(&world, &fourth).await, "ada 3", "what is not looked into yet goes before all else");
    let mut urgent = 0;
    loop {
        let task = lease(&world, 0).await;
        assert_eq!(of(&world, &task).await, "ada 1");
        // Tasks begin on the grid of segments, 4 s each.
        if task["spec"]["first_segment"].as_u64().is_some_and(|first| first < 3) {
            urgent += 1;
        } else {
            break;
        }
    }
    assert!(urgent > 0, "the first stretch goes first");
    say(&world, &third, "complete", json!({ "segments": [], "report": media_info(120) })).await.expect(204);
    let next = lease(&world, 1).await;
    assert_eq!((of(&world, &next).await.as_str(), next["spec"]["first_segment"].as_u64()), ("ada 2", Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn creators_take_turns_over_files() {
    creators_take_turns_and_first_stretches_go_first(Engines::Files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creators_take_turns_over_servers() {
    creators_take_turns_and_first_stretches_go_first(Engines::Servers).await;
}

async fn a_dead_lesson_says_why_and_is_tried_again(engines: Engines) {
    let world = World::new(engines, 2, "queue = { attempts = 2, backoff = \"10ms\" }");
    let ada = creator(&world).await;
    let lesson = upload(&world, &ada, "ada 1").await;
    let retry = || world.post(&format!("/v1/lessons/{lesson}/retry")).key(&ada.0);
    assert_eq!(retry().send().await.expect(409).code(), "not_failed");
    for _ in 0..2 {
        let probe = lease(&world, 0).await;
        let crash = json!({ "code": "media_crashed", "detail": "The decoder died.", "retry": true });
        say(&world, &probe, "fail", crash).await.expect(204);
    }
    let dead = world.get(&format!("/v1/lessons/{lesson}")).at(1).send().await.expect(200).json();
    assert_eq!(dead["state"], "failed");
    assert_eq!(dead["error"], json!({ "code": "media_crashed", "detail": "The decoder died." }));
    assert_eq!(world.post("/v1/tasks/lease").json(&json!({ "wait": 0 })).send().await.status, 204, "it is dead");
    // Nobody else's to try again; its creator's once, however often the request comes.
    let other = creator(&world).await;
    world.post(&format!("/v1/lessons/{lesson}/retry")).key(&other.0).send().await.expect(404);
    let again = retry().header("idempotency-key", "k").send().await.expect(202).json();
    assert_eq!((&again["state"], &again["error"]), (&json!("queued"), &Value::Null));
    let repeated = retry().at(1).header("idempotency-key", "k").send().await.expect(202);
    assert_eq!((repeated.header("idempotency-replayed"), repeated.json()), ("true", again));
    let probe = lease(&world, 1).await;
    say(&world, &probe, "complete", json!({ "segments": [], "report": media_info(30) })).await.expect(204);
    // Planned, and given up by its first task for good: the others go with it, and come back with it.
    let waiting = async || world.post("/v1/tasks/lease").json(&json!({ "wait": 0 })).send().await;
    let first = lease(&world, 0).await;
    let beside = lease(&world, 1).await;
    let refusal = json!({ "code": "media_limit_exceeded", "detail": "Too much.", "retry": false });
    say(&world, &first, "fail", refusal).await.expect(204);
    assert_eq!(say(&world, &beside, "heartbeat", json!({})).await.expect(200).json()["cancel"], true);
    assert_eq!(waiting().await.status, 204, "the rest is cancelled");
    let told = retry().send().await.expect(202).json();
    assert_eq!((&told["state"], &told["duration"]), (&json!("transcoding"), &json!(30.0)));
    assert_eq!(say(&world, &beside, "heartbeat", json!({})).await.expect(200).json()["cancel"], false);
    let back = waiting().await.expect(200).json();
    assert_eq!(back["id"], first["id"], "where it stopped");
    let deeds = world.get("/v1/audit").send().await.expect(200).json();
    let retries = deeds["items"].as_array().unwrap().iter().filter(|deed| deed["action"] == "lesson.retry");
    assert_eq!(retries.count(), 2);
    // What is empty stays so.
    let empty = upload(&world, &ada, "").await;
    let refused = world.post(&format!("/v1/lessons/{empty}/retry")).key(&ada.0).send().await.expect(409);
    assert_eq!(refused.code(), "nothing_to_retry");
    assert_eq!(world.get(&format!("/v1/lessons/{empty}")).send().await.json()["error"]["code"], "media_empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_lesson_says_why_and_is_tried_again_over_files() {
    a_dead_lesson_says_why_and_is_tried_again(Engines::Files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_lesson_says_why_and_is_tried_again_over_servers() {
    a_dead_lesson_says_why_and_is_tried_again(Engines::Servers).await;
}

async fn a_deleted_lessons_upload_ends_with_it(engines: Engines) {
    let world = World::new(engines, 2, "uploads = { quota = \"100MiB\" }");
    let ada = creator(&world).await;
    let lessons = format!("/v1/courses/{}/lessons", ada.1);
    let lesson = world.post(&lessons).key(&ada.0).json(&json!({ "title": "L" })).send().await.expect(201).json();
    let lesson = lesson["id"].as_str().unwrap().to_owned();
    let bytes = noise(20 << 20, 41);
    let made = world.create(&lesson, bytes.len() as u64).key(&ada.0).send().await.expect(201);
    let upload = made.header("location").to_owned();
    world.patch(&upload, 0, &bytes[..17 << 20]).key(&ada.0).send().await.expect(204);
    // A client that is in the middle of it, at the other origin.
    let ghost = world.ghost(1, &upload, 17 << 20, 3 << 20, &bytes[17 << 20..18 << 20]);
    let used = async || {
        let me = world.get("/v1/me").key(&ada.0).send().await.expect(200).json();
        me["uploads"]["used"].as_u64().unwrap()
    };
    assert_eq!(used().await, 20 << 20);
    world.delete(&format!("/v1/lessons/{lesson}")).key(&ada.0).send().await.expect(204);
    assert_eq!(used().await, 0, "nothing of it is reserved any more");
    world.head(&upload).key(&ada.0).send().await.expect(410);
    world.patch(&upload, 17 << 20, &bytes[17 << 20..]).key(&ada.0).send().await.expect(410);
    let told = tokio::task::spawn_blocking(move || super::world::rest_of(ghost)).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 410"), "{told}");
    world.create(&lesson, 5).key(&ada.0).send().await.expect(404);
    if engines == Engines::Files {
        let growing = world.dir.path().join("objects/.growing/uploads");
        until_async("its bytes to go", Duration::from_secs(10), async || {
            (std::fs::read_dir(&growing).unwrap().count() == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_lessons_upload_ends_with_it_over_files() {
    a_deleted_lessons_upload_ends_with_it(Engines::Files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_lessons_upload_ends_with_it_over_servers() {
    a_deleted_lessons_upload_ends_with_it(Engines::Servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_spoken_to_under_tls_and_must_be_who_it_says() {
    let postgres = tokio::task::block_in_place(Postgres::start_under_tls);
    let database = postgres.database().replace("127.0.0.1", "localhost");
    let authority = postgres.authority().display().to_string();
    let pool = lyceum_storage::db::PoolConfig::default();
    let open = async |query: String| {
        let url: lyceum_storage::db::Url = format!("{database}?{query}").parse().unwrap();
        lyceum_storage::db::Db::open(&url, &pool).await
    };
    assert!(open("sslmode=disable".to_owned()).await.is_err(), "the server takes no other connection");
    // Another's certificate, and the right one under another name.
    let stranger = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("stranger.pem");
    std::fs::write(&other, stranger.cert.pem()).unwrap();
    assert!(open(format!("sslmode=verify-full&sslrootcert={}", other.display())).await.is_err());
    let url: lyceum_storage::db::Url =
        format!("{}?sslmode=verify-full&sslrootcert={authority}", postgres.database()).parse().unwrap();
    assert!(lyceum_storage::db::Db::open(&url, &pool).await.is_err(), "the certificate names localhost alone");
    let store = format!("{{ directory = \"{}\" }}", dir.path().join("objects").display());
    let database = format!("{database}?sslmode=verify-full&sslrootcert={authority}");
    let world = tokio::task::spawn_blocking(|| World::over(dir, database, store, 2, "")).await.unwrap();
    let (_, lesson) = world.lesson().await;
    world.post(&format!("/v1/lessons/{lesson}/media")).body("a recording").send().await.expect(202);
    assert_eq!(of(&world, &lease(&world, 1).await).await, "a recording");
}

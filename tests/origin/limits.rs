//! What may be uploaded: types, sizes and quotas, told before the first byte is sent; and what one key may hold of what all
//! share.

use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};

use super::world::{EDGE, Engines, World, rest_of};

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A creator's key of that quota, and a lesson of theirs.
async fn creator(world: &World, quota: Value) -> (String, String, String) {
    let made = world
        .post("/v1/keys")
        .json(&json!({ "role": "creator", "name": "c", "quota": quota }))
        .send()
        .await
        .expect(201)
        .json();
    let key = made["key"].as_str().unwrap().to_owned();
    let course = world.post("/v1/courses").key(&key).json(&json!({ "title": "C" })).send().await.expect(201).json();
    let lessons = format!("/v1/courses/{}/lessons", course["id"].as_str().unwrap());
    let lesson = world.post(&lessons).key(&key).json(&json!({ "title": "L" })).send().await.expect(201).json();
    (key, lesson["id"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_recording_is_refused_before_it_is_sent() {
    let world =
        World::new(Engines::Files, 1, "uploads = { size = \"2MiB\", types = [\"video/*\", \"application/mxf\"] }");
    let (_, lesson) = world.lesson().await;
    let begin = |metadata: String| {
        let ask = world.post("/v1/uploads").header("tus-resumable", "1.0.0").header("upload-length", 5);
        ask.header("upload-metadata", format!("lesson {}{metadata}", base64(&lesson)))
    };
    for (name, kind, status) in [
        ("a.mp4", "video/mp4", 201),
        ("a.mov", "", 201),
        ("a.mxf", "application/octet-stream", 201),
        ("recording", "", 201),
        ("notes.pdf", "", 415),
        ("notes.mp4", "application/pdf", 415),
        ("song.mp3", "audio/mpeg", 415),
    ] {
        let answer = begin(format!(",filename {},filetype {}", base64(name), base64(kind))).send().await;
        assert_eq!(answer.status, status, "{name} {kind}: {}", String::from_utf8_lossy(&answer.body));
        if status == 415 {
            assert_eq!(answer.code(), "upload_type_refused");
        }
    }
    // A type that a proxy or a client made up says nothing; one that is plainly another's does.
    let media = format!("/v1/lessons/{lesson}/media");
    world.post(&media).header("content-type", "application/pdf").body("x").send().await.expect(415);
    world.post(&media).header("content-type", "application/x-www-form-urlencoded").body("x").send().await.expect(202);
    let large = world.create(&lesson, 3 << 20).send().await.expect(413);
    assert_eq!(large.code(), "upload_too_large");
    let me = world.get("/v1/me").send().await.expect(200).json();
    assert_eq!(
        (&me["uploads"]["size"], &me["uploads"]["types"]),
        (&json!(2 << 20), &json!(["video/*", "application/mxf"]))
    );
}

async fn a_quota_is_held(engines: Engines) {
    let world = World::new(engines, 2, "");
    let (key, lesson, id) = creator(&world, json!(10_000)).await;
    let used = async || {
        let me = world.get("/v1/me").key(&key).at(1).send().await.expect(200).json();
        (me["uploads"]["quota"].as_u64().unwrap(), me["uploads"]["used"].as_u64().unwrap())
    };
    assert_eq!(used().await, (10_000, 0));
    let upload = world.create(&lesson, 8_000).key(&key).send().await.expect(201).header("location").to_owned();
    assert_eq!(used().await, (10_000, 8_000), "what is announced counts");
    let refused = world.create(&lesson, 2_001).key(&key).at(1).send().await.expect(403);
    assert_eq!(refused.code(), "quota_exceeded");
    world.delete(&upload).key(&key).header("tus-resumable", "1.0.0").send().await.expect(204);
    assert_eq!(used().await, (10_000, 0));
    // Two at the same moment, at two origins: one of them finds no room.
    let (one, two) = tokio::join!(
        world.create(&lesson, 6_000).key(&key).send(),
        world.create(&lesson, 6_000).key(&key).at(1).send()
    );
    let mut both = [one.status, two.status];
    both.sort_unstable();
    assert_eq!(both, [201, 403]);
    let won = if one.status == 201 { one } else { two };
    world.patch(won.header("location"), 0, &[7; 6_000]).key(&key).send().await.expect(204);
    assert_eq!(used().await, (10_000, 6_000), "what is kept counts");
    // Of unknown length: as far as the room goes.
    let later = world.post("/v1/uploads").key(&key).header("tus-resumable", "1.0.0").header("upload-defer-length", 1);
    let later = later
        .header("upload-metadata", super::world::metadata(&lesson))
        .send()
        .await
        .expect(201)
        .header("location")
        .to_owned();
    world.patch(&later, 0, &[1; 3_000]).key(&key).send().await.expect(204);
    assert_eq!(world.patch(&later, 3_000, &[1; 1_001]).key(&key).send().await.expect(403).code(), "quota_exceeded");
    assert_eq!(
        world.patch(&later, 3_000, b"").header("upload-length", 4_001).key(&key).send().await.expect(403).code(),
        "quota_exceeded"
    );
    world.patch(&later, 3_000, &[1; 1_000]).header("upload-length", 4_000).key(&key).send().await.expect(204);
    let media = || world.post(&format!("/v1/lessons/{lesson}/media")).key(&key).body(vec![1; 100]);
    assert_eq!(media().send().await.expect(403).code(), "quota_exceeded");
    // An admin gives more; a deleted lesson gives its bytes back.
    let more = world
        .other("PATCH", &format!("/v1/keys/{id}"))
        .json(&json!({ "quota": 10_100 }))
        .send()
        .await
        .expect(200)
        .json();
    assert_eq!(more["quota"], 10_100);
    media().send().await.expect(202);
    world.delete(&format!("/v1/lessons/{lesson}")).key(&key).send().await.expect(204);
    assert_eq!(used().await, (10_100, 0));
    world.other("PATCH", &format!("/v1/keys/{id}")).json(&json!({ "quota": null })).send().await.expect(200);
    assert_eq!(world.get("/v1/me").key(&key).send().await.json()["uploads"]["quota"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_held_over_files() {
    a_quota_is_held(Engines::Files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_held_over_servers() {
    a_quota_is_held(Engines::Servers).await;
}

/// Sends the head of a request, and these bytes of its body.
fn begin(world: &World, head: &str, key: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.url(0).trim_start_matches("http://")).unwrap();
    write!(stream, "{head} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n{body}").unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn event_streams_of_one_key_keep_nobody_else_waiting() {
    let world = World::new(Engines::Files, 1, "api = { waiting = 3, waiting_per_key = 2 }");
    let (ada, lesson, _) = creator(&world, Value::Null).await;
    let (bob, other, _) = creator(&world, Value::Null).await;
    let follow = |key: &str, lesson: &str| {
        let stream = begin(&world, &format!("GET /v1/lessons/{lesson}/events"), key, "\r\n");
        let open = stream.try_clone().unwrap();
        (rest_of(stream).lines().next().unwrap_or_default().to_owned(), open)
    };
    let first: Vec<_> = (0..2).map(|_| follow(&ada, &lesson)).collect();
    assert!(first.iter().all(|(status, _)| status.contains(" 200 ")), "{first:?}");
    let refused = world.get(&format!("/v1/lessons/{lesson}/events")).key(&ada).send().await.expect(429);
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("too_many_waiting", "1"));
    let (status, _open) = follow(&bob, &other);
    assert!(status.contains(" 200 "), "another key has its share: {status}");
    let eve = world.key("creator").await;
    assert_eq!(world.get(&format!("/v1/lessons/{lesson}/events")).key(&eve).send().await.expect(503).code(), "busy");
    // Edges and workers have shares of their own.
    world.get("/v1/revocations?after=0").key(EDGE).send().await.expect(200);
    let worker = world.key("worker").await;
    world.post("/v1/tasks/lease").key(&worker).json(&json!({ "wait": 0 })).send().await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_ends_with_its_connection() {
    let world = World::new(Engines::Files, 1, "limits = { body_throughput = \"1KiB\", throughput_time = \"1s\" }");
    let login = "Content-Type: application/json\r\nContent-Length: 200000\r\n\r\n{";
    let slow: Vec<_> = (0..5).map(|_| begin(&world, "POST /v1/login", "x", login)).collect();
    for stream in slow {
        let answer = rest_of(stream);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    // A recording that stands still is kept as far as it came.
    let (_, lesson) = world.lesson().await;
    let upload = world.create(&lesson, 9).send().await.expect(201).header("location").to_owned();
    let answer = rest_of(world.ghost(0, &upload, 0, 9, b"01234"));
    assert!(answer.contains("body_incomplete") || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(world.head(&upload).send().await.expect(200).header("upload-offset"), "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_uploads_are_listed_and_ended_by_their_owner() {
    let world = World::new(Engines::Files, 1, "uploads = { open_per_key = 3 }");
    let (key, lesson, id) = creator(&world, Value::Null).await;
    let part = || {
        let ask = world.post("/v1/uploads").key(&key).header("tus-resumable", "1.0.0");
        ask.header("upload-concat", "partial").header("upload-length", 10)
    };
    for _ in 0..2 {
        part().send().await.expect(201);
    }
    let whole = world.create(&lesson, 9).key(&key).send().await.expect(201).header("location").to_owned();
    world.patch(&whole, 0, b"1234").key(&key).send().await.expect(204);
    let full = part().send().await.expect(429);
    assert_eq!(full.code(), "too_many_uploads");
    assert!(full.json()["detail"].as_str().unwrap().contains("GET /v1/uploads"), "it says what to do");
    let first = world.get("/v1/uploads?limit=2").key(&key).send().await.expect(200).json();
    let next = first["next"].as_str().expect("a second page");
    let second = world.get(&format!("/v1/uploads?after={next}")).key(&key).send().await.expect(200).json();
    assert_eq!((&first["items"][0]["kind"], &first["items"][1]["kind"]), (&json!("partial"), &json!("partial")));
    let shown = &second["items"][0];
    assert_eq!((&shown["lesson"], &shown["owner"]), (&json!(lesson), &json!(id)));
    assert_eq!((&shown["received"], &shown["length"], &shown["writing"]), (&json!(4), &json!(9), &json!(false)));
    assert_eq!((second["items"].as_array().unwrap().len(), &second["next"]), (1, &Value::Null));
    let (other, _, _) = creator(&world, Value::Null).await;
    assert_eq!(world.get("/v1/uploads").key(&other).send().await.expect(200).json()["items"], json!([]));
    assert_eq!(world.get("/v1/uploads").send().await.expect(200).json()["items"].as_array().unwrap().len(), 3);
    let one = format!("/v1/uploads/{}", first["items"][0]["id"].as_str().unwrap());
    world.delete(&one).key(&key).header("tus-resumable", "1.0.0").send().await.expect(204);
    part().send().await.expect(201);
}

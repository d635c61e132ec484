//! Keys are identities with secrets: secrets are replaced and removed, courses given on, and someone can always get in.

use std::time::Duration;

use serde_json::{Value, json};

use super::access::{claims_of, ready};
use super::world::{ADMIN, EDGE, Engines, World};
use crate::support::until_async;

/// A key of that role: its path and its secret.
async fn make(world: &World, role: &str) -> (String, String) {
    let made = world.post("/v1/keys").json(&json!({ "role": role, "name": role })).send().await.expect(201).json();
    (format!("/v1/keys/{}", made["id"].as_str().unwrap()), made["key"].as_str().unwrap().to_owned())
}

async fn rotate(world: &World, key: &str, body: Value) -> String {
    let made = world.post(&format!("{key}/rotate")).json(&body).send().await.expect(201).json();
    made["key"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_secret_is_replaced_and_its_creator_keeps_the_courses() {
    for engines in [Engines::Files, Engines::Servers] {
        let world = World::new(engines, 2, "[api]\nsecrets = 3");
        let (key, leaked) = make(&world, "creator").await;
        let made = world.post("/v1/courses").key(&leaked).json(&json!({ "title": "Mine" })).send().await.expect(201);
        let course = format!("/v1/courses/{}", made.json()["id"].as_str().unwrap());
        let own = world.url(0);
        let login = world.post("/v1/login").key("").header("origin", &own).json(&json!({ "key": leaked }));
        let login = login.send().await.expect(200).header("set-cookie").split(';').next().unwrap().to_owned();
        let by_login = || world.get(&course).key("").header("cookie", &login);
        by_login().send().await.expect(200);
        let second = rotate(&world, &key, json!({})).await;
        world.get(&course).key(&leaked).at(1).send().await.expect(401);
        by_login().at(1).send().await.expect(401);
        world.get(&course).key(&second).at(1).send().await.expect(200);
        // With an overlap, both are good until it is over.
        let third = rotate(&world, &key, json!({ "overlap": "6s" })).await;
        world.get(&course).key(&second).send().await.expect(200);
        world.get(&course).key(&third).send().await.expect(200);
        let listed = world.get(&format!("{key}/secrets")).send().await.expect(200).json();
        let ends: Vec<bool> =
            listed["items"].as_array().unwrap().iter().map(|secret| secret["expires_at"].is_string()).collect();
        assert_eq!(ends, [true, false]);
        assert!(!listed.to_string().contains("lyk_"), "a secret is shown once");
        until_async("the end of the overlap", Duration::from_secs(30), async || {
            (world.get(&course).key(&second).send().await.status == 401).then_some(())
        })
        .await;
        world.get(&course).key(&third).send().await.expect(200);
        world.post(&format!("{key}/rotate")).json(&json!({ "overlap": "91d" })).send().await.expect(400);
        // One more beside it, which ends by itself or is removed.
        let add = |body: Value| world.post(&format!("{key}/secrets")).header("idempotency-key", "one").json(&body);
        let fourth = add(json!({ "expires": "9999-01-01T00:00:00Z" })).send().await.expect(201).json();
        let again = add(json!({ "expires": "9999-01-01T00:00:00Z" })).send().await.expect(201).json();
        assert_eq!((&again["id"], &again["key"]), (&fourth["id"], &Value::Null), "once, and shown once");
        let bare = |body: Value| world.post(&format!("{key}/secrets")).json(&body);
        assert_eq!(bare(json!({ "expires": 1 })).send().await.expect(400).code(), "invalid_request");
        bare(json!({})).send().await.expect(201);
        assert_eq!(bare(json!({})).send().await.expect(409).code(), "too_many_secrets");
        let text = fourth["key"].as_str().unwrap();
        world.get(&course).key(text).send().await.expect(200);
        let fourth = format!("{key}/secrets/{}", fourth["id"].as_str().unwrap());
        world.delete(&fourth).key(&third).send().await.expect(403);
        world.delete(&fourth).send().await.expect(204);
        world.delete(&fourth).send().await.expect(404);
        world.get(&course).key(text).send().await.expect(401);
        world.get(&course).key(&third).send().await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_admin_stays_and_a_leaked_one_does_not_come_back() {
    for engines in [Engines::Files, Engines::Servers] {
        let mut world = World::new(engines, 2, "");
        let admin = "/v1/keys/admin";
        let secrets = world.get(&format!("{admin}/secrets")).send().await.expect(200).json();
        let only = format!("{admin}/secrets/{}", secrets["items"][0]["id"].as_str().unwrap());
        for last in [admin, &only] {
            assert_eq!(world.delete(last).send().await.expect(409).code(), "last_admin");
        }
        // One that ends is no way in for good.
        let soon = json!({ "expires": "9999-01-01T00:00:00Z" });
        world.post(&format!("{admin}/secrets")).json(&soon).send().await.expect(201);
        assert_eq!(world.delete(&only).send().await.expect(409).code(), "last_admin");
        // Two that remove each other at the same moment: one of them stays.
        let ((one, a), (two, b)) = (make(&world, "admin").await, make(&world, "admin").await);
        world.delete(admin).key(&a).send().await.expect(204);
        world.get("/v1/keys").send().await.expect(401);
        let (first, second) = tokio::join!(world.delete(&two).key(&a).send(), world.delete(&one).key(&b).at(1).send());
        let mut statuses = [first.status, second.status];
        statuses.sort_unstable();
        assert_eq!(statuses[0], 204, "{statuses:?}");
        assert!([401, 409].contains(&statuses[1]), "{statuses:?}");
        let left = if first.status == 204 { &a } else { &b };
        world.get("/v1/keys").key(left).send().await.expect(200);
        // The configuration still has the key that was removed: it is not let in again.
        world.kill(0);
        world.start(0);
        world.get("/v1/keys").key(ADMIN).send().await.expect(401);
        world.get("/v1/keys").key(left).send().await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_course_goes_to_another_creator_with_all_that_is_under_way() {
    for engines in [Engines::Files, Engines::Servers] {
        let world = World::one(engines);
        let ((ada_key, ada), (bob_key, bob)) = (make(&world, "creator").await, make(&world, "creator").await);
        let made = world.post("/v1/courses").key(&ada).json(&json!({ "title": "C" })).send().await.expect(201).json();
        let course = format!("/v1/courses/{}", made["id"].as_str().unwrap());
        assert_eq!(made["owner"], ada_key.strip_prefix("/v1/keys/").unwrap());
        let lessons = format!("{course}/lessons");
        let lesson = world.post(&lessons).key(&ada).json(&json!({ "title": "L" })).send().await.expect(201).json();
        let lesson = lesson["id"].as_str().unwrap();
        ready(&world, lesson);
        let play = |key: &str| world.post("/v1/playback").key(key).json(&json!({ "lesson": lesson }));
        let playback = play(&ada).send().await.expect(201).json();
        assert_eq!(claims_of(playback["token"].as_str().unwrap())["jti"], playback["session"]);
        let upload = world.create(lesson, 6).key(&ada).send().await.expect(201).header("location").to_owned();
        world.patch(&upload, 0, b"abc").key(&ada).send().await.expect(204);
        let give = |to: &str| {
            let to = to.strip_prefix("/v1/keys/").unwrap();
            world.other("PATCH", &course).json(&json!({ "owner": to }))
        };
        give(&bob_key).key(&ada).send().await.expect(403);
        let (shop_key, _) = make(&world, "shop").await;
        for wrong in [&shop_key, "/v1/keys/nobody", "/v1/keys/?"] {
            assert_eq!(give(wrong).send().await.expect(400).code(), "invalid_request", "{wrong}");
        }
        // Also when its creator's key is gone.
        world.delete(&ada_key).send().await.expect(204);
        let feed = world.get("/v1/revocations?after=0").key(EDGE).send().await.expect(200).json();
        assert_eq!(feed["events"][0]["session"], playback["session"], "what the key played ends with it");
        let given = give(&bob_key).send().await.expect(200).json();
        assert_eq!(given["owner"], bob_key.strip_prefix("/v1/keys/").unwrap());
        for path in [&course, &format!("/v1/lessons/{lesson}")] {
            world.get(path).key(&bob).send().await.expect(200);
        }
        assert_eq!(world.get("/v1/courses").key(&bob).send().await.json()["items"][0]["id"], made["id"]);
        play(&bob).send().await.expect(201);
        world.patch(&upload, 3, b"def").key(&bob).send().await.expect(204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gave_a_course_away_reaches_nothing_of_it() {
    let world = World::one(Engines::Files);
    let ((_, ada), (bob_key, bob)) = (make(&world, "creator").await, make(&world, "creator").await);
    let made = world.post("/v1/courses").key(&ada).json(&json!({ "title": "C" })).send().await.expect(201).json();
    let course = format!("/v1/courses/{}", made["id"].as_str().unwrap());
    let lesson = world.post(&format!("{course}/lessons")).key(&ada).json(&json!({ "title": "L" }));
    let lesson = lesson.send().await.expect(201).json()["id"].as_str().unwrap().to_owned();
    ready(&world, &lesson);
    let play = world.post("/v1/playback").key(&ada).json(&json!({ "lesson": lesson }));
    let session = play.send().await.expect(201).json()["session"].clone();
    let upload = world.create(&lesson, 6).key(&ada).send().await.expect(201).header("location").to_owned();
    let path = format!("/v1/lessons/{lesson}/events");
    let mut events = Box::pin(world.get(&path).key(&ada).send());
    let early = tokio::time::timeout(Duration::from_millis(200), &mut events).await;
    assert!(early.is_err(), "the stream ends while the lesson is hers: {early:?}");
    let to = json!({ "owner": bob_key.strip_prefix("/v1/keys/").unwrap() });
    world.other("PATCH", &course).json(&to).send().await.expect(200);
    tokio::time::timeout(Duration::from_secs(10), events).await.expect("the stream ends").expect(200);
    let feed = world.get("/v1/revocations?after=0").key(EDGE).send().await.expect(200).json();
    assert_eq!(feed["events"][0]["session"], session);
    world.get(&course).key(&ada).send().await.expect(404);
    world.patch(&upload, 0, b"abcdef").key(&ada).send().await.expect(404);
    world.patch(&upload, 0, b"abcdef").key(&bob).send().await.expect(204);
}

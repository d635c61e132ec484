//! What was bought for a time ends with it, and what is handed out lives no longer than the right to it.

use std::time::Duration;

use lyceum_core::time::Clock;
use serde_json::{Value, json};

use super::access::{claims_of, ready};
use super::world::{EDGE, Engines, World};
use crate::support::until_async;

fn seconds() -> i64 {
    Clock::system().unix_millis().div_euclid(1000)
}

/// The sessions that the feed has revoked so far.
async fn revoked(world: &World) -> Vec<Value> {
    let feed = world.get("/v1/revocations?after=0").key(EDGE).send().await.expect(200).json();
    feed["events"].as_array().unwrap().iter().map(|event| event["session"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_with_what_was_bought() {
    for engines in [Engines::Files, Engines::Servers] {
        let world = World::new(engines, 2, "");
        let (course, lesson) = world.lesson().await;
        ready(&world, &lesson);
        let grant = async |user: &str, expires: Value| {
            let body = json!({ "user": user, "course": course, "expires": expires });
            world.put("/v1/entitlements").json(&body).send().await.expect(204);
        };
        let play = |user: &str| world.post("/v1/playback").json(&json!({ "user": user, "lesson": lesson }));
        let begin = async |user: &str| {
            let playback = play(user).send().await.expect(201).json();
            (claims_of(playback["token"].as_str().unwrap())["exp"].as_i64().unwrap(), playback["session"].clone())
        };
        let end = seconds() + 3600;
        grant("eve", json!(end)).await;
        let (exp, eves) = begin("eve").await;
        assert_eq!(exp, end, "the token ends when the entitlement does");
        // Without an end, then shortened to an hour: the token that outlives it is revoked, a new one does not.
        grant("bob", Value::Null).await;
        let (_, bobs) = begin("bob").await;
        let end = seconds() + 3600;
        grant("bob", json!(end)).await;
        assert!(revoked(&world).await.contains(&bobs), "shortened: at once");
        let (exp, bobs) = begin("bob").await;
        assert_eq!(exp, end);
        grant("bob", json!(end + 3600)).await;
        grant("bob", json!(end)).await;
        assert!(!revoked(&world).await.contains(&bobs), "it ends in time anyway");
        grant("bob", json!(seconds() - 60)).await;
        assert!(revoked(&world).await.contains(&bobs), "over: at once");
        assert_eq!(play("bob").send().await.expect(403).code(), "not_entitled");
        // Edges take a token for half a minute after its end, for clocks that differ: the feed ends it before.
        world.sql("update sessions set entitled_until = 1 where viewer = 'eve'");
        until_async("the end of what Eve bought", Duration::from_secs(30), async || {
            revoked(&world).await.contains(&eves).then_some(())
        })
        .await;
        let lease = world.post(&format!("/v1/sessions/{}/lease", eves.as_str().unwrap())).key(EDGE);
        assert_eq!(lease.at(1).send().await.expect(409).code(), "session_revoked");
        assert_eq!(revoked(&world).await.len(), 3, "each once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_playback_hands_out_no_dead_token() {
    for engines in [Engines::Files, Engines::Servers] {
        let world = World::one(engines);
        let (course, lesson) = world.lesson().await;
        ready(&world, &lesson);
        let body = json!({ "user": "eve", "course": course });
        world.put("/v1/entitlements").json(&body).send().await.expect(204);
        let play = || {
            let body = json!({ "user": "eve", "lesson": lesson });
            world.post("/v1/playback").header("idempotency-key", "click-1").json(&body)
        };
        let first = play().send().await.expect(201);
        let again = play().send().await.expect(201);
        assert_eq!((again.json(), again.header("idempotency-replayed")), (first.json(), "true"));
        world.delete(&format!("/v1/entitlements/eve/{course}")).send().await.expect(204);
        assert_eq!(play().send().await.expect(403).code(), "not_entitled");
        world.put("/v1/entitlements").json(&body).send().await.expect(204);
        let anew = play().send().await.expect(201);
        assert_ne!(anew.json()["session"], first.json()["session"], "the first one was revoked");
        assert_eq!(play().send().await.expect(201).json(), anew.json());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_ends_with_the_key_that_it_was_asked_with() {
    let world = World::new(Engines::Files, 2, "");
    let key = async |role: &str| {
        let made = world.post("/v1/keys").json(&json!({ "role": role, "name": role })).send().await.expect(201).json();
        (format!("/v1/keys/{}", made["id"].as_str().unwrap()), made["key"].as_str().unwrap().to_owned())
    };
    let ((shop_id, shop), (worker_id, worker)) = (key("shop").await, key("worker").await);
    let (_, lesson) = world.lesson().await;
    let path = format!("/v1/lessons/{lesson}/events");
    let mut events = Box::pin(world.get(&path).key(&shop).at(1).send());
    let mut lease = Box::pin(world.post("/v1/tasks/lease").key(&worker).at(1).json(&json!({ "wait": 20 })).send());
    for (early, what) in [
        (tokio::time::timeout(Duration::from_millis(200), &mut events).await, "the stream"),
        (tokio::time::timeout(Duration::from_millis(200), &mut lease).await, "the lease"),
    ] {
        assert!(early.is_err(), "{what} ends while its key is good: {early:?}");
    }
    world.delete(&shop_id).send().await.expect(204);
    world.delete(&worker_id).send().await.expect(204);
    let ended = tokio::time::timeout(Duration::from_secs(10), events).await.expect("the stream ends").expect(200);
    let told = String::from_utf8(ended.body).unwrap();
    assert_eq!(told.matches("event: lesson").count(), 1, "nothing after the key was gone: {told}");
    world.post(&format!("/v1/lessons/{lesson}/media")).body("x").send().await.expect(202);
    let lease = tokio::time::timeout(Duration::from_secs(10), lease).await.expect("the lease is answered");
    assert_eq!(lease.expect(401).code(), "unauthenticated", "no task for a key that is gone");
}

//! Requests that no client should send, answered by both engines alike and in words of the origin's own; and what other
//! users of the machine, or of the network, may try.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::world::{ADMIN, Engines, World};

#[tokio::test(flavor = "multi_thread")]
async fn what_one_engine_cannot_store_is_refused_on_both() {
    for engines in [Engines::Files, Engines::Servers] {
        let world = World::one(engines);
        let (course, _) = world.lesson().await;
        let worker = world.key("worker").await;
        let none = Value::Null;
        let lease = json!({ "lease": "a\0b", "code": "x" });
        let short = json!({ "lease": "a\0b" });
        let title = json!({ "title": "x" });
        for (method, path, body, key) in [
            ("GET", "/v1/entitlements/a%00b".to_owned(), &none, ADMIN),
            ("DELETE", format!("/v1/entitlements/a%00b/{course}"), &none, ADMIN),
            ("GET", "/v1/courses?after=1.%00".to_owned(), &none, ADMIN),
            ("GET", "/v1/keys?after=1.%00".to_owned(), &none, ADMIN),
            ("GET", format!("/v1/courses/{course}/lessons?after=1.%00"), &none, ADMIN),
            ("GET", "/v1/entitlements/u?after=1.%00".to_owned(), &none, ADMIN),
            ("GET", "/v1/audit?after=1.%00".to_owned(), &none, ADMIN),
            ("GET", "/v1/keys/admin/secrets?after=1.%00".to_owned(), &none, ADMIN),
            ("PATCH", "/v1/courses/%00".to_owned(), &title, ADMIN),
            ("DELETE", "/v1/courses/%00".to_owned(), &none, ADMIN),
            ("POST", "/v1/courses/%00/lessons".to_owned(), &title, ADMIN),
            ("PATCH", "/v1/keys/%00".to_owned(), &json!({ "name": "x" }), ADMIN),
            ("DELETE", "/v1/keys/%00".to_owned(), &none, ADMIN),
            ("POST", "/v1/keys/%00/rotate".to_owned(), &json!({}), ADMIN),
            ("DELETE", "/v1/keys/admin/secrets/%00".to_owned(), &none, ADMIN),
            ("PATCH", "/v1/lessons/%00".to_owned(), &title, ADMIN),
            ("DELETE", "/v1/lessons/%00".to_owned(), &none, ADMIN),
            ("POST", "/v1/lessons/%00/retry".to_owned(), &none, ADMIN),
            ("DELETE", "/v1/sessions/%00".to_owned(), &none, ADMIN),
            ("POST", "/v1/tasks/abc/heartbeat".to_owned(), &short, &worker),
            ("POST", "/v1/tasks/abc/complete".to_owned(), &short, &worker),
            ("POST", "/v1/tasks/abc/fail".to_owned(), &lease, &worker),
            ("PUT", "/v1/entitlements".to_owned(), &json!({ "user": "a\0", "course": course }), ADMIN),
            ("POST", "/v1/courses".to_owned(), &json!({ "title": "a\0" }), ADMIN),
            ("PATCH", format!("/v1/courses/{course}"), &json!({ "owner": "a\0" }), ADMIN),
            ("GET", "/v1/courses?after=99999999999999999999.x".to_owned(), &none, ADMIN),
        ] {
            let ask = world.other(method, &path).key(key);
            let answer = if body.is_null() { ask.send().await } else { ask.json(body).send().await };
            assert!((400..500).contains(&answer.status), "{engines:?} {method} {path}: {answer:?}");
            assert!(!answer.code().is_empty(), "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_value_is_refused_and_named() {
    let world = World::one(Engines::Files);
    let (course, lesson) = world.lesson().await;
    let until = |expires: Value| json!({ "user": "eve", "course": course, "expires": expires });
    for (method, path, body, says) in [
        ("PUT", "/v1/entitlements", until(json!(1_900_000_000_000_i64)), "`expires`"),
        ("PUT", "/v1/entitlements", until(json!(1_900_000_000.5)), "whole seconds"),
        ("PUT", "/v1/entitlements", until(json!("soon")), "RFC 3339"),
        ("POST", "/v1/courses", json!(["A title"]), "a JSON object"),
        ("POST", "/v1/login", json!([ADMIN]), "a JSON object"),
        ("POST", "/v1/playback", json!({ "lesson": lesson, "client": ["203.0.113.7"] }), "`client`"),
        ("POST", "/v1/playback", json!({ "lesson": lesson, "max_height": 1.5 }), "`max_height`"),
    ] {
        let answer = world.other(method, path).json(&body).send().await.expect(400);
        assert_eq!(answer.code(), "invalid_request");
        assert!(answer.json()["detail"].as_str().unwrap().contains(says), "{path} {body}: {}", answer.json());
    }
    world.put("/v1/entitlements").json(&until(json!(1.9e9))).send().await.expect(204);
    for (limit, status) in [("0", 400), ("-1", 400), ("1", 200), ("18446744073709551615", 200)] {
        let answer = world.get(&format!("/v1/courses?limit={limit}")).send().await.expect(status);
        assert!(status == 200 || answer.json()["detail"].as_str().unwrap().contains("`limit`"), "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_of_a_key_are_slowed_and_keys_that_nobody_guesses_are_not() {
    let world = World::new(Engines::Files, 1, "[api]\nattempts = 3");
    let made = world.key("admin").await;
    let login = |key: &str| world.post("/v1/login").key("").json(&json!({ "key": key }));
    for guess in ["a-first-guess", "a-second-guess", "a-third-guess"] {
        login(guess).send().await.expect(401);
    }
    let refused = login(ADMIN).send().await.expect(429);
    assert_eq!(refused.code(), "too_many_attempts", "also with the right one: a guess tells nothing");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=21).contains(&wait), "{wait}");
    // A request is as good for guessing as a login.
    world.get("/v1/keys").send().await.expect(200);
    let mut guesses = 0;
    while world.get("/v1/keys").key("a-guess").send().await.status == 401 {
        guesses += 1;
        assert!(guesses < 1000, "guessed on and on");
    }
    assert!(guesses >= 60, "{guesses}");
    // Whoever comes from the same address with a key of 256 random bits is not held up.
    world.get("/v1/keys").key(&made).send().await.expect(200);
    login(&made).send().await.expect(200);
    login(&format!("lyk_{}", "A".repeat(43))).send().await.expect(401);
    world.get("/v1/keys").key(&made).send().await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_and_recordings_are_closed_to_other_users_of_the_machine() {
    let mut world = World::one(Engines::Files);
    world.lesson().await;
    let mode = |name: &str| {
        let meta = std::fs::metadata(world.dir.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        meta.permissions().mode() & 0o777
    };
    for (name, expected) in [("db/lyceum.db", 0o600), ("db/lyceum.db-wal", 0o600), ("objects", 0o700)] {
        assert_eq!(mode(name), expected, "{name}");
    }
    // Of a version before: closed with the next start.
    for (name, open) in [("db/lyceum.db", 0o644), ("objects", 0o755)] {
        std::fs::set_permissions(world.dir.path().join(name), std::fs::Permissions::from_mode(open)).unwrap();
    }
    world.kill(0);
    world.start(0);
    let mode = |name: &str| std::fs::metadata(world.dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("db/lyceum.db"), mode("objects")), (0o640, 0o750));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_found_where_the_origin_is_mounted() {
    let mut world = World::one(Engines::Files);
    let (_, lesson) = world.lesson().await;
    let location = world.create(&lesson, 5).send().await.expect(201).header("location").to_owned();
    assert!(location.starts_with("/v1/uploads/"), "by the scheme and host that the client came by: {location}");
    world.kill(0);
    world.mount("/courses");
    world.start(0);
    // A proxy takes the path off, so the origin never sees it.
    let location = world.create(&lesson, 5).send().await.expect(201).header("location").to_owned();
    assert!(location.starts_with(&format!("{}/courses/v1/uploads/", world.url(0))), "{location}");
}

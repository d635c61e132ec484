//! Who may do what: roles, entitlements, playback, revocations on every origin, limits of streams, logins.

use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};

use super::world::{ADMIN, EDGE, Engines, World};
use crate::support::lessons::curl;
use crate::support::{free_port, until, until_async};

#[tokio::test(flavor = "multi_thread")]
async fn each_role_does_its_own_and_no_more() {
    let world = World::one(Engines::Files);
    let (course, lesson) = world.lesson().await;
    let (creator, other, shop, worker) =
        (world.key("creator").await, world.key("creator").await, world.key("shop").await, world.key("worker").await);
    let mine =
        world.post("/v1/courses").key(&creator).json(&json!({ "title": "Mine" })).send().await.expect(201).json();
    let mine = format!("/v1/courses/{}", mine["id"].as_str().unwrap());
    let listed = world.get("/v1/courses").key(&creator).send().await.expect(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "a creator sees only their own");
    let table: Vec<(&str, &'static str, String, Option<Value>, u16)> = vec![
        ("", "GET", "/v1/courses".into(), None, 401),
        ("lyk_nonsense", "GET", "/v1/courses".into(), None, 401),
        (&other, "GET", mine.clone(), None, 404),
        (&other, "DELETE", mine.clone(), None, 404),
        (&other, "PATCH", format!("/v1/lessons/{lesson}"), Some(json!({ "title": "x" })), 404),
        (&creator, "GET", mine.clone(), None, 200),
        (&shop, "GET", format!("/v1/lessons/{lesson}"), None, 200),
        (&shop, "DELETE", format!("/v1/lessons/{lesson}"), None, 403),
        (&shop, "POST", "/v1/courses".into(), Some(json!({ "title": "x" })), 403),
        (&shop, "POST", "/v1/keys".into(), Some(json!({ "role": "admin", "name": "x" })), 403),
        (&worker, "GET", "/v1/courses".into(), None, 403),
        (&worker, "POST", "/v1/playback".into(), Some(json!({ "user": "eve", "lesson": lesson })), 403),
        (&creator, "POST", "/v1/tasks/lease".into(), Some(json!({ "wait": 0 })), 403),
        (ADMIN, "POST", "/v1/courses".into(), Some(json!({ "title": "" })), 400),
        (ADMIN, "POST", "/v1/courses".into(), Some(json!({ "titel": "x" })), 400),
        (ADMIN, "POST", "/v1/keys".into(), Some(json!({ "role": "king", "name": "x" })), 400),
        (ADMIN, "GET", "/v1/courses?after=nonsense".into(), None, 400),
        (ADMIN, "GET", "/v1/nothing".into(), None, 404),
        (ADMIN, "PUT", "/v1/courses".into(), None, 405),
    ];
    for (key, method, path, body, status) in table {
        let ask = world.other(method, &path).key(key);
        let answer = match &body {
            Some(body) => ask.json(body),
            None => ask,
        };
        let answer = answer.send().await;
        assert_eq!(answer.status, status, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
        if status >= 400 {
            assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
            assert!(!answer.code().is_empty());
        }
    }
    let huge = json!({ "title": "x".repeat(1 << 20) });
    world.post("/v1/courses").json(&huge).send().await.expect(413);
    world.post("/v1/courses").body("{}").send().await.expect(415);
    for title in ["One", "Two", "Three"] {
        world.post(&format!("/v1/courses/{course}/lessons")).json(&json!({ "title": title })).send().await.expect(201);
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = world.get(&format!("/v1/courses/{course}/lessons?limit=2{after}")).send().await.expect(200).json();
        seen.extend(
            page["items"].as_array().unwrap().iter().map(|lesson| lesson["title"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen, ["A lesson", "One", "Two", "Three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn playback_needs_an_entitlement_and_something_to_play() {
    let world = World::one(Engines::Files);
    let (course, lesson) = world.lesson().await;
    let shop = world.key("shop").await;
    let ask = || world.post("/v1/playback").key(&shop).json(&json!({ "user": "eve", "lesson": lesson }));
    assert_eq!(ask().send().await.expect(403).code(), "not_entitled");
    let grant = |expires: Value| {
        world.put("/v1/entitlements").key(&shop).json(&json!({ "user": "eve", "course": course, "expires": expires }))
    };
    grant(json!("2001-01-01T00:00:00Z")).send().await.expect(204);
    assert_eq!(ask().send().await.expect(403).code(), "not_entitled", "it is over");
    grant(json!("yesterday")).send().await.expect(400);
    grant(Value::Null).send().await.expect(204);
    assert_eq!(ask().send().await.expect(409).code(), "not_playable");
    ready(&world, &lesson);
    let playback = ask().send().await.expect(201).json();
    let token = playback["token"].as_str().unwrap();
    let urls: Vec<_> = playback["urls"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
    assert_eq!(urls.len(), 2);
    assert_eq!(urls[0], playback["url"].as_str().unwrap());
    assert!(urls.iter().all(|url| url.ends_with(&format!("/t/{token}/v/{lesson}/master.m3u8"))), "{urls:?}");
    let payload = token.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(
        (&claims["sub"], &claims["iss"], &claims["aud"]),
        (&json!("eve"), &json!("lyceum"), &json!("lyceum-edge"))
    );
    assert_eq!((&claims["jti"], &claims["paths"]), (&playback["session"], &json!([format!("/v/{lesson}/")])));
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(life, 4 * 36_000, "four times a lesson of ten hours is longer than twelve hours");
    let jwks = world.get("/.well-known/jwks.json").key("").send().await.expect(200).json();
    let head = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let head: Value = serde_json::from_slice(&head).unwrap();
    assert_eq!(head["kid"], jwks["keys"][0]["kid"]);
}

/// Makes a lesson playable in the catalogue: ten hours that were transcoded elsewhere.
pub fn ready(world: &World, lesson: &str) {
    world.sql(&format!(
        "insert into versions (id, lesson, state, source, source_bytes, filename, created, revision, playable, progress,
         duration, renditions) values ('v1', '{lesson}', 'ready', 'uploads/x', 1, '', 1, 1, 1, 1.0, 36000000, '[]');
         update lessons set newest='v1', serving='v1' where id='{lesson}';"
    ));
}

/// A session of a user who has bought the course.
pub async fn session(world: &World, user: &str, course: &str, lesson: &str) -> String {
    world.put("/v1/entitlements").json(&json!({ "user": user, "course": course })).send().await.expect(204);
    let playback = world.post("/v1/playback").json(&json!({ "user": user, "lesson": lesson })).send().await.expect(201);
    playback.json()["session"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_reaches_whoever_waits_at_another_origin() {
    let world = World::new(Engines::Files, 2, "");
    let (course, lesson) = world.lesson().await;
    ready(&world, &lesson);
    let first = session(&world, "eve", &course, &lesson).await;
    let second = session(&world, "eve", &course, &lesson).await;
    world.get("/v1/revocations").key("").send().await.expect(401);
    world.get("/v1/revocations").send().await.expect(401);
    let empty = world.get("/v1/revocations?after=0").key(EDGE).send().await.expect(200).json();
    assert_eq!(empty, json!({ "next": 0, "events": [] }));
    for (number, origin) in [(0, 0), (1, 1)] {
        let asked = lyceum_core::time::monotonic();
        let feed = format!("/v1/revocations?after={number}&wait=20s");
        let mut waiting = Box::pin(world.get(&feed).at(1).key(EDGE).send());
        let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
        assert!(early.is_err(), "it tells of something before anything happened: {early:?}");
        let revoking = async {
            if number == 0 {
                world.delete(&format!("/v1/sessions/{first}")).at(origin).send().await.expect(204);
            } else {
                world.delete(&format!("/v1/entitlements/eve/{course}")).at(origin).send().await.expect(204);
            }
        };
        let (told, ()) = tokio::join!(waiting, revoking);
        let told = told.expect(200).json();
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        assert_eq!(told["next"], number + 1);
        let gone = if number == 0 { &first } else { &second };
        assert_eq!(told["events"][0]["session"], json!(gone));
        assert!(told["events"][0]["until"].as_i64().unwrap() > 1_700_000_000);
    }
    world.delete(&format!("/v1/sessions/{first}")).send().await.expect(204);
    world.delete("/v1/sessions/nothing").send().await.expect(404);
    let all = world.get("/v1/revocations?after=0").at(1).key(EDGE).send().await.json();
    assert_eq!(all["events"].as_array().unwrap().len(), 2, "revoked twice, told once");
    let ahead = world.get("/v1/revocations?after=99&wait=20s").key(EDGE).send().await.json();
    assert_eq!(
        (&ahead["next"], ahead["events"].as_array().unwrap().len()),
        (&json!(2), 2),
        "from a database that is gone"
    );
    world.delete(&format!("/v1/lessons/{lesson}")).send().await.expect(204);
    let purge = world.get("/v1/revocations?after=2").key(EDGE).send().await.json();
    assert_eq!(purge["events"], json!([{ "purge": { "soft": false, "tag": format!("lesson-{lesson}") } }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_has_as_many_streams_as_allowed() {
    for (when_full, ends) in [("refuse", false), ("end-oldest", true)] {
        let extra = format!("streams = {{ limit = 2, when_full = \"{when_full}\" }}");
        let world = World::new(Engines::Files, 2, &extra);
        let (course, lesson) = world.lesson().await;
        ready(&world, &lesson);
        let mut sessions = Vec::new();
        for _ in 0..3 {
            sessions.push(session(&world, "eve", &course, &lesson).await);
            // The next one is younger by the clock, too.
            let (clock, made) = (lyceum_core::time::Clock::system(), lyceum_core::time::Clock::system().unix_millis());
            until("the clock to go on", Duration::from_secs(5), || (clock.unix_millis() > made).then_some(()));
        }
        let bob = session(&world, "bob", &course, &lesson).await;
        let lease = |id: &str, origin| world.post(&format!("/v1/sessions/{id}/lease")).key(EDGE).at(origin);
        lease(&sessions[0], 0).send().await.expect(204);
        lease(&sessions[1], 1).send().await.expect(204);
        lease(&sessions[0], 1).send().await.expect(204);
        lease(&bob, 0).send().await.expect(204);
        let third = lease(&sessions[2], 1).send().await;
        if ends {
            assert_eq!(third.status, 204);
            assert_eq!(lease(&sessions[0], 0).send().await.expect(409).code(), "session_revoked");
            let told = world.get("/v1/revocations?after=0").key(EDGE).send().await.json();
            assert_eq!(told["events"][0]["session"], json!(sessions[0]));
        } else {
            assert_eq!((third.status, third.code().as_str()), (409, "too_many_streams"));
        }
        lease("unknown", 0).send().await.expect(404);
        lease(&bob, 0).key("").send().await.expect(401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_logs_in_with_a_cookie_that_other_sites_cannot_use() {
    let world = World::one(Engines::Files);
    let own = world.url(0);
    let login =
        |origin: &str, key: &str| world.post("/v1/login").key("").header("origin", origin).json(&json!({ "key": key }));
    login(&own, "wrong").send().await.expect(401);
    assert_eq!(login("https://evil.example", ADMIN).send().await.expect(403).code(), "cross_site");
    let answer = login(&own, ADMIN).send().await.expect(200);
    let cookie = answer.header("set-cookie").to_owned();
    for flag in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    assert!(!cookie.contains(ADMIN));
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let me = world.get("/v1/me").key("").header("cookie", &cookie).send().await.expect(200).json();
    assert_eq!(me["role"], "admin");
    let create = |origin: Option<&str>| {
        let ask = world.post("/v1/courses").key("").header("cookie", &cookie).json(&json!({ "title": "x" }));
        origin.map_or(world.post("/v1/courses").key("").header("cookie", &cookie).json(&json!({ "title": "x" })), |o| {
            ask.header("origin", o)
        })
    };
    create(Some(&own)).send().await.expect(201);
    create(Some("https://evil.example")).send().await.expect(403);
    create(None).send().await.expect(403);
    world.post("/v1/logout").key("").header("cookie", &cookie).header("origin", &own).send().await.expect(204);
    world.get("/v1/me").key("").header("cookie", &cookie).send().await.expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lessons_events_come_as_they_happen_and_end_with_it() {
    let world = World::new(Engines::Files, 2, "");
    let (_, lesson) = world.lesson().await;
    // Followed at one origin, changed at the other.
    let path = format!("/v1/lessons/{lesson}/events");
    let mut events = Box::pin(world.get(&path).at(1).send());
    let early = tokio::time::timeout(Duration::from_millis(200), &mut events).await;
    assert!(early.is_err(), "the stream ends before the lesson does: {early:?}");
    let working = async {
        world.post(&format!("/v1/lessons/{lesson}/media")).body("").send().await.expect(202);
    };
    let (events, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(10), events), working);
    let events = events.expect("the stream ends when the lesson failed").expect(200);
    assert_eq!(events.header("content-type"), "text/event-stream");
    let text = String::from_utf8(events.body).unwrap();
    let states: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|json| serde_json::from_str::<Value>(json).unwrap()["state"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(states.first().map(String::as_str), Some("awaiting_upload"));
    assert_eq!(states.last().map(String::as_str), Some("failed"));
    assert!(text.starts_with("event: lesson\n"));
}

#[test]
fn what_cannot_start_says_so_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let run = |change: &dyn Fn(String) -> String| {
        let at = |name: &str| dir.path().join(name).display().to_string();
        let good = format!(
            "public_url = \"http://127.0.0.1:1\"\nedges = [\"http://127.0.0.1:1\"]\ndatabase = \"sqlite:{}\"\n\
             edge_bearer = \"{EDGE}\"\nstore = {{ directory = \"{}\" }}\ntokens = {{ keys = \"{}\" }}\n\
             [[listen]]\naddress = \"127.0.0.1:0\"\n",
            at("x.db"),
            at("objects"),
            at("keys"),
        );
        let path = dir.path().join("origin.toml");
        std::fs::write(&path, change(good)).unwrap();
        let done = std::process::Command::new(crate::support::program("lyceum"))
            .args(["origin", "--config"])
            .arg(&path)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    std::fs::write(dir.path().join("file"), "").unwrap();
    let blocked = dir.path().join("file/objects").display().to_string();
    for (from, to, code, words) in [
        ("edge_bearer", "edge_baerer", 2, "edge_baerer"),
        ("sqlite:", "mysql:", 2, "sqlite:PATH"),
        ("edges = [\"http://127.0.0.1:1\"]", "edges = []", 2, "1 to 64 edges"),
        ("[[listen]]", "streams = { limit = 0 }\n[[listen]]", 2, "from 1 to 1000"),
        ("[[listen]]", "workers = { count = 99 }\n[[listen]]", 2, "from 0 to 64"),
        (&*dir.path().join("objects").display().to_string(), &*blocked, 1, "`store`"),
        (
            &*format!("sqlite:{}", dir.path().join("x.db").display()),
            &*format!("sqlite:{}/x.db", dir.path().join("file").display()),
            1,
            "`database`",
        ),
        (&*format!("sqlite:{}", dir.path().join("x.db").display()), "postgres://x@127.0.0.1:1/x", 1, "`database`"),
    ] {
        let (status, said) = run(&|good| good.replace(from, to));
        assert_eq!(status, Some(code), "{to}: {said}");
        assert!(said.contains(words), "{to}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_twice_is_done_once_and_noted() {
    for engines in [Engines::Files, Engines::Servers] {
        let world = World::new(engines, 2, "");
        let once = |origin, title: &str| {
            world.post("/v1/courses").at(origin).header("idempotency-key", "k1").json(&json!({ "title": title }))
        };
        let (first, second) = tokio::join!(once(0, "A").send(), once(1, "A").send());
        let (first, second) = (first.expect(201), second.expect(201));
        assert_eq!(first.json(), second.json());
        let replayed =
            [&first, &second].iter().filter(|answer| answer.header("idempotency-replayed") == "true").count();
        assert_eq!(replayed, 1, "one of the two did it");
        assert_eq!(once(0, "B").send().await.expect(422).code(), "idempotency_key_reused");
        let another = world.key("admin").await;
        let theirs = once(0, "A").key(&another).send().await.expect(201);
        assert_ne!(theirs.json(), first.json(), "a key is its caller's own");
        let courses = world.get("/v1/courses").send().await.json();
        assert_eq!(courses["items"].as_array().unwrap().len(), 2);
        let key =
            || world.post("/v1/keys").header("idempotency-key", "k2").json(&json!({ "role": "shop", "name": "s" }));
        let (made, again) = (key().send().await.expect(201).json(), key().send().await.expect(201).json());
        assert!(made["key"].as_str().is_some_and(|key| key.len() > 20));
        assert_eq!((&again["id"], &again["key"]), (&made["id"], &Value::Null), "a secret is shown once");
        let audit = world.get("/v1/audit").send().await.expect(200).json();
        let deeds: Vec<_> =
            audit["items"].as_array().unwrap().iter().map(|deed| deed["action"].as_str().unwrap()).collect();
        assert_eq!(deeds, ["key.create", "course.create", "key.create", "course.create"], "the newest first");
        assert_eq!(audit["items"][3]["actor"], "admin");
        let (_, lesson) = world.lesson().await;
        let upload = world.create(&lesson, 5).send().await.expect(201).header("location").to_owned();
        world.delete(&upload).header("tus-resumable", "1.0.0").send().await.expect(204);
        world.post("/v1/login").key("").json(&json!({ "key": ADMIN })).send().await.expect(200);
        let audit = world.get("/v1/audit?limit=3").send().await.expect(200).json();
        let deeds: Vec<_> =
            audit["items"].as_array().unwrap().iter().map(|deed| deed["action"].as_str().unwrap()).collect();
        assert_eq!(deeds, ["login", "upload.end", "upload.begin"]);
        assert_eq!((&audit["items"][1]["subject"], &audit["items"][1]["actor"]), (&json!(lesson), &json!("admin")));
        let shop = made["key"].as_str().unwrap();
        world.get("/v1/audit").key(shop).send().await.expect(403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_needs_no_purchase_and_says_so_in_its_token() {
    let world = World::one(Engines::Files);
    let (_, lesson) = world.lesson().await;
    ready(&world, &lesson);
    let ask = |preview: Value| {
        world
            .post("/v1/playback")
            .json(&json!({ "user": "eve", "lesson": lesson, "preview": preview, "max_height": 480 }))
    };
    ask(Value::Null).send().await.expect(403);
    for wrong in [json!(0), json!(-5), json!(4000)] {
        ask(wrong).send().await.expect(400);
    }
    let playback = ask(json!(90)).send().await.expect(201).json();
    let claims = claims_of(playback["token"].as_str().unwrap());
    assert_eq!((&claims["preview"], &claims["max_height"]), (&json!(90.0), &json!(480)));
    // Bound to where its client comes from.
    let bound = |ip: &str| world.post("/v1/playback").json(&json!({ "lesson": lesson, "client": { "ip": ip } }));
    let playback = bound("203.0.113.0/24").send().await.expect(201).json();
    assert_eq!(claims_of(playback["token"].as_str().unwrap())["cdniip"], "203.0.113.0/24");
    for wrong in ["", "somewhere", "203.0.113.0/33"] {
        bound(wrong).send().await.expect(400);
    }
}

/// The claims of a token.
pub fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_published_then_signs_and_the_old_one_stays_published() {
    let mut world = World::new(Engines::Files, 1, "");
    world.kill(0);
    world.retoken("announce = \"1s\"");
    world.start(0);
    let (_, lesson) = world.lesson().await;
    ready(&world, &lesson);
    let kid = async || {
        let playback = world.post("/v1/playback").json(&json!({ "lesson": lesson })).send().await.expect(201).json();
        let head = playback["token"].as_str().unwrap().split('.').next().unwrap().to_owned();
        let head: Value =
            serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(head).unwrap()).unwrap();
        head["kid"].as_str().unwrap().to_owned()
    };
    let published = async || {
        let jwks = world.get("/.well-known/jwks.json").key("").send().await.expect(200).json();
        jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let old = kid().await;
    let made = std::process::Command::new(crate::support::program("lyceum"))
        .args(["keys", "new", "--out"])
        .arg(world.dir.path().join("keys"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    until_async("the new key to sign", Duration::from_secs(30), async || {
        let (signs, known) = (kid().await, published().await);
        assert!(known.contains(&signs), "signed with a key that nobody knows");
        assert!(known.contains(&old), "what was signed before is still good");
        (signs != old).then_some(())
    })
    .await;
}

/// A healthy origin's edges and workers wait for news most of the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_news_is_no_time_to_answer() {
    let admin = free_port();
    let world = World::new(Engines::Files, 1, &format!("[admin]\nlisten = \"127.0.0.1:{admin}\"\n"));
    let worker = world.key("worker").await;
    world.get("/v1/revocations?after=0&wait=3s").key(EDGE).send().await.expect(200);
    world.post("/v1/tasks/lease").key(&worker).json(&json!({ "wait": 3.0 })).send().await.expect(204);
    let metrics = curl(&[&format!("http://127.0.0.1:{admin}/metrics")]).body;
    let metrics = String::from_utf8(metrics).unwrap();
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("no {name}: {metrics}"))
    };
    assert!(value("lyceum_origin_request_seconds_count") >= 3.0);
    let seconds = value("lyceum_origin_request_seconds_sum");
    assert!(seconds < 3.0, "{seconds} s of six that were waited for news");
}

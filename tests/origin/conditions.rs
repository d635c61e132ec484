//! Requests with conditions, and requests that come twice: entity tags on the API, keys on uploads.

use serde_json::json;

use super::world::{Engines, World};

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_not_told_again_and_what_has_is_not_overwritten() {
    let world = World::new(Engines::Files, 2, "");
    let (course, lesson) = world.lesson().await;
    let key = world.post("/v1/keys").json(&json!({ "role": "shop", "name": "s" })).send().await.expect(201).json();
    let key = key["id"].as_str().unwrap().to_owned();
    for path in
        ["/v1/courses".to_owned(), format!("/v1/courses/{course}/lessons"), "/v1/keys".to_owned(), "/v1/me".to_owned()]
    {
        let first = world.get(&path).send().await.expect(200);
        let tag = first.header("etag").to_owned();
        assert!(tag.starts_with('"'), "{path}: {tag}");
        let again =
            world.get(&path).at(1).header("if-none-match", format!("\"other\", W/{tag}")).send().await.expect(304);
        assert!(again.body.is_empty() && again.header("etag") == tag, "{path}");
    }
    for (path, change) in [
        (format!("/v1/courses/{course}"), json!({ "title": "New" })),
        (format!("/v1/lessons/{lesson}"), json!({ "title": "New" })),
        (format!("/v1/keys/{key}"), json!({ "name": "New" })),
    ] {
        let before = world.get(&path).send().await.expect(200).header("etag").to_owned();
        let change = || world.other("PATCH", &path).json(&change);
        let changed = change().at(1).header("if-match", &before).send().await.expect(200);
        let after = changed.header("etag").to_owned();
        assert_ne!(before, after, "{path}");
        assert_eq!(change().header("if-match", &before).send().await.expect(412).code(), "precondition_failed");
        world.delete(&path).header("if-match", &before).send().await.expect(412);
        assert_eq!(
            world.get(&path).at(1).header("if-none-match", &before).send().await.expect(200).header("etag"),
            after
        );
        world.get(&path).header("if-none-match", &after).send().await.expect(304);
    }
    for path in [format!("/v1/keys/{key}"), format!("/v1/lessons/{lesson}"), format!("/v1/courses/{course}")] {
        let tag = world.get(&path).send().await.expect(200).header("etag").to_owned();
        world.delete(&path).header("if-match", &tag).send().await.expect(204);
        world.get(&path).send().await.expect(404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_begun_twice_under_one_key_is_one() {
    for engines in [Engines::Files, Engines::Servers] {
        let world = World::new(engines, 2, "");
        let (_, lesson) = world.lesson().await;
        let begin = |origin, length: u64| world.create(&lesson, length).at(origin).header("idempotency-key", "u1");
        let (one, two) = tokio::join!(begin(0, 5).send(), begin(1, 5).send());
        let (one, two) = (one.expect(201), two.expect(201));
        assert_eq!(one.header("location"), two.header("location"));
        let upload = one.header("location").to_owned();
        assert_eq!(begin(0, 6).send().await.expect(422).code(), "idempotency_key_reused");
        world.patch(&upload, 0, b"he").send().await.expect(204);
        let again = begin(1, 5).send().await.expect(201);
        assert_eq!((again.header("upload-offset"), again.header("idempotency-replayed")), ("2", "true"));
        // One that was ended can't be gone on with: the same request begins anew.
        world.delete(&upload).header("tus-resumable", "1.0.0").send().await.expect(204);
        let anew = begin(0, 5).send().await.expect(201);
        assert_ne!(anew.header("location"), upload);

        let media = |origin| {
            world.post(&format!("/v1/lessons/{lesson}/media")).at(origin).header("idempotency-key", "m1").body("hello")
        };
        let first = media(0).send().await.expect(202).json();
        let second = media(1).send().await.expect(202).json();
        assert_eq!(first["version"], second["version"], "no second version");
        let third = world.post(&format!("/v1/lessons/{lesson}/media")).body("hello").send().await.expect(202).json();
        assert_ne!(first["version"], third["version"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_course_is_deleted_in_steps_over_a_kill() {
    let mut world = World::one(Engines::Files);
    let (course, lesson) = world.lesson().await;
    world.post(&format!("/v1/lessons/{lesson}/media")).body("a recording").send().await.expect(202);
    // More lessons than one transaction takes along.
    let sql = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1])
c.executemany(\"insert into lessons (id, course, title, owner, created, revision) values (?, ?, 'x', 'admin', ?, 1)\",
  [('l%d' % n, sys.argv[2], n) for n in range(1200)]); c.commit()";
    let database = world.dir.path().join("db/lyceum.db");
    let done = std::process::Command::new("python3").args(["-c", sql]).arg(&database).arg(&course).status();
    assert!(done.unwrap().success());
    world.delete(&format!("/v1/courses/{course}")).send().await.expect(204);
    world.kill(0);
    world.start(0);
    assert_eq!(world.get("/v1/courses").send().await.json()["items"], json!([]), "hidden at once");
    world.get(&format!("/v1/courses/{course}")).send().await.expect(404);
    world.post(&format!("/v1/courses/{course}/lessons")).json(&json!({ "title": "late" })).send().await.expect(404);
    let count = |table: &str| {
        let sql = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); print(c.execute('select count(*) from '+sys.argv[2]).fetchone()[0])";
        let told = std::process::Command::new("python3").args(["-c", sql]).arg(&database).arg(table).output().unwrap();
        String::from_utf8_lossy(&told.stdout).trim().to_owned()
    };
    crate::support::until("all lessons to be gone", std::time::Duration::from_secs(60), || {
        ([count("courses"), count("lessons"), count("versions")] == ["0", "0", "0"]).then_some(())
    });
    assert_eq!(
        std::fs::read_dir(world.dir.path().join("objects/uploads")).unwrap().count(),
        0,
        "the recording is gone too"
    );
}

//! Uploads: the protocol's table, ghosts, kills, and what other people's clients make of it.

use std::time::Duration;

use serde_json::json;

use super::world::{ADMIN, Engines, World, metadata, noise, rest_of};
use crate::support::until;

/// What a worker gets as the lesson's recording.
async fn recording(world: &World, origin: usize) -> Vec<u8> {
    let task = world.post("/v1/tasks/lease").at(origin).json(&json!({ "wait": 10 })).send().await.expect(200).json();
    assert_eq!(task["spec"]["task"], "probe");
    let source = world.get(task["source"]["url"].as_str().unwrap());
    source.header("lyceum-lease", task["lease"].as_str().unwrap()).send().await.expect(200).body
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protocols_table() {
    let world = World::one(Engines::Files);
    let (_, lesson) = world.lesson().await;
    let options = world.other("OPTIONS", "/v1/uploads").key("").send().await.expect(204);
    assert_eq!(options.header("tus-version"), "1.0.0");
    for extension in [
        "creation",
        "creation-with-upload",
        "creation-defer-length",
        "termination",
        "checksum",
        "expiration",
        "concatenation",
    ] {
        assert!(options.header("tus-extension").split(',').any(|known| known == extension), "{extension}");
    }
    assert!(options.header("tus-max-size").parse::<u64>().unwrap() > 0);

    let good = metadata(&lesson);
    let creation = |headers: &[(&str, &str)]| {
        let ask = world.post("/v1/uploads");
        headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value))
    };
    let long = format!("lesson {}", "QUFB".repeat(2000));
    for (headers, status, code) in [
        (vec![("upload-length", "5"), ("upload-metadata", &*good)], 412, "tus_version"),
        (vec![("tus-resumable", "0.2.2"), ("upload-length", "5")], 412, "tus_version"),
        (vec![("tus-resumable", "1.0.0"), ("upload-metadata", &good)], 400, "invalid_header"),
        (vec![("tus-resumable", "1.0.0"), ("upload-length", "-5"), ("upload-metadata", &good)], 400, "invalid_header"),
        (
            vec![
                ("tus-resumable", "1.0.0"),
                ("upload-length", "5"),
                ("upload-length", "6"),
                ("upload-metadata", &good),
            ],
            400,
            "invalid_header",
        ),
        (
            vec![
                ("tus-resumable", "1.0.0"),
                ("upload-length", "5"),
                ("upload-defer-length", "1"),
                ("upload-metadata", &good),
            ],
            400,
            "invalid_header",
        ),
        (
            vec![("tus-resumable", "1.0.0"), ("upload-length", "5"), ("upload-metadata", "lesson ***")],
            400,
            "invalid_header",
        ),
        (vec![("tus-resumable", "1.0.0"), ("upload-length", "5"), ("upload-metadata", &long)], 400, "invalid_header"),
        (vec![("tus-resumable", "1.0.0"), ("upload-length", "5")], 400, "invalid_request"),
        (
            vec![("tus-resumable", "1.0.0"), ("upload-length", "5"), ("upload-metadata", "lesson bm9uZQ==")],
            404,
            "not_found",
        ),
        (
            vec![("tus-resumable", "1.0.0"), ("upload-length", "9000000000000000000"), ("upload-metadata", &good)],
            413,
            "upload_too_large",
        ),
    ] {
        let answer = creation(&headers).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{headers:?}");
        assert_eq!(answer.header("tus-resumable"), "1.0.0");
    }
    creation(&[("tus-resumable", "1.0.0")]).key("").send().await.expect(401);

    let made = world.create(&lesson, 11).send().await.expect(201);
    let upload = made.header("location").to_owned();
    assert!(!made.header("upload-expires").is_empty());
    let head = world.head(&upload).send().await.expect(200);
    assert_eq!((head.header("upload-offset"), head.header("upload-length")), ("0", "11"));
    assert_eq!(head.header("upload-metadata"), good);
    assert_eq!(head.header("cache-control"), "no-store");
    let bytes = b"hello world";
    world.patch(&upload, 0, bytes).header("upload-checksum", "sha1 AAAA").send().await.expect(400);
    world.patch(&upload, 0, bytes).header("upload-checksum", "md5 AAAA").send().await.expect(400);
    let wrong = "sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let answer = world.patch(&upload, 0, bytes).header("upload-checksum", wrong).send().await.expect(460);
    assert_eq!(answer.code(), "checksum_mismatch");
    assert_eq!(world.head(&upload).send().await.header("upload-offset"), "0");
    world
        .other("PATCH", &upload)
        .header("tus-resumable", "1.0.0")
        .header("upload-offset", 0)
        .body(bytes)
        .send()
        .await
        .expect(415);
    let answer = world.patch(&upload, 3, bytes).send().await.expect(409);
    assert_eq!((answer.code().as_str(), answer.header("upload-offset")), ("offset_mismatch", "0"));
    world.patch(&upload, 0, b"hello world and more").send().await.expect(413);
    let first = world.patch(&upload, 0, &bytes[..6]).send().await.expect(204);
    assert_eq!(first.header("upload-offset"), "6");
    let override_ = world.post(&upload).header("x-http-method-override", "PATCH").header("tus-resumable", "1.0.0");
    let second = override_
        .header("upload-offset", 6)
        .header("content-type", "application/offset+octet-stream")
        .body(&bytes[6..]);
    assert_eq!(second.send().await.expect(204).header("upload-offset"), "11");
    assert_eq!(recording(&world, 0).await, bytes);
    world.patch(&upload, 11, b"").send().await.expect(403);
    world.delete(&upload).header("tus-resumable", "1.0.0").send().await.expect(403);

    let gone = world.create(&lesson, 5).send().await.expect(201).header("location").to_owned();
    world.delete(&gone).header("tus-resumable", "1.0.0").send().await.expect(204);
    assert_eq!(world.get(&format!("/v1/lessons/{lesson}")).send().await.json()["state"], "queued");
    world.head(&gone).send().await.expect(410);
    world.patch(&gone, 0, b"hello").send().await.expect(410);
    world.head("/v1/uploads/nothing").send().await.expect(404);
    world.head("/v1/uploads/..%2f..").send().await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_may_come_with_the_creation_and_the_length_at_the_end() {
    let world = World::one(Engines::Files);
    let (_, lesson) = world.lesson().await;
    let with_bytes = world.create(&lesson, 5).header("content-type", "application/offset+octet-stream").body("hello");
    assert_eq!(with_bytes.send().await.expect(201).header("upload-offset"), "5");
    assert_eq!(recording(&world, 0).await, b"hello");
    let later = world.post("/v1/uploads").header("tus-resumable", "1.0.0").header("upload-defer-length", 1);
    let upload =
        later.header("upload-metadata", metadata(&lesson)).send().await.expect(201).header("location").to_owned();
    let head = world.head(&upload).send().await;
    assert_eq!((head.header("upload-defer-length"), head.header("upload-length")), ("1", ""));
    world.patch(&upload, 0, b"good").send().await.expect(204);
    world.patch(&upload, 4, b"bye").header("upload-length", 7).send().await.expect(204);
    assert_eq!(recording(&world, 0).await, b"goodbye");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_file_in_one_body_and_what_breaks_off_leaves_nothing() {
    let world = World::one(Engines::Files);
    let (_, lesson) = world.lesson().await;
    let bytes = noise(3_000_000, 7);
    let media = format!("/v1/lessons/{lesson}/media");
    assert_eq!(world.post(&media).body(&*bytes).send().await.expect(202).json()["state"], "queued");
    assert_eq!(recording(&world, 0).await, bytes);
    let mut stream = std::net::TcpStream::connect(world.url(0).trim_start_matches("http://")).unwrap();
    let head = format!(
        "POST {media} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\nContent-Length: 1000\r\n\r\nhalf"
    );
    std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
    world.until_lesson(&lesson, "the upload to be seen", |lesson| lesson["state"] == "uploading").await;
    drop(stream);
    world.until_lesson(&lesson, "the broken upload to be gone", |lesson| lesson["state"] == "queued").await;
}

/// A client that went away without a word has a newer one wait neither for a timeout nor at a lock.
async fn the_newest_request_wins(engines: Engines) {
    let world = World::new(engines, 2, "");
    let (_, lesson) = world.lesson().await;
    let bytes = noise(7_000_000, 3);
    let upload = world.create(&lesson, bytes.len() as u64).send().await.expect(201).header("location").to_owned();
    let ghost = world.ghost(0, &upload, 0, bytes.len() as u64, &bytes[..6_500_000]);
    let started = |lesson: &serde_json::Value| lesson["progress"].as_f64().unwrap() > 0.0;
    if engines == Engines::Servers {
        world.until_lesson(&lesson, "a part to be acknowledged", started).await;
    } else {
        // Too little for a checkpoint: it lies in the growing file, and nobody was told yet.
        let growing = world.dir.path().join("objects/.growing").join(upload.trim_start_matches("/v1/"));
        until("bytes to reach the disk", Duration::from_secs(20), || {
            std::fs::metadata(&growing).is_ok_and(|file| file.len() >= 5 << 20).then_some(())
        });
    }
    let asked = lyceum_core::time::monotonic();
    let head = world.head(&upload).at(1).send().await.expect(200);
    assert!(asked.elapsed() < Duration::from_millis(2500), "{:?}", asked.elapsed());
    let offset: u64 = head.header("upload-offset").parse().unwrap();
    assert_eq!(offset, 6_500_000, "what the older one had received is kept");
    assert!(rest_of(ghost).starts_with("HTTP/1.1 409"), "the older one is told");
    let rest = &bytes[usize::try_from(offset).unwrap()..];
    let done = world.patch(&upload, offset, rest).at(1).send().await.expect(204);
    assert_eq!(done.header("upload-offset"), bytes.len().to_string());
    assert!(recording(&world, 0).await == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_request_wins_over_files() {
    the_newest_request_wins(Engines::Files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_request_wins_over_servers() {
    the_newest_request_wins(Engines::Servers).await;
}

/// Kills origins again and again in mid-upload; the upload goes on at the acknowledged offset, on the other origin.
async fn kills_lose_nothing_acknowledged(engines: Engines, length: usize) {
    let mut world = World::new(engines, 2, "");
    let (_, lesson) = world.lesson().await;
    let bytes = noise(length, 9);
    let upload = world.create(&lesson, bytes.len() as u64).send().await.expect(201).header("location").to_owned();
    let mut acknowledged = 0;
    for round in 0..3 {
        let (victim, other) = (round % 2, (round + 1) % 2);
        let to = (acknowledged + length / 4 + 100_000).min(length - 1);
        let ghost =
            world.ghost(victim, &upload, acknowledged as u64, (length - acknowledged) as u64, &bytes[acknowledged..to]);
        let floor = acknowledged as f64 / length as f64;
        let moved = |lesson: &serde_json::Value| lesson["progress"].as_f64().unwrap() > floor;
        // Asked of the one that stays, which must see what the other has acknowledged.
        let limit = Duration::from_secs(20);
        let seen = world.until_lesson_at(other, &lesson, limit, "bytes to be acknowledged", moved).await;
        let seen = seen["progress"].as_f64().unwrap();
        world.kill(victim);
        drop(ghost);
        let head = world.head(&upload).at(other).send().await.expect(200);
        let offset: usize = head.header("upload-offset").parse().unwrap();
        assert!(offset as f64 / length as f64 >= seen - 1e-9, "acknowledged {seen}, then {offset} of {length}");
        assert!(offset <= to, "more than was sent");
        acknowledged = offset;
        world.start(victim);
    }
    world.patch(&upload, acknowledged as u64, &bytes[acknowledged..]).send().await.expect(204);
    assert!(recording(&world, 1).await == bytes, "every byte in its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_nothing_acknowledged_over_files() {
    kills_lose_nothing_acknowledged(Engines::Files, 80 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_nothing_acknowledged_over_servers() {
    kills_lose_nothing_acknowledged(Engines::Servers, 40 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_killed_behind_the_last_byte_takes_the_upload_when_it_is_back() {
    let mut world = World::one(Engines::Files);
    let (_, lesson) = world.lesson().await;
    let upload = world.create(&lesson, 5).send().await.expect(201).header("location").to_owned();
    // As if the kill came between the last acknowledgement and the version: all bytes are there, nobody took them.
    world.patch(&upload, 0, b"hell").send().await.expect(204);
    world.kill(0);
    let growing = world.dir.path().join("objects/.growing").join(upload.trim_start_matches("/v1/"));
    std::fs::write(&growing, b"hello").unwrap();
    let db = world.dir.path().join("db/lyceum.db");
    let done = std::process::Command::new("python3")
        .args(["-c", "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute('update uploads set received=5'); c.commit()"])
        .arg(&db)
        .status();
    assert!(done.unwrap().success());
    world.start(0);
    world.until_lesson(&lesson, "the upload to be taken", |lesson| lesson["state"] == "queued").await;
    assert_eq!(recording(&world, 0).await, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn tuspy_uploads_as_it_is() {
    for engines in [Engines::Files, Engines::Servers] {
        let world = World::one(engines);
        let (_, lesson) = world.lesson().await;
        let bytes = noise(11_000_001, 5);
        let file = super::world::path(&world, "recording.mp4");
        std::fs::write(&file, &bytes).unwrap();
        let script = "import sys\nfrom tusclient import client\n\
            c = client.TusClient(sys.argv[1] + '/v1/uploads', headers={'Authorization': 'Bearer ' + sys.argv[2]})\n\
            c.uploader(sys.argv[4], chunk_size=4_000_000, metadata={'lesson': sys.argv[3], 'filename': 'r.mp4'}, upload_checksum=True).upload()\n";
        let python = crate::support::repository(".cache/python/bin/python3");
        let url = world.url(0);
        let ran = tokio::task::spawn_blocking(move || {
            std::process::Command::new(python).args(["-c", script, &url, ADMIN, &lesson]).arg(&file).output().unwrap()
        });
        let ran = ran.await.unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        assert!(recording(&world, 0).await == bytes);
    }
}

/// A part of that many bytes; its URL.
async fn part(world: &World, bytes: &[u8]) -> String {
    let ask = world.post("/v1/uploads").header("tus-resumable", "1.0.0").header("upload-concat", "partial");
    let made = ask.header("upload-length", bytes.len()).send().await.expect(201).header("location").to_owned();
    world.patch(&made, 0, bytes).send().await.expect(204);
    made
}

async fn parts_become_one_file(engines: Engines) {
    let mut world = World::new(engines, 2, "");
    let (_, lesson) = world.lesson().await;
    let bytes = noise(30 << 20, 11);
    let cuts = [0, 1, 6 << 20, 20 << 20, bytes.len()];
    let mut parts = Vec::new();
    for cut in cuts.windows(2) {
        parts.push(part(&world, &bytes[cut[0]..cut[1]]).await);
    }
    let head = world.head(&parts[1]).at(1).send().await.expect(200);
    assert_eq!(head.header("upload-concat"), "partial");
    let joined = |urls: &str| {
        let ask =
            world.post("/v1/uploads").header("tus-resumable", "1.0.0").header("upload-metadata", metadata(&lesson));
        ask.header("upload-concat", format!("final;{urls}"))
    };
    let open = world.post("/v1/uploads").header("tus-resumable", "1.0.0").header("upload-concat", "partial");
    let open = open.header("upload-length", 5).send().await.expect(201).header("location").to_owned();
    assert_eq!(joined(&open).send().await.expect(400).code(), "wrong_part");
    assert_eq!(joined("/v1/uploads/nothing").send().await.expect(400).code(), "wrong_part");
    joined("").send().await.expect(400);
    joined(&parts[0]).header("upload-length", 1).send().await.expect(400);
    let whole = joined(&parts.join(" ")).send().await.expect(201).header("location").to_owned();
    world.patch(&whole, 0, b"x").send().await.expect(403);
    let head = world.head(&whole).send().await.expect(200);
    assert_eq!(head.header("upload-length"), bytes.len().to_string());
    assert_eq!(head.header("upload-concat"), format!("final;{}", parts.join(" ")));
    // In the midst of the joining, or behind it: the other origin goes on with what is there.
    world.kill(0);
    let limit = Duration::from_secs(30);
    world.until_lesson_at(1, &lesson, limit, "the parts to be joined", |lesson| lesson["state"] == "queued").await;
    assert!(recording(&world, 1).await == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_become_one_file_over_files() {
    parts_become_one_file(Engines::Files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_become_one_file_over_servers() {
    parts_become_one_file(Engines::Servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tus_js_client_uploads_parts_side_by_side() {
    let world = World::one(Engines::Files);
    let (_, lesson) = world.lesson().await;
    let bytes = noise(9_000_001, 6);
    let file = super::world::path(&world, "recording.mp4");
    std::fs::write(&file, &bytes).unwrap();
    let script = "const tus = require(process.argv[1]); const fs = require('fs');
        const [url, key, lesson, file] = process.argv.slice(2);
        new tus.Upload(fs.createReadStream(file), { endpoint: url + '/v1/uploads', parallelUploads: 3,
            headers: { Authorization: 'Bearer ' + key }, metadata: { lesson, filename: 'r.mp4' },
            onError: (error) => { console.error(error); process.exit(1); }, onSuccess: () => process.exit(0) }).start();";
    let library = crate::support::repository("web/node_modules/tus-js-client");
    assert!(library.is_dir(), "{} is not there: run scripts/setup test, or make test", library.display());
    let url = world.url(0);
    let told = lesson.clone();
    let ran = tokio::task::spawn_blocking(move || {
        std::process::Command::new("node")
            .args(["-e", script])
            .arg(library)
            .args([&url, ADMIN, &told])
            .arg(&file)
            .output()
            .unwrap()
    });
    let ran = ran.await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    world.until_lesson(&lesson, "the parts to be joined", |lesson| lesson["state"] == "queued").await;
    assert!(recording(&world, 0).await == bytes);
}

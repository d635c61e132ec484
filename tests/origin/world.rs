//! A world for a story: one or two origins over one database and one store, and a client that sees every header.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use http_body_util::BodyExt;
use lyceum_client::{self as client, Http};
use serde_json::{Value, json};

use super::services::{Postgres, S3};
use crate::support::process::Role;
use crate::support::{free_port, until_async};

/// The admin's key.
pub const ADMIN: &str = "an-admin-key-for-stories";
/// What edges show.
pub const EDGE: &str = "an-edge-secret-for-stories";

/// Which engines an origin stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engines {
    /// SQLite and a directory.
    Files,
    /// PostgreSQL and a bucket.
    Servers,
}

/// Origins over one database and one store.
pub struct World {
    /// Where they keep what they keep.
    pub dir: tempfile::TempDir,
    database: String,
    store: String,
    extra: String,
    tokens: String,
    /// What `public_url` ends with.
    path: String,
    ports: Vec<u16>,
    /// The running ones.
    pub origins: Vec<Option<Role>>,
    http: Http,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Its header fields.
    pub headers: http::HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// A header field, or "".
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The problem's code, or "".
    pub fn code(&self) -> String {
        serde_json::from_slice::<Value>(&self.body)
            .ok()
            .and_then(|v| Some(v["code"].as_str()?.to_owned()))
            .unwrap_or_default()
    }

    /// Fails the story unless the status is this.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

/// A request of a story.
pub struct Ask<'w> {
    world: &'w World,
    origin: usize,
    method: &'static str,
    path: String,
    key: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Ask<'_> {
    /// With another key; "" for none.
    pub fn key(mut self, key: &str) -> Self {
        self.key = key.to_owned();
        self
    }

    /// At the origin of that number.
    pub fn at(mut self, origin: usize) -> Self {
        self.origin = origin;
        self
    }

    /// With a header field.
    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// With a JSON body.
    pub fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into_bytes();
        self.header("content-type", "application/json")
    }

    /// With a body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The answer.
    pub async fn send(self) -> Answer {
        let url = if self.path.starts_with("http") {
            self.path.clone()
        } else {
            format!("{}{}", self.world.url(self.origin), self.path)
        };
        let mut request = client::request(self.method.parse().unwrap(), &url, &self.key).unwrap();
        for (name, value) in &self.headers {
            request.headers_mut().append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        *request.body_mut() = client::full(self.body);
        let response =
            self.world.http.send(request).await.unwrap_or_else(|error| panic!("{} {url}: {error}", self.method));
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes().to_vec();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }
}

impl World {
    /// One origin.
    pub fn one(engines: Engines) -> Self {
        Self::new(engines, 1, "")
    }

    /// Origins that start at the same moment, with further lines of configuration.
    pub fn new(engines: Engines, count: usize, extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (database, store) = match engines {
            Engines::Files => (
                format!("sqlite:{}", dir.path().join("db/lyceum.db").display()),
                format!("{{ directory = \"{}\" }}", dir.path().join("objects").display()),
            ),
            Engines::Servers => (Postgres::shared().database(), S3::shared().store()),
        };
        Self::over(dir, database, store, count, extra)
    }

    /// Origins over engines that the story chose.
    pub fn over(dir: tempfile::TempDir, database: String, store: String, count: usize, extra: &str) -> Self {
        let mut world = Self {
            dir,
            database,
            store,
            extra: extra.to_owned(),
            tokens: String::new(),
            path: String::new(),
            ports: (0..count).map(|_| free_port()).collect(),
            origins: (0..count).map(|_| None).collect(),
            http: Http::new(client::Limits::default()),
        };
        // At the same moment: what a first start makes must be safe against the other's.
        let starting: Vec<_> = (0..count).map(|n| world.config(n)).collect();
        let started: Vec<_> =
            starting.into_iter().map(|path| std::thread::spawn(move || Role::start("origin", &path, &[]))).collect();
        for (slot, role) in world.origins.iter_mut().zip(started) {
            *slot = Some(role.join().expect("the origin starts"));
        }
        world
    }

    /// One origin over SQLite, whose objects lie on a disk of so many MiB.
    pub fn on_small_disk(mebibytes: u32, extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = format!("sqlite:{}", dir.path().join("db/lyceum.db").display());
        let store = format!("{{ directory = \"{}\" }}", dir.path().join("objects").display());
        let mut world = Self::over(dir, database, store, 0, extra);
        world.ports = vec![free_port()];
        let role = Role::on_small_disk("origin", &world.config(0), &world.dir.path().join("objects"), mebibytes, None);
        world.origins = vec![Some(role)];
        world
    }

    /// One origin over SQLite and a directory, whose wall clock is [`Self::jump`]'s.
    pub fn with_jumping_clock(extra: &str) -> Self {
        let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
        assert!(Path::new(library).is_file(), "{library} is not there: run scripts/setup test");
        let dir = tempfile::tempdir().unwrap();
        let database = format!("sqlite:{}", dir.path().join("db/lyceum.db").display());
        let store = format!("{{ directory = \"{}\" }}", dir.path().join("objects").display());
        let mut world = Self::over(dir, database, store, 0, extra);
        world.ports = vec![free_port()];
        world.jump(0);
        let clock = path(&world, "clock").display().to_string();
        let environment = [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", &clock),
            // The file is read anew each time; time goes on as it does, whatever the clock says.
            ("FAKETIME_NO_CACHE", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        world.origins = vec![Some(Role::start("origin", &world.config(0), &environment))];
        world
    }

    /// Sets the jumping clock so many seconds beside the machine's.
    pub fn jump(&self, seconds: i32) {
        let (new, clock) = (path(self, "clock.new"), path(self, "clock"));
        std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(new, clock).unwrap();
    }

    /// The small disk's folder as its origin sees it.
    pub fn small_disk(&self) -> std::path::PathBuf {
        self.origins[0].as_ref().expect("the origin runs").sees(&self.dir.path().join("objects"))
    }

    fn config(&self, number: usize) -> std::path::PathBuf {
        let port = self.ports[number];
        let path = self.dir.path().join(format!("origin-{number}.toml"));
        let text = format!(
            "public_url = \"http://127.0.0.1:{port}{}\"\nedges = [\"http://127.0.0.1:1\", \"http://127.0.0.1:2\"]\n\
             database = \"{}\"\nadmin_key = \"{ADMIN}\"\nedge_bearer = \"{EDGE}\"\nstore = {}\n\
             tokens = {{ keys = \"{}\"{} }}\n{}\n[[listen]]\naddress = \"127.0.0.1:{port}\"\n",
            self.path,
            self.database,
            self.store,
            self.dir.path().join("keys").display(),
            self.tokens,
            self.extra,
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Puts a path behind `public_url`, for the next start.
    pub fn mount(&mut self, path: &str) {
        self.path = path.to_owned();
    }

    /// Adds a key to `tokens`, for the next start.
    pub fn retoken(&mut self, line: &str) {
        self.tokens = format!(", {line}");
    }

    /// Runs statements in the database, as an operator would by hand.
    pub fn sql(&self, statements: &str) {
        let done = match self.database.strip_prefix("sqlite:") {
            Some(file) => {
                let script = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.executescript(sys.argv[2])";
                std::process::Command::new("python3").args(["-c", script, file, statements]).status().unwrap().success()
            }
            None => Postgres::shared().run_sql(&self.database, statements),
        };
        assert!(done, "{statements}");
    }

    /// The one whole number that a query answers.
    pub fn number(&self, query: &str) -> i64 {
        let told = match self.database.strip_prefix("sqlite:") {
            Some(file) => {
                let script =
                    "import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchone()[0])";
                let done = std::process::Command::new("python3").args(["-c", script, file, query]).output().unwrap();
                String::from_utf8(done.stdout).unwrap()
            }
            None => Postgres::shared().ask_sql(&self.database, query),
        };
        told.trim().parse().unwrap_or_else(|_| panic!("{query}: {told}"))
    }

    /// The URL of an origin.
    pub fn url(&self, number: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[number])
    }

    /// The URL of an origin's operators' listener, where its configuration has one.
    pub fn operators(&self, number: usize) -> String {
        self.origins[number].as_ref().and_then(|role| role.admin.clone()).expect("a listener for operators")
    }

    /// Ends an origin at once, as a power cut would.
    pub fn kill(&mut self, number: usize) {
        let role = self.origins[number].take().expect("the origin runs");
        role.process.signal("KILL");
        drop(role);
    }

    /// Starts an origin again, at its address.
    pub fn start(&mut self, number: usize) {
        self.origins[number] = Some(Role::start("origin", &self.config(number), &[]));
    }

    fn ask(&self, method: &'static str, path: &str) -> Ask<'_> {
        Ask {
            world: self,
            origin: 0,
            method,
            path: path.to_owned(),
            key: ADMIN.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A GET.
    pub fn get(&self, path: &str) -> Ask<'_> {
        self.ask("GET", path)
    }
    /// A HEAD.
    pub fn head(&self, path: &str) -> Ask<'_> {
        self.ask("HEAD", path).header("tus-resumable", "1.0.0")
    }
    /// A POST.
    pub fn post(&self, path: &str) -> Ask<'_> {
        self.ask("POST", path)
    }
    /// A PUT.
    pub fn put(&self, path: &str) -> Ask<'_> {
        self.ask("PUT", path)
    }
    /// A DELETE.
    pub fn delete(&self, path: &str) -> Ask<'_> {
        self.ask("DELETE", path)
    }
    /// Any other method.
    pub fn other(&self, method: &'static str, path: &str) -> Ask<'_> {
        self.ask(method, path)
    }

    /// The creation of an upload.
    pub fn create(&self, lesson: &str, length: u64) -> Ask<'_> {
        self.post("/v1/uploads")
            .header("tus-resumable", "1.0.0")
            .header("upload-length", length)
            .header("upload-metadata", metadata(lesson))
    }

    /// Bytes for an upload.
    pub fn patch(&self, upload: &str, offset: u64, bytes: &[u8]) -> Ask<'_> {
        self.ask("PATCH", upload)
            .header("tus-resumable", "1.0.0")
            .header("upload-offset", offset)
            .header("content-type", "application/offset+octet-stream")
            .body(bytes)
    }

    /// A course with one lesson: their ids.
    pub async fn lesson(&self) -> (String, String) {
        let course = self.post("/v1/courses").json(&json!({ "title": "A course" })).send().await.expect(201).json();
        let course = course["id"].as_str().unwrap().to_owned();
        let lesson = self.post(&format!("/v1/courses/{course}/lessons")).json(&json!({ "title": "A lesson" }));
        let lesson = lesson.send().await.expect(201).json();
        (course, lesson["id"].as_str().unwrap().to_owned())
    }

    /// A key of that role.
    pub async fn key(&self, role: &str) -> String {
        let key = self.post("/v1/keys").json(&json!({ "role": role, "name": role })).send().await.expect(201).json();
        key["key"].as_str().unwrap().to_owned()
    }

    /// Waits until a lesson is so.
    pub async fn until_lesson(&self, lesson: &str, what: &str, is: impl FnMut(&Value) -> bool) -> Value {
        self.until_lesson_at(0, lesson, Duration::from_secs(30), what, is).await
    }

    /// The same, asked of the origin of that number, for as long as `limit`.
    pub async fn until_lesson_at(
        &self,
        origin: usize,
        lesson: &str,
        limit: Duration,
        what: &str,
        mut is: impl FnMut(&Value) -> bool,
    ) -> Value {
        let path = format!("/v1/lessons/{lesson}");
        until_async(what, limit, async || {
            let value = self.get(&path).at(origin).send().await.expect(200).json();
            is(&value).then_some(value)
        })
        .await
    }

    /// A connection that sends a PATCH's head and some bytes, and then stands still: a client behind a dead NAT.
    pub fn ghost(&self, origin: usize, upload: &str, offset: u64, length: u64, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports[origin])).unwrap();
        write!(
            stream,
            "PATCH {upload} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\nTus-Resumable: 1.0.0\r\n\
             Upload-Offset: {offset}\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: {length}\r\n\r\n"
        )
        .unwrap();
        stream.write_all(bytes).unwrap();
        stream.flush().unwrap();
        stream
    }
}

/// What a connection answered until it closed or fell silent.
pub fn rest_of(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        text.extend_from_slice(&buffer[..read]);
        if text.windows(4).any(|w| w == b"\r\n\r\n") {
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// `Upload-Metadata` for a lesson.
pub fn metadata(lesson: &str) -> String {
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    format!("lesson {},filename {}", base64(lesson), base64("recording.mp4"))
}

/// Bytes that are the same each time and compress to nothing else.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The path of a file in a story's directory.
pub fn path(world: &World, name: &str) -> std::path::PathBuf {
    Path::new(world.dir.path()).join(name)
}

//! An origin and workers, each pinned to a core, that transcode one lesson.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use http::Method;
use lyceum_client::{self as client, Http, Limits};
use lyceum_core::time::monotonic;
use serde_json::{Value, json};

use super::command_line::program;
use super::error::{Result, TranscodeError, failed};
use crate::programs::ChildProcess;

const ADMIN_KEY: &str = "bench-admin-key-0123456789";
/// How long a lesson may take.
const LESSON_TIMEOUT: Duration = Duration::from_secs(3600);

/// The result of a lesson.
pub(super) struct Made {
    /// From the upload's end to `ready`.
    pub(super) seconds: f64,
    /// Tasks that workers were given.
    pub(super) leases: u64,
    /// What lies in the store: name without lesson and version, and a checksum.
    pub(super) objects: BTreeMap<String, u64>,
}

/// Makes `source` into a lesson with one worker on each of `cores`; the first is killed after `kill_after` seconds and
/// another takes its place.
pub(super) fn lesson(folder: &Path, source: &Path, cores: &[&str], kill_after: Option<f64>) -> Result<Made> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed("threads"))?;
    let home = tempfile::tempdir_in(folder).map_err(failed("a directory"))?;
    let origin = Origin::start(home.path())?;
    let key = runtime.block_on(origin.ask(Method::POST, "/v1/keys", &json!({ "role": "worker", "name": "bench" })))?;
    let key = key.get("key").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut workers = Vec::new();
    for (n, core) in cores.iter().enumerate() {
        workers.push(Worker::start(home.path(), &origin, &key, n, core)?);
    }
    let lesson = runtime.block_on(origin.upload(source))?;
    let start = monotonic();
    let mut leases = 0;
    let mut kill_after = kill_after;
    let seconds = loop {
        let state = runtime.block_on(origin.ask(Method::GET, &format!("/v1/lessons/{lesson}"), &Value::Null))?;
        match state.get("state").and_then(Value::as_str) {
            Some("ready") => break (monotonic() - start).as_secs_f64(),
            Some("failed") => return Err(TranscodeError(format!("the lesson failed: {state}"))),
            _ if monotonic() - start > LESSON_TIMEOUT => {
                return Err(TranscodeError("the lesson takes too long".to_owned()));
            }
            _ => {}
        }
        if kill_after.is_some_and(|after| (monotonic() - start).as_secs_f64() > after) {
            kill_after = None;
            leases += runtime.block_on(workers.remove(0).leases())?;
            let core = cores.first().copied().unwrap_or("0");
            workers.push(Worker::start(home.path(), &origin, &key, 9, core)?);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    for worker in &workers {
        leases += runtime.block_on(worker.leases())?;
    }
    Ok(Made { seconds, leases, objects: objects(&home.path().join("objects/v"))? })
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed("a free port"))?;
    Ok(listener.local_addr().map_err(failed("a free port"))?.port())
}

struct Origin {
    url: String,
    http: Http,
    _running: ChildProcess,
}

impl Origin {
    fn start(home: &Path) -> Result<Self> {
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        let place = home.display();
        // A short lease, so that a killed worker's task is soon another's.
        let config = format!(
            "public_url = \"{url}\"\nedges = [\"{url}\"]\ndatabase = \"sqlite:{place}/lyceum.db\"\nadmin_key = \"{ADMIN_KEY}\"\n\
             edge_bearer = \"bench-edge-secret-0123456789\"\nstore = {{ directory = \"{place}/objects\" }}\n\
             tokens = {{ keys = \"{place}/keys\", issuer = \"lyceum\", audience = \"lyceum-edge\", ttl = \"1h\" }}\n\
             workers = {{ count = 0 }}\nqueue = {{ lease = \"5s\", backoff = \"100ms\" }}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[[listen]]\naddress = \"127.0.0.1:{port}\"\n"
        );
        let file = home.join("origin.toml");
        std::fs::write(&file, config).map_err(failed(file.display()))?;
        let running = ready(Command::new(program("lyceum")).arg("origin").arg("--config").arg(&file), home, "origin")?;
        Ok(Self { url, http: Http::new(Limits::default()), _running: running })
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}{path}", self.url);
        let body = (!body.is_null()).then_some(body);
        let answer = self.http.json::<Value>(method, &url, ADMIN_KEY, body).await;
        Ok(answer.map_err(|e| TranscodeError(format!("{path}: {e}")))?.unwrap_or(Value::Null))
    }

    /// A course and a lesson of it with `source`; its id.
    async fn upload(&self, source: &Path) -> Result<String> {
        let course = self.ask(Method::POST, "/v1/courses", &json!({ "title": "Bench" })).await?;
        let course = course.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let lesson =
            self.ask(Method::POST, &format!("/v1/courses/{course}/lessons"), &json!({ "title": "Bench" })).await?;
        let lesson = lesson.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let url = format!("{}/v1/lessons/{lesson}/media", self.url);
        let wrong = |e: client::Error| TranscodeError(format!("the upload: {e}"));
        let mut request = client::request(Method::POST, &url, ADMIN_KEY).map_err(wrong)?;
        *request.body_mut() = client::full(std::fs::read(source).map_err(failed(source.display()))?);
        self.http.send_ok(request).await.map_err(wrong)?;
        Ok(lesson)
    }
}

/// Starts a program and waits until it says that it serves.
fn ready(command: &mut Command, home: &Path, name: &str) -> Result<ChildProcess> {
    let log = std::fs::File::create(home.join(format!("{name}.log"))).map_err(failed(name))?;
    let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().map_err(failed(name))?;
    let out = child.stdout.take();
    let running = ChildProcess(child);
    let mut line = String::new();
    if let Some(out) = out {
        let mut out = BufReader::new(out);
        out.by_ref().take(1 << 16).read_line(&mut line).map_err(failed(name))?;
    }
    if line.contains("ready") { Ok(running) } else { Err(TranscodeError(format!("{name} did not start: {line}"))) }
}

struct Worker {
    admin: String,
    _running: ChildProcess,
}

impl Worker {
    fn start(home: &Path, origin: &Origin, key: &str, number: usize, core: &str) -> Result<Self> {
        let port = free_port()?;
        let file = home.join(format!("worker{number}.toml"));
        let config = format!(
            "origins = [\"{}\"]\napi_key = \"{key}\"\nslots = 1\nlease_wait = \"5s\"\n[admin]\nlisten = \"127.0.0.1:{port}\"\n",
            origin.url
        );
        std::fs::write(&file, config).map_err(failed(file.display()))?;
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(program("lyceum-transcoder")).args(["worker", "--config"]).arg(&file);
        let running = ready(&mut command, home, &format!("worker{number}"))?;
        Ok(Self { admin: format!("http://127.0.0.1:{port}"), _running: running })
    }

    /// How many tasks it was given.
    async fn leases(&self) -> Result<u64> {
        let wrong = |e: client::Error| TranscodeError(format!("a worker's metrics: {e}"));
        let http = Http::new(Limits::default());
        let request = client::request(Method::GET, &format!("{}/metrics", self.admin), "").map_err(wrong)?;
        let bytes = http.bytes(http.send_ok(request).await.map_err(wrong)?).await.map_err(wrong)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let leased = text.lines().filter(|l| l.starts_with("lyceum_worker_leases_total") && l.contains("\"task\""));
        Ok(leased.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
    }
}

/// Checksums of all objects below `place`, named without lesson and version.
fn objects(place: &Path) -> Result<BTreeMap<String, u64>> {
    use std::hash::{Hash as _, Hasher as _};
    let mut found = BTreeMap::new();
    let mut waiting = vec![place.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(&next).map_err(failed(next.display()))?.flatten() {
            let path: PathBuf = entry.path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let name = path.strip_prefix(place).unwrap_or(&path);
            let name: PathBuf = name.components().skip(2).collect();
            let mut hash = std::hash::DefaultHasher::new();
            std::fs::read(&path).map_err(failed(path.display()))?.hash(&mut hash);
            found.insert(name.to_string_lossy().into_owned(), hash.finish());
        }
    }
    Ok(found)
}

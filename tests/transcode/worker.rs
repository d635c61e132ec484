//! `lyceum-transcoder worker` against an origin that the story plays itself: the task protocol, lost leases, the end.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use lyceum_packaging::{DeliveredObject, Ladder, MediaInfo, ObjectIndex, Plan, TaskSpec, plan, render};
use serde_json::{Value, json};

use super::processes::children;
use super::{contents, make, transcoded};
use crate::support::{heavy, program, until};

const KEY: &str = "worker-key";

#[derive(Default)]
struct Play {
    source: Vec<u8>,
    waiting: VecDeque<(String, TaskSpec)>,
    leased: BTreeMap<String, TaskSpec>,
    lost: bool,
    objects: BTreeMap<String, Vec<u8>>,
    handed: Vec<DeliveredObject>,
    done: Vec<String>,
    failed: Vec<(String, String, bool)>,
    report: Option<MediaInfo>,
    ranges: usize,
    address: String,
}

#[derive(Clone)]
struct Stage(Arc<Mutex<Play>>);

impl Stage {
    /// An origin on a port of its own with one probe to lease.
    async fn open(source: &Path) -> Self {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let mut play = Play { source: std::fs::read(source).expect("a recording"), ..Play::default() };
        play.address = format!("http://{}", listener.local_addr().expect("an address"));
        play.waiting.push_back(("probe".to_owned(), TaskSpec::Probe));
        let stage = Self(Arc::new(Mutex::new(play)));
        let app = Router::new()
            .route("/v1/tasks/lease", post(lease))
            .route("/v1/tasks/{id}/heartbeat", post(heartbeat))
            .route("/v1/tasks/{id}/complete", post(complete))
            .route("/v1/tasks/{id}/fail", post(fail))
            .route("/v1/tasks/{id}/source", get(source_range))
            .route("/v1/tasks/{id}/objects/{*path}", put(object))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(stage.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        stage
    }

    fn play<T>(&self, act: impl FnOnce(&mut Play) -> T) -> T {
        act(&mut self.0.lock().expect("nobody panicked on stage"))
    }

    fn address(&self) -> String {
        self.play(|play| play.address.clone())
    }

    /// Waits for the probe's report and puts the plan's tasks in the queue.
    fn plan(&self) -> Plan {
        let info = until("the probe's report", Duration::from_secs(60), || self.play(|play| play.report.clone()));
        let plan = plan(&info, &Ladder::default()).expect("a plan");
        self.play(|play| {
            play.waiting.extend(plan.tasks.iter().enumerate().map(|(n, t)| (format!("t{n}"), t.spec.clone())))
        });
        plan
    }
}

fn held(headers: &HeaderMap, id: &str, stage: &Stage) -> Result<(), StatusCode> {
    assert_eq!(headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()), Some("Bearer worker-key"));
    let good = headers.get("lyceum-lease").is_none_or(|lease| lease.as_bytes() == format!("lease-{id}").as_bytes());
    let lost = stage.play(|play| play.lost);
    if good && !lost { Ok(()) } else { Err(StatusCode::CONFLICT) }
}

async fn lease(State(stage): State<Stage>, headers: HeaderMap) -> Response {
    if let Err(refused) = held(&headers, "", &stage) {
        return refused.into_response();
    }
    let next = stage.play(|play| {
        let next = play.waiting.pop_front()?;
        play.leased.insert(next.0.clone(), next.1.clone());
        Some((next, play.address.clone()))
    });
    let Some(((id, spec), address)) = next else { return StatusCode::NO_CONTENT.into_response() };
    let base = format!("{address}/v1/tasks/{id}");
    axum::Json(json!({"id": id, "spec": spec, "lease": format!("lease-{id}"), "lease_seconds": 3,
        "source": {"url": format!("{base}/source")}, "objects": {"url": format!("{base}/objects/")}}))
    .into_response()
}

async fn heartbeat(
    State(stage): State<Stage>,
    UrlPath(id): UrlPath<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = held(&headers, &id, &stage) {
        return refused.into_response();
    }
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let handed: Vec<DeliveredObject> = serde_json::from_value(body["handed"].clone()).expect("handovers");
    stage.play(|play| play.handed.extend(handed));
    axum::Json(json!({"cancel": false})).into_response()
}

async fn complete(
    State(stage): State<Stage>,
    UrlPath(id): UrlPath<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = held(&headers, &id, &stage) {
        return refused.into_response();
    }
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let handed: Vec<DeliveredObject> = serde_json::from_value(body["segments"].clone()).expect("handovers");
    stage.play(|play| {
        play.handed.extend(handed);
        play.leased.remove(&id);
        if !body["report"].is_null() {
            play.report = Some(serde_json::from_value(body["report"].clone()).expect("a report"));
        }
        play.done.push(id);
    });
    StatusCode::NO_CONTENT.into_response()
}

async fn fail(State(stage): State<Stage>, UrlPath(id): UrlPath<String>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let code = body["code"].as_str().expect("a code").to_owned();
    let retry = body["retry"].as_bool().expect("retry");
    stage.play(|play| {
        if let (Some(spec), true) = (play.leased.remove(&id), retry) {
            play.waiting.push_front((id.clone(), spec));
        }
        play.failed.push((id, code, retry));
    });
    StatusCode::NO_CONTENT.into_response()
}

async fn source_range(State(stage): State<Stage>, UrlPath(id): UrlPath<String>, headers: HeaderMap) -> Response {
    if let Err(refused) = held(&headers, &id, &stage) {
        return refused.into_response();
    }
    let range = headers
        .get(header::RANGE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("bytes=")?.split_once('-'))
        .expect("a range");
    let (from, to): (usize, usize) = (range.0.parse().expect("a start"), range.1.parse().expect("an end"));
    stage.play(|play| {
        play.ranges += 1;
        let size = play.source.len();
        let to = to.min(size.saturating_sub(1));
        if from >= size {
            return (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, format!("bytes */{size}"))])
                .into_response();
        }
        (
            StatusCode::PARTIAL_CONTENT,
            [(header::CONTENT_RANGE, format!("bytes {from}-{to}/{size}"))],
            play.source[from..=to].to_vec(),
        )
            .into_response()
    })
}

async fn object(
    State(stage): State<Stage>,
    UrlPath((id, path)): UrlPath<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = held(&headers, &id, &stage) {
        return refused.into_response();
    }
    let kind = headers.get(header::CONTENT_TYPE).expect("a content type").to_str().expect("text").to_owned();
    let wanted = match path.rsplit('.').next() {
        Some("jpg") => "image/jpeg",
        Some("vtt") => "text/vtt; charset=utf-8",
        _ if path.starts_with("a-") => "audio/mp4",
        _ => "video/mp4",
    };
    assert_eq!(kind, wanted, "{path}");
    stage.play(|play| play.objects.insert(path, body.to_vec()));
    StatusCode::CREATED.into_response()
}

struct Worker(Child);

impl Worker {
    fn start(folder: &Path, stage: &Stage) -> Self {
        let config = folder.join("worker.toml");
        // Nobody listens on port 1: a worker goes on with the origin that is there.
        let origins = format!("[\"http://127.0.0.1:1\", \"{}\"]", stage.address());
        std::fs::write(
            &config,
            format!(
                "origins = {origins}\napi_key = \"{KEY}\"\nslots = 2\ndrain_timeout = \"1s\"\nlease_wait = \"0s\"\n"
            ),
        )
        .expect("a file");
        let child = Command::new(program("lyceum-transcoder"))
            .args(["worker", "--exit-with-stdin", "--config"])
            .arg(&config)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a worker starts");
        Self(child)
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0.id().to_string()]).status().expect("kill starts").success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn recording(folder: &Path, seconds: u32) -> PathBuf {
    let source = format!("testsrc2=s=640x360:r=25:d={seconds}");
    let sound = format!("sine=d={seconds}");
    make(
        folder,
        "in.mp4",
        &[
            "-f",
            "lavfi",
            "-i",
            &source,
            "-f",
            "lavfi",
            "-i",
            &sound,
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-g",
            "25",
            "-c:a",
            "aac",
        ],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_make_what_run_makes_and_hand_it_over_piece_by_piece() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let input = recording(folder.path(), 20);
    let stage = Stage::open(&input).await;
    let _workers = (Worker::start(folder.path(), &stage), Worker::start(folder.path(), &stage));
    let plan = stage.plan();
    let tasks = plan.tasks.len() + 1;
    until("all tasks to be done", Duration::from_secs(120), || {
        stage.play(|play| play.done.len() == tasks).then_some(())
    });
    let out = folder.path().join("out");
    transcoded(&input, &out);
    let (handed, objects, ranges) = stage.play(|play| (play.handed.clone(), play.objects.clone(), play.ranges));
    let index = ObjectIndex::new(&plan, &handed);
    assert!(index.complete());
    assert_eq!(
        render::master(&index, "1").expect("a master"),
        std::fs::read_to_string(out.join("master.m3u8")).expect("a master")
    );
    for (path, bytes) in contents(&out.join("1")) {
        let name = path.to_string_lossy().into_owned();
        if !name.ends_with(".m3u8") {
            assert!(objects.get(&name) == Some(&bytes), "{name} differs from what run makes");
        }
    }
    assert!(ranges < 40 * tasks, "{ranges} requests for {tasks} tasks");
    assert!(stage.play(|play| play.failed.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_ends_the_task_and_a_dead_worker_s_tasks_end_with_it() {
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let input = recording(folder.path(), 120);
    let stage = Stage::open(&input).await;
    let worker = Worker::start(folder.path(), &stage);
    stage.plan();
    let busy = |worker: &Worker| {
        let id = worker.0.id();
        until("two tasks at work", Duration::from_secs(60), || Some(children(id)).filter(|c| c.len() == 2))
    };
    let before = busy(&worker);
    stage.play(|play| play.lost = true);
    until("the tasks to be ended", Duration::from_secs(20), || {
        let now = children(worker.0.id());
        before.iter().all(|id| !now.contains(id)).then_some(())
    });
    stage.play(|play| play.lost = false);
    let tasks = busy(&worker);
    worker.signal("-9");
    until("the tasks to be gone", Duration::from_secs(10), || {
        tasks
            .iter()
            .all(|id| std::fs::read_to_string(format!("/proc/{id}/stat")).map_or(true, |s| s.contains(") Z ")))
            .then_some(())
    });

    let mut worker = Worker::start(folder.path(), &stage);
    busy(&worker);
    worker.signal("-TERM");
    let status = until("the drain", Duration::from_secs(20), || worker.0.try_wait().expect("a child"));
    assert!(status.success(), "{status}");
    assert!(stage.play(|play| play.failed.iter().all(|(_, code, retry)| code == "worker_draining" && *retry)));

    let mut worker = Worker::start(folder.path(), &stage);
    let tasks = busy(&worker);
    drop(worker.0.stdin.take());
    until("the end with standard input", Duration::from_secs(10), || worker.0.try_wait().expect("a child"));
    until("the tasks to be gone", Duration::from_secs(10), || {
        tasks.iter().all(|id| !children(1).contains(id)).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_to_the_origin_with_its_code() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (bytes, code) in [(&b""[..], "media_empty"), (&b"words, words"[..], "media_not_video")] {
        let input = folder.path().join("in.mp4");
        std::fs::write(&input, bytes).expect("a file");
        let stage = Stage::open(&input).await;
        let _worker = Worker::start(folder.path(), &stage);
        let failed = until("the refusal", Duration::from_secs(30), || stage.play(|play| play.failed.pop()));
        assert_eq!((failed.1.as_str(), failed.2), (code, false));
    }
}

//! The sample course, made over the origin's API as a creator and a shop would make it.

use std::path::Path;
use std::time::Duration;

use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::Error;
use super::layout::Layout;
use lyceum_client::{self as client, Http, tus};
use lyceum_core::units::Span;

/// The learner of the demo.
const USER: &str = "learner";
/// How often a lesson's state is asked for.
const ASK: Duration = Duration::from_millis(250);
/// How long an origin that was just started may take to answer, and a lesson may stand still.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) struct Course {
    http: Http,
    origin: String,
    key: String,
    /// Of the demo's worker.
    pub(super) worker_key: String,
    pub(super) id: String,
}

/// A lesson that can be played.
pub(super) struct Lesson {
    pub(super) id: String,
    pub(super) title: String,
}

/// What `POST /v1/playback` gave.
#[derive(Debug, Deserialize)]
pub(super) struct Playback {
    pub(super) url: String,
    pub(super) urls: Vec<String>,
    pub(super) token: String,
}

#[derive(Debug, Deserialize)]
struct Made {
    id: String,
    #[serde(default)]
    key: String,
}

#[derive(Debug, Deserialize)]
struct State {
    state: String,
    #[serde(default)]
    progress: f64,
    #[serde(default)]
    error: Option<client::Problem>,
}

impl Course {
    /// The course, made where the directory is new.
    pub(super) async fn open(layout: &Layout) -> Result<Self, Error> {
        let state = layout.state();
        let [first, _] = state.origins;
        let limits = client::Limits { response: Span::secs(24 * 3600), ..client::Limits::default() };
        let mut course = Self {
            http: Http::new(limits),
            origin: format!("http://{first}"),
            key: state.admin_key,
            worker_key: String::new(),
            id: String::new(),
        };
        course.worker_key = match state.worker_key {
            Some(key) => key,
            None => {
                let made: Made = course.post("/v1/keys", &json!({ "role": "worker", "name": "demo worker" })).await?;
                layout.with(|state| state.worker_key = Some(made.key.clone()));
                layout.save()?;
                made.key
            }
        };
        course.id = match state.course {
            Some(id) => id,
            None => {
                let made: Made = course.post("/v1/courses", &json!({ "title": "The sample course" })).await?;
                layout.with(|state| state.course = Some(made.id.clone()));
                layout.save()?;
                made.id
            }
        };
        let grant = json!({ "user": USER, "course": course.id });
        course.call::<Value>(Method::PUT, "/v1/entitlements", Some(&grant)).await?;
        Ok(course)
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Option<T>, Error> {
        Ok(self.http.json(method, &format!("{}{path}", self.origin), &self.key, body).await?)
    }

    async fn post<T: serde::de::DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Error> {
        let answer = self.call(Method::POST, path, Some(body)).await?;
        answer.ok_or_else(|| client::Error::Body { host: self.origin.clone(), what: "it is empty".to_owned() }.into())
    }

    /// The sample lesson, ready to play.
    pub(super) async fn sample(&self, layout: &Layout, transcoder: &Path) -> Result<Lesson, Error> {
        let file = layout.directory().join("sample.mp4");
        let lesson = self.lesson(layout, "sample", "A running clock").await?;
        if self.state(&lesson.id).await?.state == "awaiting_upload" || !self.begun(&lesson.id).await? {
            if !file.is_file() {
                super::error::step("making the sample recording: a minute of motion, sound and a running clock");
                make_sample(transcoder, &file, layout).await?;
            }
            self.upload(layout, &file, &lesson).await?;
        }
        self.watch(layout, "sample", &lesson, "the sample recording").await?;
        Ok(lesson)
    }

    /// A recording of the user's own as a lesson of the course.
    pub(super) async fn media(&self, layout: &Layout, file: &Path) -> Result<Lesson, Error> {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let key = fingerprint(file).map_err(|cause| Error::Directory { path: file.to_owned(), cause })?;
        let lesson = self.lesson(layout, &key, &name).await?;
        if !self.begun(&lesson.id).await? {
            self.upload(layout, file, &lesson).await?;
        }
        self.watch(layout, &key, &lesson, &file.display().to_string()).await?;
        Ok(lesson)
    }

    /// The lesson remembered under `key`, or a new one.
    async fn lesson(&self, layout: &Layout, key: &str, title: &str) -> Result<Lesson, Error> {
        let title = title.to_owned();
        if let Some(id) = layout.with(|state| state.lessons.get(key).cloned()) {
            match self.state(&id).await {
                Ok(_) => return Ok(Lesson { id, title }),
                Err(Error::Http(error)) if error.status() == Some(http::StatusCode::NOT_FOUND) => {}
                Err(error) => return Err(error),
            }
        }
        let made: Made = self.post(&format!("/v1/courses/{}/lessons", self.id), &json!({ "title": title })).await?;
        layout.with(|state| state.lessons.insert(key.to_owned(), made.id.clone()));
        layout.save()?;
        Ok(Lesson { id: made.id, title })
    }

    async fn state(&self, lesson: &str) -> Result<State, Error> {
        let state = self.call(Method::GET, &format!("/v1/lessons/{lesson}"), None).await?;
        state.ok_or_else(|| client::Error::Body { host: self.origin.clone(), what: "it is empty".to_owned() }.into())
    }

    /// Whether the recording has arrived as a whole.
    async fn begun(&self, lesson: &str) -> Result<bool, Error> {
        Ok(!matches!(self.state(lesson).await?.state.as_str(), "awaiting_upload" | "uploading" | "failed"))
    }

    async fn upload(&self, layout: &Layout, file: &Path, lesson: &Lesson) -> Result<(), Error> {
        let job = tus::Upload {
            file: file.to_owned(),
            origin: self.origin.clone(),
            lesson: lesson.id.clone(),
            api_key: self.key.clone(),
            memory: Some(layout.directory().join("uploads")),
        };
        let progress = Progress::new(&format!("uploading {}", lesson.title));
        let scale = |sent: u64, length: u64| if length == 0 { 1.0 } else { sent as f64 / length as f64 };
        job.run(&self.http, |sent, length| progress.at(scale(sent, length))).await?;
        progress.done();
        Ok(())
    }

    /// Waits until the lesson is ready. One that failed is taken away again.
    async fn watch(&self, layout: &Layout, key: &str, lesson: &Lesson, file: &str) -> Result<(), Error> {
        let progress = Progress::new(&format!("transcoding {}", lesson.title));
        let (mut seen, mut still) = (-1.0, Duration::ZERO);
        loop {
            let state = match self.state(&lesson.id).await {
                Ok(state) => state,
                Err(Error::Http(error)) if error.retry() && still < PATIENCE => {
                    // The origin is being started again.
                    tokio::time::sleep(ASK).await;
                    still += ASK;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match state.state.as_str() {
                "ready" => break,
                "failed" => {
                    let problem = state.error.unwrap_or_default();
                    self.call::<Value>(Method::DELETE, &format!("/v1/lessons/{}", lesson.id), None).await?;
                    layout.with(|state| state.lessons.remove(key));
                    layout.save()?;
                    let what = format!("{} ({})", problem.detail, problem.code);
                    return Err(Error::Media { file: file.to_owned(), what });
                }
                _ => progress.at(state.progress),
            }
            still = if state.progress == seen { still + ASK } else { Duration::ZERO };
            seen = state.progress;
            if still >= PATIENCE {
                let what = format!("stands still at {:.0} %", seen * 100.0);
                return Err(Error::Media { file: file.to_owned(), what });
            }
            tokio::time::sleep(ASK).await;
        }
        progress.done();
        Ok(())
    }

    /// A playback session for the demo's learner.
    pub(super) async fn playback(&self, lesson: &Lesson) -> Result<Playback, Error> {
        self.post("/v1/playback", &json!({ "user": USER, "lesson": lesson.id })).await
    }
}

/// A file by its place, length and time of change.
fn fingerprint(file: &Path) -> std::io::Result<String> {
    let path = std::fs::canonicalize(file)?;
    let metadata = std::fs::metadata(&path)?;
    let changed = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{}:{}:{}", path.display(), metadata.len(), changed.as_millis()))
}

async fn make_sample(transcoder: &Path, file: &Path, layout: &Layout) -> Result<(), Error> {
    let part = layout.directory().join("sample.part.mp4");
    let made = tokio::process::Command::new(transcoder)
        .args(["sample", "--duration", "60s"])
        .arg(&part)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let failed = |what: String| Error::Media { file: file.display().to_string(), what };
    let output = made.map_err(|cause| failed(cause.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    std::fs::rename(&part, file).map_err(|cause| failed(cause.to_string()))
}

/// A bar on a terminal; lines elsewhere.
struct Progress {
    bar: ProgressBar,
    what: String,
    told: std::cell::Cell<i64>,
}

impl Progress {
    fn new(what: &str) -> Self {
        let bar = ProgressBar::new(1000);
        if let Ok(style) = ProgressStyle::with_template("• {msg} {bar:30} {percent} %  {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self { bar, what: what.to_owned(), told: std::cell::Cell::new(-1) }
    }

    fn at(&self, fraction: f64) {
        let tenths = (fraction.clamp(0.0, 1.0) * 10.0) as i64;
        if !self.bar.is_hidden() {
            self.bar.set_position((fraction.clamp(0.0, 1.0) * 1000.0) as u64);
        } else if tenths > self.told.get() {
            self.told.set(tenths);
            println!("• {} {} %", self.what, tenths * 10);
        }
    }

    fn done(&self) {
        self.at(1.0);
        self.bar.finish();
    }
}

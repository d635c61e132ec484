//! How far a run is: a bar for people on standard error, or JSON lines for programs on standard output.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use lyceum_core::time::{Instant, monotonic};
use lyceum_packaging::{Index, MediaInfo, Plan, TaskSpec};
use serde_json::json;

/// At most so many JSON lines come a second.
const EVERY: Duration = Duration::from_millis(250);
/// The work of a second of sound against that of a second of picture.
const SOUND: f64 = 0.05;

/// Shared by all tasks of a run.
#[derive(Clone)]
pub(super) struct Progress {
    json: bool,
    bar: ProgressBar,
    state: Arc<Mutex<State>>,
}

struct State {
    started: Instant,
    told: Option<Instant>,
    seconds: f64,
    tasks: Vec<(f64, f64)>,
}

impl Progress {
    /// A bar, or JSON lines.
    pub(super) fn new(json: bool) -> Self {
        let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(1000) };
        if let Ok(style) = ProgressStyle::with_template("{msg:10} [{bar:36}] {percent:>3} %  {prefix}") {
            bar.set_style(style.progress_chars("=> "));
        }
        let state = State { started: monotonic(), told: None, seconds: 0.0, tasks: Vec::new() };
        Self { json, bar, state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stage without a measure begins.
    pub(super) fn stage(&self, stage: &'static str) {
        self.bar.set_message(stage);
        if self.json {
            line(
                &json!({"stage": stage, "fraction": if stage == "package" { 1.0 } else { 0.0 }, "speed": null, "remaining": null}),
            );
        }
    }

    /// Transcoding begins.
    pub(super) fn transcode(&self, plan: &Plan) {
        let weight = |spec: &TaskSpec| if matches!(spec, TaskSpec::Video(_)) { 1.0 } else { SOUND };
        let mut state = self.lock();
        state.started = monotonic();
        state.seconds = plan.duration_ms as f64 / 1000.0;
        state.tasks = plan.tasks.iter().map(|t| (t.duration_ms as f64 * weight(&t.spec), 0.0)).collect();
        self.bar.set_message("transcode");
    }

    /// Task `number` is so far, from 0 to 1.
    pub(super) fn task(&self, number: usize, fraction: f64) {
        let mut state = self.lock();
        if let Some((_, done)) = state.tasks.get_mut(number) {
            // A task that is tried again has its share already.
            *done = done.max(fraction);
        }
        let now = monotonic();
        if state.told.is_some_and(|told| now - told < EVERY) {
            return;
        }
        state.told = Some(now);
        let whole: f64 = state.tasks.iter().map(|(weight, _)| weight).sum();
        let done: f64 = state.tasks.iter().map(|(weight, done)| weight * done).sum::<f64>() / whole.max(1e-9);
        let elapsed = (now - state.started).as_secs_f64();
        let speed = done * state.seconds / elapsed.max(1e-3);
        let remaining = if done > 0.0 { elapsed / done * (1.0 - done) } else { 0.0 };
        drop(state);
        if self.json {
            let round = |value: f64| (value * 1000.0).round() / 1000.0;
            line(
                &json!({"stage": "transcode", "fraction": round(done), "speed": round(speed), "remaining": round(remaining)}),
            );
        } else {
            self.bar.set_position((done * 1000.0) as u64);
            self.bar.set_prefix(format!("{speed:.1}x, {remaining:.0} s left"));
        }
    }

    /// It came to nothing.
    pub(super) fn failed(&self, code: &str, detail: &str) {
        self.bar.finish_and_clear();
        if self.json {
            line(&json!({"stage": "failed", "code": code, "detail": detail}));
        }
    }

    /// All is there.
    pub(super) fn done(&self, info: &MediaInfo, index: &Index<'_>, place: &Path) {
        let elapsed = (monotonic() - self.lock().started).as_secs_f64();
        let seconds = index.plan().duration_ms as f64 / 1000.0;
        self.bar.finish_and_clear();
        if self.json {
            line(
                &json!({"stage": "done", "fraction": 1.0, "speed": seconds / elapsed.max(1e-3), "remaining": 0.0, "warnings": info.warnings}),
            );
            return;
        }
        let names: Vec<&str> = index.tracks().iter().map(|t| t.plan.name.as_str()).collect();
        eprintln!("{}: {seconds:.1} s as {} in {elapsed:.1} s", place.join("master.m3u8").display(), names.join(", "));
        for (code, sentence) in info.warning_sentences() {
            eprintln!("warning: {code}: {sentence}");
        }
    }
}

/// A line for programs; a reader that has gone does not stop the work.
fn line(value: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

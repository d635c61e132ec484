//! Progress of a run: a bar on standard error for people, or JSON lines on standard output for programs.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use lyceum_core::time::{Instant, monotonic};
use lyceum_packaging::{MediaInfo, ObjectIndex, Plan, TaskSpec};
use serde_json::json;

/// The shortest time between two JSON lines.
const MIN_LINE_INTERVAL: Duration = Duration::from_millis(250);
/// Cost of transcoding a second of audio, relative to a second of video.
const AUDIO_WEIGHT: f64 = 0.05;

/// Shared by all tasks of a run.
#[derive(Clone)]
pub(super) struct Progress {
    json: bool,
    bar: ProgressBar,
    state: Arc<Mutex<State>>,
}

struct State {
    started: Instant,
    last_line: Option<Instant>,
    seconds: f64,
    tasks: Vec<(f64, f64)>,
}

impl Progress {
    /// Shows a bar, or prints JSON lines.
    pub(super) fn new(json: bool) -> Self {
        let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(1000) };
        if let Ok(style) = ProgressStyle::with_template("{msg:10} [{bar:36}] {percent:>3} %  {prefix}") {
            bar.set_style(style.progress_chars("=> "));
        }
        let state = State { started: monotonic(), last_line: None, seconds: 0.0, tasks: Vec::new() };
        Self { json, bar, state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a stage without measurable progress.
    pub(super) fn stage(&self, stage: &'static str) {
        self.bar.set_message(stage);
        if self.json {
            line(
                &json!({"stage": stage, "fraction": if stage == "package" { 1.0 } else { 0.0 }, "speed": null, "remaining": null}),
            );
        }
    }

    /// Begins transcoding.
    pub(super) fn transcode(&self, plan: &Plan) {
        let weight = |spec: &TaskSpec| if matches!(spec, TaskSpec::Video(_)) { 1.0 } else { AUDIO_WEIGHT };
        let mut state = self.lock();
        state.started = monotonic();
        state.seconds = plan.duration_ms as f64 / 1000.0;
        state.tasks = plan.tasks.iter().map(|t| (t.duration_ms as f64 * weight(&t.spec), 0.0)).collect();
        self.bar.set_message("transcode");
    }

    /// Sets the progress of task `number`, from 0 to 1.
    pub(super) fn task(&self, number: usize, fraction: f64) {
        let mut state = self.lock();
        if let Some((_, done)) = state.tasks.get_mut(number) {
            // A retried task keeps its earlier share, so that progress never falls.
            *done = done.max(fraction);
        }
        let now = monotonic();
        if state.last_line.is_some_and(|last_line| now - last_line < MIN_LINE_INTERVAL) {
            return;
        }
        state.last_line = Some(now);
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

    /// Reports that the run failed.
    pub(super) fn failed(&self, code: &str, detail: &str) {
        self.bar.finish_and_clear();
        if self.json {
            line(&json!({"stage": "failed", "code": code, "detail": detail}));
        }
    }

    /// Reports that the run is complete.
    pub(super) fn done(&self, info: &MediaInfo, index: &ObjectIndex<'_>, place: &Path) {
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

/// Prints a JSON line; a closed standard output does not stop the run.
fn line(value: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

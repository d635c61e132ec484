//! `lyceum upload`: recordings on their way to lessons.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::failure::{Failure, readable};
use super::origin_api::{Access, OriginApi, text};
use lyceum_client::{self as client, tus};
use lyceum_core::time::monotonic;

/// How often a lesson's state is asked for.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long an origin may be away while a lesson is waited for.
const ORIGIN_GRACE: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(super) struct Upload {
    /// Recordings; each becomes a lesson titled by its file name, unless --lesson names one
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    access: Access,
    /// The lesson that the one recording is for
    #[arg(long, value_name = "ID", required_unless_present = "course")]
    lesson: Option<String>,
    /// The course that new lessons are added to; a title that no course has makes one
    #[arg(long, value_name = "ID or TITLE", conflicts_with = "lesson")]
    course: Option<String>,
    /// Wait until each lesson can be played, and print its playback link
    #[arg(long)]
    wait: bool,
    /// Whose playback link it is; without it the link is the creator's own
    #[arg(long, value_name = "USER", requires = "wait")]
    user: Option<String>,
}

pub(super) const EXAMPLES: &str = "\
An upload that was interrupted goes on where it stopped when the same command is run again.

Examples:
  lyceum upload talk.mp4 --course \"Rust in a week\" --wait --origin http://127.0.0.1:8080 --api-key KEY
  lyceum upload *.mp4 --course COURSE --origin http://127.0.0.1:8080 --api-key KEY
  lyceum upload talk.mp4 --lesson LESSON --origin http://127.0.0.1:8080 --api-key KEY";

pub(super) async fn run(upload: Upload) -> Result<(), Failure> {
    upload.files.iter().try_for_each(|file| readable(file))?;
    if upload.lesson.is_some() && upload.files.len() > 1 {
        return Err(Failure::usage("--lesson takes one recording: use --course for several"));
    }
    let work = upload_all(&upload);
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => {
            Err(Failure::other("interrupted; the same command goes on where this one stopped"))
        }
    }
}

async fn upload_all(upload: &Upload) -> Result<(), Failure> {
    let api = OriginApi::new(&upload.access);
    let course = match &upload.course {
        Some(course) => Some(match api.course(course).await? {
            Some(id) => id,
            None => text(&api.new_course(course).await.map_err(Failure::other)?, "id").to_owned(),
        }),
        None => None,
    };
    for file in &upload.files {
        let lesson = match (&upload.lesson, &course) {
            (Some(lesson), _) => lesson.clone(),
            (None, Some(course)) => lesson_for(&api, course, &title_of(file)).await?,
            (None, None) => return Err(Failure::usage("name a lesson with --lesson or a course with --course")),
        };
        send(&api, file, &lesson).await?;
        if upload.wait {
            wait_until_playable(&api, file, &lesson).await?;
            let link = playback_link(&api, &lesson, upload.user.as_deref()).await.map_err(Failure::other)?;
            println!("{link}");
        }
    }
    Ok(())
}

/// The file's name without its ending.
fn title_of(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_else(|| "A recording".to_owned())
}

/// The lesson of that title that still awaits its recording, as a run that was interrupted left it; else a new one.
async fn lesson_for(api: &OriginApi, course: &str, title: &str) -> Result<String, Failure> {
    let lessons = api.list(&format!("/v1/courses/{course}/lessons")).await.map_err(Failure::other)?;
    let unfinished = |lesson: &&Value| {
        text(lesson, "title") == title && matches!(text(lesson, "state"), "awaiting_upload" | "uploading")
    };
    if let Some(lesson) = lessons.iter().find(unfinished) {
        return Ok(text(lesson, "id").to_owned());
    }
    let made = api.new_lesson(course, title).await.map_err(Failure::other)?;
    Ok(text(&made, "id").to_owned())
}

async fn send(api: &OriginApi, file: &Path, lesson: &str) -> Result<(), Failure> {
    // A large file takes as long as it takes: the response to a part comes when the part was sent.
    let limits = client::Limits { response: lyceum_core::units::Span::secs(86_400), ..client::Limits::default() };
    let job = tus::Upload {
        file: file.to_owned(),
        origin: api.origin.clone(),
        lesson: lesson.to_owned(),
        api_key: api.key.clone(),
        memory: tus::default_memory(),
    };
    let bar = bar(file, "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let progress = |sent, length| {
        bar.set_length(length);
        bar.set_position(sent);
    };
    let outcome = job.run(&client::Http::new(limits), progress).await;
    match &outcome {
        Ok(()) => bar.finish(),
        Err(_) => bar.abandon(),
    }
    outcome.map_err(Failure::other)?;
    println!("{} is uploaded; the origin goes on from here", file.display());
    Ok(())
}

async fn wait_until_playable(api: &OriginApi, file: &Path, lesson: &str) -> Result<(), Failure> {
    let bar = bar(file, "{bar:40} transcoding {percent} % {elapsed}");
    bar.set_length(1000);
    let mut answered = monotonic();
    loop {
        match api.get(&format!("/v1/lessons/{lesson}")).await {
            Ok(state) => {
                answered = monotonic();
                if text(&state, "state") == "failed" {
                    bar.abandon();
                    let error = state.get("error").cloned().unwrap_or_default();
                    let (detail, code) = (text(&error, "detail"), text(&error, "code"));
                    return Err(Failure::other(format!("{}: {detail} ({code})", file.display())));
                }
                if state.get("playable").and_then(Value::as_bool) == Some(true) {
                    bar.finish();
                    return Ok(());
                }
                let progress = state.get("progress").and_then(Value::as_f64).unwrap_or_default();
                bar.set_position((progress.clamp(0.0, 1.0) * 1000.0) as u64);
            }
            Err(error) if error.retry() && answered.elapsed() < ORIGIN_GRACE => {}
            Err(error) => return Err(Failure::other(error)),
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The link of a new playback session, for any player.
pub(super) async fn playback_link(api: &OriginApi, lesson: &str, user: Option<&str>) -> Result<String, client::Error> {
    let body = match user {
        Some(user) => json!({ "lesson": lesson, "user": user }),
        None => json!({ "lesson": lesson }),
    };
    Ok(text(&api.post("/v1/playback", &body).await?, "url").to_owned())
}

fn bar(file: &Path, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(&format!("{{msg}} {template}")) {
        bar.set_style(style);
    }
    bar.set_message(file.file_name().unwrap_or_default().to_string_lossy().into_owned());
    bar
}

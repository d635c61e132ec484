//! The `run` command: probe, plan, transcode, package, publish.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use lyceum_packaging::{Ladder, MediaInfo, ObjectIndex, TaskSpec, plan, render};
use tokio::sync::mpsc;

use super::error::RunError;
use super::file_source::FileSource;
use super::out_dir::OutDir;
use super::progress::Progress;
use super::{queue, sidecars};
use crate::ipc::{Failure, Job};
use crate::limits::Limits;
use crate::task_process::{self, TaskEvent};

/// The version's name under `OUT_DIR`.
const VERSION: &str = "1";

/// `run INPUT OUT_DIR`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The recording
    input: PathBuf,
    /// The directory to create; its parent must exist
    out_dir: PathBuf,
    /// The renditions to make (default: 240p to 2160p in H.264, never above the source)
    #[arg(long, value_name = "FILE")]
    ladder: Option<PathBuf>,
    /// What each task may use, as in [limits] of worker.toml (default: 4 GiB of memory, 4 hours, 24 hours of recording)
    #[arg(long, value_name = "FILE")]
    limits: Option<PathBuf>,
    /// A SubRip or WebVTT file to publish as subtitles, such as talk.srt:en; can be given again. Those beside the input
    /// that have its name (talk.en.srt) are taken by themselves
    #[arg(long, value_name = "FILE[:LANGUAGE]")]
    subtitles: Vec<String>,
    /// Encrypt all segments with AES-128 under this key of 16 bytes or 32 hexadecimal digits, for HLS alone; playlists
    /// name the URI (default: ../keys/ and the file's name)
    #[arg(long, value_name = "KEYFILE[:URI]")]
    encrypt: Option<String>,
    /// How to show progress: a bar on standard error, or JSON lines on standard output
    #[arg(long, value_name = "FORM", default_value = "bar")]
    progress: Form,
    /// Task processes at a time (default: one for each core)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    slots: Option<u16>,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Bar,
    Json,
}

/// Runs the command. Exit codes: 0 done, 1 failed, 2 wrong usage.
pub(crate) async fn main(options: &Options) -> ExitCode {
    let progress = Progress::new(options.progress == Form::Json);
    let ended = tokio::select! {
        ended = run(options, &progress) => ended,
        () = signalled() => Err(RunError::Interrupted),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress.failed(error.code(), &error.to_string());
            eprintln!("lyceum-transcoder: {error}");
            ExitCode::from(if matches!(error, RunError::Usage(_)) { 2 } else { 1 })
        }
    }
}

async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

/// The configuration in the file of an option, or the default without one.
fn loaded<T: serde::de::DeserializeOwned + Default>(path: Option<&PathBuf>) -> Result<T, RunError> {
    let load = |path| lyceum_core::config::load::<T>(path).map_err(|error| RunError::Usage(error.to_string()));
    path.map_or_else(|| Ok(T::default()), |path| load(path))
}

async fn run(options: &Options, progress: &Progress) -> Result<(), RunError> {
    let ladder: Ladder = loaded(options.ladder.as_ref())?;
    let limits: Limits = loaded(options.limits.as_ref())?;
    let source = Arc::new(FileSource::open(&options.input)?);
    let sidecars = sidecars::subtitles(&options.input, &options.subtitles)?;
    let out = OutDir::prepare(&options.out_dir)?;

    progress.stage("probe");
    let info = probe(source.clone(), &limits).await?;
    let mut plan = plan(&info, &ladder).map_err(Failure::from)?;
    if let Some(key) = &options.encrypt {
        sidecars::encrypt(key, &mut plan)?;
    }
    let version_dir = out.version_dir(VERSION)?;
    let mut handovers = sidecars::write(&sidecars, &mut plan, &out, VERSION)?;
    progress.transcode(&plan);
    let slots = options.slots.map(usize::from).unwrap_or_else(cores);
    handovers.extend(queue::run_all(&plan, source, &limits, slots, version_dir, progress).await?);

    progress.stage("package");
    let index = ObjectIndex::new(&plan, &handovers);
    if !index.complete() {
        return Err(Failure::machinery("task_failed", "the tasks ended, but segments are missing").into());
    }
    write_playlists(&index, &info, &out)?;
    out.publish()?;
    progress.done(&info, &index, &options.out_dir);
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(64)
}

async fn probe(source: Arc<FileSource>, limits: &Limits) -> Result<MediaInfo, RunError> {
    let mut tries = 1;
    loop {
        match probe_once(source.clone(), limits).await {
            Err(RunError::Task(failure)) if failure.retry && tries < queue::MAX_TRIES => {
                tracing::warn!(%failure, "probing again");
                tries += 1;
            }
            ended => return ended,
        }
    }
}

async fn probe_once(source: Arc<FileSource>, limits: &Limits) -> Result<MediaInfo, RunError> {
    let (events, mut taken) = mpsc::channel(4);
    let job =
        Job { spec: TaskSpec::Probe, limits: limits.clone(), source_bytes: task_process::TaskSource::size(&*source) };
    let take = async {
        let mut found = None;
        while let Some(event) = taken.recv().await {
            if let TaskEvent::Report(info) = event {
                found = Some(*info);
            }
        }
        found
    };
    let (ended, found) = tokio::join!(task_process::run(&job, source, events), take);
    ended?;
    found.ok_or_else(|| Failure::machinery("task_failed", "the probe reported nothing").into())
}

fn write_playlists(index: &ObjectIndex<'_>, info: &MediaInfo, out: &OutDir) -> Result<(), RunError> {
    let missing = || Failure::machinery("task_failed", "a finished lesson could not be rendered");
    out.write("master.m3u8", render::master(index, VERSION).ok_or_else(missing)?.as_bytes())?;
    if let Some(manifest) = render::manifest(index, VERSION) {
        out.write("manifest.mpd", manifest.as_bytes())?;
    } else if index.plan().encryption.is_none() {
        return Err(missing().into());
    }
    out.write("lesson.json", render::lesson_json(index, info, VERSION).as_bytes())?;
    for track in index.tracks() {
        let name = &track.plan.name;
        let playlist = render::media_playlist(index, name).ok_or_else(missing)?;
        out.write(&format!("{VERSION}/{name}/index.m3u8"), playlist.as_bytes())?;
        if let Some(playlist) = render::iframe_playlist(index, name) {
            out.write(&format!("{VERSION}/{name}/iframes.m3u8"), playlist.as_bytes())?;
        }
    }
    Ok(())
}

//! `lyceum-transcoder run`: one file to HLS and DASH on disk, by the same plan and the same task processes that
//! workers use, over all cores.

mod beside;
mod out_dir;
mod progress;
mod queue;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use lyceum_packaging::{Index, Ladder, MediaInfo, TaskSpec, plan, render};
use tokio::sync::mpsc;

use crate::limits::Limits;
use crate::process::{self, Event};
use crate::wire::{Failure, Job};
use out_dir::OutDir;
use progress::Progress;

/// The version's name under `OUT_DIR`.
const VERSION: &str = "1";

/// `run INPUT OUT_DIR`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The recording
    input: PathBuf,
    /// The directory to make; its parent must exist
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

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The call is wrong.
    #[error("{0}")]
    Usage(String),
    /// The recording or the machinery.
    #[error("{0}")]
    Task(#[from] Failure),
    /// The disk.
    #[error("{}: {doing} {}: {cause}", output_code(cause), path.display())]
    Output {
        /// What was under way.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// A signal.
    #[error("interrupted: stopped by a signal, nothing was left behind")]
    Interrupted,
}

/// A full disk is told apart: there the user can do something.
fn output_code(cause: &std::io::Error) -> &'static str {
    match cause.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => "output_full",
        _ => "output_failed",
    }
}

impl RunError {
    /// The stable code.
    fn code(&self) -> &str {
        match self {
            Self::Usage(_) => "usage",
            Self::Task(failure) => &failure.code,
            Self::Output { cause, .. } => output_code(cause),
            Self::Interrupted => "interrupted",
        }
    }
}

/// Runs; the exit code is the design's.
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

/// The file of an option, or what is so without.
fn loaded<T: serde::de::DeserializeOwned + Default>(path: Option<&PathBuf>) -> Result<T, RunError> {
    let load = |path| lyceum_core::config::load::<T>(path).map_err(|error| RunError::Usage(error.to_string()));
    path.map_or_else(|| Ok(T::default()), |path| load(path))
}

async fn run(options: &Options, progress: &Progress) -> Result<(), RunError> {
    let ladder: Ladder = loaded(options.ladder.as_ref())?;
    let limits: Limits = loaded(options.limits.as_ref())?;
    let source = Arc::new(FileSource::open(&options.input)?);
    let sidecars = beside::subtitles(&options.input, &options.subtitles)?;
    let out = OutDir::prepare(&options.out_dir)?;

    progress.stage("probe");
    let info = probe(source.clone(), &limits).await?;
    let mut plan = plan(&info, &ladder).map_err(Failure::from)?;
    if let Some(key) = &options.encrypt {
        beside::encrypt(key, &mut plan)?;
    }
    let version_dir = out.version_dir(VERSION)?;
    let mut handovers = beside::write(&sidecars, &mut plan, &out, VERSION)?;
    progress.transcode(&plan);
    let slots = options.slots.map(usize::from).unwrap_or_else(cores);
    handovers.extend(queue::run_all(&plan, source, &limits, slots, version_dir, progress).await?);

    progress.stage("package");
    let index = Index::new(&plan, &handovers);
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
            Err(RunError::Task(failure)) if failure.retry && tries < queue::TRIES => {
                tracing::warn!(%failure, "probing again");
                tries += 1;
            }
            ended => return ended,
        }
    }
}

async fn probe_once(source: Arc<FileSource>, limits: &Limits) -> Result<MediaInfo, RunError> {
    let (events, mut taken) = mpsc::channel(4);
    let job = Job { spec: TaskSpec::Probe, limits: limits.clone(), source_bytes: process::Source::size(&*source) };
    let take = async {
        let mut found = None;
        while let Some(event) = taken.recv().await {
            if let Event::Report(info) = event {
                found = Some(*info);
            }
        }
        found
    };
    let (ended, found) = tokio::join!(process::run(&job, source, events), take);
    ended?;
    found.ok_or_else(|| Failure::machinery("task_failed", "the probe reported nothing").into())
}

fn write_playlists(index: &Index<'_>, info: &MediaInfo, out: &OutDir) -> Result<(), RunError> {
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

/// A file on this machine.
pub(crate) struct FileSource {
    file: Arc<std::fs::File>,
    size: u64,
}

impl FileSource {
    fn open(path: &Path) -> Result<Self, RunError> {
        let usage = |what: String| RunError::Usage(format!("{}: {what}", path.display()));
        let unreadable = |cause: std::io::Error| match cause.kind() {
            std::io::ErrorKind::NotFound => usage("there is no such file".to_owned()),
            _ => usage(format!("can't be read: {cause}")),
        };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(usage("is not a file".to_owned()));
        }
        Ok(Self { file: Arc::new(file), size: metadata.len() })
    }
}

impl process::Source for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&self, offset: u64, length: u32) -> std::io::Result<Bytes> {
        use std::os::unix::fs::FileExt;
        let file = self.file.clone();
        let read = move || {
            let mut bytes = vec![0; length as usize];
            let mut filled = 0;
            while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, offset.saturating_add(filled as u64)) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(cause) => return Err(cause),
                }
            }
            bytes.truncate(filled);
            Ok(Bytes::from(bytes))
        };
        tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?
    }
}

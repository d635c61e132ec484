//! Files that accompany a recording: subtitles, and the encryption key.

use std::io::Read;
use std::path::{Path, PathBuf};

use lyceum_packaging::subtitles::{self, MAX_FILE_BYTES};
use lyceum_packaging::webvtt::Cue;
use lyceum_packaging::{ContentKey, DeliveredObject, Plan};

use super::error::RunError;
use super::out_dir::OutDir;
use crate::ipc::Failure;

/// A parsed subtitle file.
pub(super) struct Sidecar {
    path: PathBuf,
    language: String,
    cues: Vec<Cue>,
}

/// The files that were named as `FILE[:LANGUAGE]`, and those beside `input` that have its name: `talk.srt` and
/// `talk.en.vtt` beside `talk.mp4`. A named file must be readable; a found one is skipped if it is not.
pub(super) fn subtitles(input: &Path, named: &[String]) -> Result<Vec<Sidecar>, RunError> {
    let mut found = Vec::new();
    for text in named {
        let (path, language) = with_suffix(text, |rest| rest.rsplit_once(':'));
        let language = language.map_or_else(|| language_in(&path), str::to_owned);
        let cues = read(&path, MAX_FILE_BYTES)
            .and_then(|bytes| subtitles::parse(&bytes).map_err(|error| error.to_string()))
            .map_err(|why| RunError::Usage(format!("{}: {why}", path.display())))?;
        found.push(Sidecar { path, language, cues });
    }
    for path in files_beside(input) {
        if found.iter().any(|sidecar| same(&sidecar.path, &path)) {
            continue;
        }
        match read(&path, MAX_FILE_BYTES).map(|bytes| subtitles::parse(&bytes)) {
            Ok(Ok(cues)) => found.push(Sidecar { language: language_in(&path), path, cues }),
            Ok(Err(why)) => {
                tracing::warn!(path = %path.display(), %why, "a subtitle file beside the input is left out")
            }
            Err(why) => {
                tracing::warn!(path = %path.display(), why, "a subtitle file beside the input is left out")
            }
        }
    }
    Ok(found)
}

fn same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// Subtitle files beside `input` with its stem, in the order of their names.
fn files_beside(input: &Path) -> Vec<PathBuf> {
    let parent = input.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(stem) = input.file_stem().and_then(|stem| stem.to_str()) else { return Vec::new() };
    let ours = |path: &Path| {
        let kind = path.extension().and_then(|e| e.to_str()).is_some_and(|e| e == "srt" || e == "vtt");
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let rest = name.strip_prefix(stem);
        kind && path.is_file() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| ours(path)).collect();
    found.sort();
    found
}

/// `en` of `talk.en.srt`; empty if the name tells no language.
fn language_in(path: &Path) -> String {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let language = stem.rsplit_once('.').map_or("", |(_, language)| language);
    let short = language.len() <= 10 && language.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if short { language.to_owned() } else { String::new() }
}

/// A path and the suffix after its colon. If a file of the whole name exists, there is no suffix.
fn with_suffix(text: &str, split: impl Fn(&str) -> Option<(&str, &str)>) -> (PathBuf, Option<&str>) {
    match split(text) {
        Some((path, rest)) if !Path::new(text).is_file() => (PathBuf::from(path), Some(rest)),
        _ => (PathBuf::from(text), None),
    }
}

fn read(path: &Path, most: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => format!("can't be read: {cause}"),
    })?;
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|cause| format!("can't be read: {cause}"))?;
    Ok(bytes)
}

/// Adds a track to the plan for each file, and writes its segments.
pub(super) fn write(
    sidecars: &[Sidecar],
    plan: &mut Plan,
    out: &OutDir,
    version: &str,
) -> Result<Vec<DeliveredObject>, RunError> {
    let mut handed = Vec::new();
    for sidecar in sidecars {
        let Some(track) = plan.add_subtitles(&sidecar.language, "") else {
            return Err(RunError::Usage("more than 32 subtitle tracks".to_owned()));
        };
        out.version_dir(&format!("{version}/{}", track.name))?;
        for (handover, bytes) in subtitles::objects(&plan.grid, &track, &sidecar.cues) {
            out.write(&format!("{version}/{}", handover.path), &bytes)?;
            handed.push(handover);
        }
    }
    Ok(handed)
}

/// Protects the plan with the key of `KEYFILE[:URI]`: 16 bytes, or 32 hexadecimal digits. Without a URI, media playlists
/// name the key as `../keys/` and the file's name.
pub(super) fn encrypt(text: &str, plan: &mut Plan) -> Result<(), RunError> {
    let (path, uri) = with_suffix(text, |rest| rest.split_once(':'));
    let usage = |why: String| RunError::Usage(format!("{}: {why}", path.display()));
    let bytes = read(&path, 64).map_err(usage)?;
    let key = match <[u8; 16]>::try_from(bytes.as_slice()) {
        Ok(bytes) => ContentKey::new(bytes),
        Err(_) => {
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            serde_json::from_value(serde_json::Value::String(text)).map_err(|cause| usage(cause.to_string()))?
        }
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let uri = uri.map_or_else(|| format!("../keys/{name}"), str::to_owned);
    plan.protect(&uri).map_err(|cause| usage(cause.to_string()))?;
    plan.tasks.iter_mut().for_each(|task| task.spec.set_key(&key));
    if plan.tasks.iter().any(|task| task.spec.wants_key()) {
        return Err(Failure::machinery("task_failed", "a task was left without its key").into());
    }
    Ok(())
}

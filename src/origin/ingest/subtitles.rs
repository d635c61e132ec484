//! Sidecar subtitles: a creator's `.srt` or `.vtt` becomes a track of the lesson, also of one that is finished. Changes of
//! the plan are made on the revision that was read: of two at the same time, one reads again.
//!
//! A version's objects never change, so a file that replaces another becomes a track of another name. Subtitles that are
//! embedded in a recording are made by a task and can't be replaced here. Subtitles belong to the version that they were
//! uploaded to; a new recording begins without any.

use bytes::Bytes;

use lyceum_catalog::{self as catalog, Lesson, StoredObject, Version, VersionState};
use lyceum_core::ids::Id;
use lyceum_packaging::subtitles::{self, FileError};
use lyceum_packaging::track::{TrackPlan, whole_path};
use lyceum_packaging::webvtt::Cue;
use lyceum_packaging::{ObjectIndex, Plan, TaskSpec, TrackKind, handover, render};
use lyceum_storage::db::{DbError, Tx};
use lyceum_storage::store::StoreError;

use crate::access::{AccessError, Caller, own_lesson, visible_lesson};
use crate::ingest::context::Ingest;
use crate::ingest::error::IngestError;
use crate::ingest::json;
use crate::ingest::object_keys::object_key;

/// How often a change of the plan is tried while others change it at the same time.
const MAX_TRIES: usize = 5;
/// How many names the track of one language may go through.
const MAX_TRACK_NAMES: usize = 1000;

/// Why subtitles can't be shown, added or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubtitlesError {
    /// The caller may not see or change the lesson.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Not a language tag.
    #[error("not a language tag")]
    InvalidLanguage,
    /// The recording has not been analysed yet.
    #[error("the lesson has no plan yet")]
    NotPlanned,
    /// What was uploaded is no file of subtitles.
    #[error(transparent)]
    File(#[from] FileError),
    /// A lesson has only so many tracks.
    #[error("the lesson has no room for another track of subtitles")]
    TooMany,
    /// No file of that language was uploaded.
    #[error("there are no uploaded subtitles of this language")]
    NoSuchTrack,
    /// Others change the plan at the same time, again and again.
    #[error("the plan changes too often")]
    Contended,
    /// The object store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// What the other steps of the ingest fail with.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

/// A language tag of the form of BCP 47, such as `en` or `pt-BR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LanguageTag<'a>(&'a str);

impl<'a> LanguageTag<'a> {
    /// Reads a tag: parts of 1 to 8 letters and digits, 2 to 35 characters in all.
    pub(crate) fn parse(text: &'a str) -> Result<Self, SubtitlesError> {
        let is_part = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
        if text.split('-').all(is_part) && (2..=35).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(SubtitlesError::InvalidLanguage)
        }
    }
}

/// The version that subtitles are added to, with its plan and the revision of that.
struct Planned {
    lesson: Lesson,
    version: Version,
    plan: Plan,
    replanned: i64,
}

async fn planned(tx: &mut Tx, caller: &Caller, lesson: &Id) -> Result<Planned, SubtitlesError> {
    let lesson = visible_lesson(tx, caller, lesson).await?;
    for id in [lesson.newest.clone(), lesson.serving.clone()].into_iter().flatten() {
        let Some(version) = catalog::version(tx, &id).await?.filter(|version| version.state != VersionState::Failed)
        else {
            continue;
        };
        if let (Some((_, plan)), Some((_, replanned))) =
            (catalog::plan_of(tx, &id).await?, catalog::revisions(tx, &id).await?)
        {
            let plan = json::decode("a plan", &plan)?;
            return Ok(Planned { lesson, version, plan, replanned });
        }
    }
    Err(SubtitlesError::NotPlanned)
}

fn tag(track: &TrackPlan) -> Option<&str> {
    match &track.kind {
        TrackKind::Subtitles { language, .. } => Some(language),
        _ => None,
    }
}

/// Whether a track was uploaded as a file: those embedded in the recording are some task's.
pub(crate) fn is_sidecar(plan: &Plan, track: &TrackPlan) -> bool {
    let embedded = plan.tasks.iter().any(|task| match &task.spec {
        TaskSpec::Subtitles(task) => task.tracks.iter().any(|stream| stream.track.name == track.name),
        _ => false,
    });
    track.is_text() && !embedded
}

/// The normal form of a language tag, as the plan writes it.
fn normalized(plan: &Plan, language: &str) -> Option<String> {
    let mut alone = Plan { tracks: Vec::new(), tasks: Vec::new(), ..plan.clone() };
    alone.add_subtitles(language, "").as_ref().and_then(tag).map(str::to_owned)
}

/// Removes the sidecar track of a language from the plan; false if there was none.
fn remove_sidecar(plan: &mut Plan, language: &str) -> bool {
    let Some(wanted) = normalized(plan, language) else { return false };
    let removed: Vec<String> = plan
        .tracks
        .iter()
        .filter(|track| tag(track) == Some(&wanted) && is_sidecar(plan, track))
        .map(|track| track.name.clone())
        .collect();
    plan.tracks.retain(|track| !removed.contains(&track.name));
    !removed.is_empty()
}

/// The plan of the version that subtitles are added to.
pub(crate) async fn plan(ingest: &Ingest, caller: &Caller, lesson: &Id) -> Result<Plan, SubtitlesError> {
    Ok(planned(&mut ingest.db.read().await?, caller, lesson).await?.plan)
}

/// Whether the caller may add subtitles to a lesson; asked before a file is read.
pub(crate) async fn may_add(ingest: &Ingest, caller: &Caller, lesson: &Id) -> Result<(), SubtitlesError> {
    own_lesson(&mut ingest.db.read().await?, caller, lesson).await?;
    Ok(())
}

/// Adds the file, or replaces the one that was there: the plan with it. Without a title, the track is called as its
/// language.
pub(crate) async fn add(
    ingest: &Ingest,
    caller: &Caller,
    lesson: &Id,
    (language, title): (LanguageTag<'_>, &str),
    file: Bytes,
) -> Result<Plan, SubtitlesError> {
    let cues = tokio::task::spawn_blocking(move || subtitles::parse(&file)).await;
    let cues = cues.map_err(|ended| IngestError::Internal(ended.to_string()))??;
    for _ in 0..MAX_TRIES {
        if let Some(plan) = try_to_add(ingest, caller, lesson, (language.0, title), &cues).await? {
            ingest.changed.notify_waiters();
            return Ok(plan);
        }
    }
    Err(SubtitlesError::Contended)
}

/// One try; `None` if the plan was changed meanwhile.
async fn try_to_add(
    ingest: &Ingest,
    caller: &Caller,
    lesson: &Id,
    (language, title): (&str, &str),
    cues: &[Cue],
) -> Result<Option<Plan>, SubtitlesError> {
    let mut tx = ingest.db.read().await?;
    let Planned { lesson, version, mut plan, replanned } = planned(&mut tx, caller, lesson).await?;
    remove_sidecar(&mut plan, language);
    let mut track = plan.add_subtitles(language, title);
    let track = track.as_mut().ok_or(SubtitlesError::TooMany)?;
    let first = track.name.clone();
    for number in 2..MAX_TRACK_NAMES {
        if !catalog::has_object(&mut tx, &version.id, &whole_path(&track.name)).await? {
            break;
        }
        track.name = format!("{first}-{number}");
    }
    drop(tx);
    if let Some(last) = plan.tracks.last_mut() {
        last.name.clone_from(&track.name);
    }
    let objects = subtitles::objects(&plan.grid, track, cues);
    let mut kept = Vec::with_capacity(objects.len());
    let mut handovers = Vec::with_capacity(objects.len());
    for (handover, bytes) in objects {
        let key = object_key(&lesson.id, &version.id, &handover.path)?;
        ingest.store.put_bytes(&key, handover::content_type(&handover.path), bytes.into()).await?;
        let json = json::encode(&handover)?;
        kept.push(StoredObject { path: handover.path.clone(), bytes: handover.bytes, handover: json });
        handovers.push(handover);
    }
    // If the lesson is still being transcoded, this is stored again at its end, with the other playlists.
    if let Some(text) = render::media_playlist(&ObjectIndex::new(&plan, &handovers), &track.name) {
        let path = format!("{}/index.m3u8", track.name);
        let key = object_key(&lesson.id, &version.id, &path)?;
        ingest.store.put_bytes(&key, handover::content_type(&path), text.into()).await?;
    }
    let text = json::encode(&plan)?;
    let mut tx = ingest.db.begin().await?;
    tx.lock("version", version.id.as_str()).await?;
    if !catalog::replan(&mut tx, &version.id, &text, replanned).await? {
        return Ok(None);
    }
    catalog::add_objects(&mut tx, &version.id, &kept).await?;
    catalog::bump_lesson_revision(&mut tx, &lesson.id).await?;
    let (now, actor) = (ingest.clock.unix_millis(), caller.id());
    catalog::add_audit_entry(&mut tx, now, actor, "subtitles.put", lesson.id.as_str(), language).await?;
    tx.commit().await?;
    Ok(Some(plan))
}

/// Removes the file of a language.
pub(crate) async fn remove(
    ingest: &Ingest,
    caller: &Caller,
    lesson: &Id,
    LanguageTag(language): LanguageTag<'_>,
) -> Result<(), SubtitlesError> {
    let mut tx = ingest.db.begin().await?;
    let Planned { lesson, version, mut plan, replanned } = planned(&mut tx, caller, lesson).await?;
    caller.may_change(&lesson.owner)?;
    tx.lock("version", version.id.as_str()).await?;
    if !remove_sidecar(&mut plan, language) {
        return Err(SubtitlesError::NoSuchTrack);
    }
    if !catalog::replan(&mut tx, &version.id, &json::encode(&plan)?, replanned).await? {
        return Err(SubtitlesError::Contended);
    }
    catalog::bump_lesson_revision(&mut tx, &lesson.id).await?;
    let (now, actor) = (ingest.clock.unix_millis(), caller.id());
    catalog::add_audit_entry(&mut tx, now, actor, "subtitles.delete", lesson.id.as_str(), language).await?;
    tx.commit().await?;
    ingest.changed.notify_waiters();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_tag_has_short_parts_of_letters_and_digits() {
        for tag in ["en", "pt-BR", "zh-Hant-TW", "de-1996", "x-klingon"] {
            assert!(LanguageTag::parse(tag).is_ok(), "{tag}");
        }
        for wrong in ["", "e", "en-", "-en", "en--US", "en_US", "englisches", "é", "en/US", &"ab-".repeat(12)] {
            assert!(matches!(LanguageTag::parse(wrong), Err(SubtitlesError::InvalidLanguage)), "{wrong}");
        }
    }
}

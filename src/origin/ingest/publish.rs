//! What players get of a version: objects are committed as they come, and once all are there the finished playlists
//! are stored and the version is ready.

use std::sync::Arc;

use lyceum_catalog::{self as catalog, StoredObject, Version, VersionState};
use lyceum_core::ids::Id;
use lyceum_packaging::{self as packaging, ObjectIndex, TrackKind, handover, render};
use lyceum_storage::db::Tx;
use lyceum_storage::queue;

use crate::ingest::context::Ingest;
use crate::ingest::error::IngestError;
use crate::ingest::object_keys::object_key;
use crate::ingest::snapshot::Snapshot;
use crate::ingest::{failure, json};

/// Commits objects and what follows from them: progress, what players get, and whether they should begin. Tells
/// how many seconds after its upload the version became playable, if it did so now.
pub(super) async fn commit_objects(
    ingest: &Ingest,
    tx: &mut Tx,
    version: &Id,
    objects: &[StoredObject],
) -> Result<Option<f64>, IngestError> {
    catalog::add_objects(tx, version, objects).await?;
    let Some(row) = catalog::version(tx, version).await? else { return Ok(None) };
    if row.state != VersionState::Transcoding {
        return Ok(None);
    }
    // Not kept: it holds what is not committed yet.
    let Some(snapshot) = ingest.snapshots.load(tx, version).await? else { return Ok(None) };
    let index = snapshot.index();
    let now = ingest.clock.unix_millis();
    let elapsed = now.saturating_sub(row.started.unwrap_or(now)).max(1);
    let speed = index.ready_ms() as f64 / elapsed as f64;
    let segment_ms = snapshot.plan.grid.frame_time(u64::from(snapshot.plan.grid.frames_per_segment), 1000);
    let playable = index.begun()
        && (row.playable || packaging::playable(index.ready_ms(), snapshot.plan.duration_ms, speed, segment_ms));
    catalog::set_progress(tx, version, index.progress(), playable).await?;
    let serving = catalog::lesson(tx, &row.lesson).await?.and_then(|lesson| lesson.serving);
    // Where an older version plays, the new one takes its place once it can be played to the end.
    if index.begun() && (playable || serving.is_none()) {
        catalog::start_serving(tx, &row.lesson, version, now).await?;
    }
    catalog::bump_lesson_revision(tx, &row.lesson).await?;
    let waited = now.saturating_sub(row.created).max(0) as f64 / 1000.0;
    Ok((playable && !row.playable).then_some(waited))
}

/// Stores the finished playlists of a version whose objects are all there, and calls it ready. Can be repeated.
pub(crate) async fn finish(ingest: &Ingest, version: &Id) -> Result<(), IngestError> {
    let mut tx = ingest.db.read().await?;
    let Some((row, snapshot)) = ended(ingest, &mut tx, version).await? else { return Ok(()) };
    drop(tx);
    let index = snapshot.index();
    let complete = index.complete();
    if complete {
        for (path, text) in finished_playlists(&index) {
            let key = object_key(&row.lesson, version, &path)?;
            ingest.store.put_bytes(&key, handover::content_type(&path), text.into()).await?;
        }
    }
    let renditions = renditions_json(&index)?;
    let now = ingest.clock.unix_millis();
    let mut tx = ingest.db.begin().await?;
    tx.lock("version", version.as_str()).await?;
    // Meanwhile another origin may have ended it, a retry may have queued tasks, or subtitles may have changed the plan.
    // What is still to be done then, the next round does.
    if !ended(ingest, &mut tx, version).await?.is_some_and(|(_, now)| now.is_as_new_as(&snapshot)) {
        return Ok(());
    }
    if !complete {
        failure::fail_version(ingest, &mut tx, version, "media_crashed", "Parts of the lesson were not made.").await?;
    } else if catalog::finish_version(&mut tx, version, &renditions, now).await? {
        catalog::start_serving(&mut tx, &row.lesson, version, now).await?;
        catalog::bump_lesson_revision(&mut tx, &row.lesson).await?;
        tracing::info!(lesson = %row.lesson, %version, "ready");
    }
    tx.commit().await?;
    ingest.changed.notify_waiters();
    Ok(())
}

/// A version whose tasks have all ended, and that is neither ready nor failed yet.
async fn ended(ingest: &Ingest, tx: &mut Tx, id: &Id) -> Result<Option<(Version, Arc<Snapshot>)>, IngestError> {
    let Some(row) = catalog::version(tx, id).await? else { return Ok(None) };
    if row.state != VersionState::Transcoding || row.tasks_left > 0 || queue::open_tasks(tx, id).await? > 0 {
        return Ok(None);
    }
    Ok(ingest.snapshots.load(tx, id).await?.map(|snapshot| (row, snapshot)))
}

fn finished_playlists(index: &ObjectIndex<'_>) -> Vec<(String, String)> {
    let mut playlists = Vec::new();
    for track in index.tracks() {
        let name = &track.plan.name;
        playlists.extend(render::media_playlist(index, name).map(|text| (format!("{name}/index.m3u8"), text)));
        playlists.extend(render::iframe_playlist(index, name).map(|text| (format!("{name}/iframes.m3u8"), text)));
    }
    playlists
}

/// The renditions as the API tells them: planned caps first, measured peaks once all is there.
pub(super) fn renditions_json(index: &ObjectIndex<'_>) -> Result<String, IngestError> {
    let complete = index.complete();
    let tell = |track: &packaging::index::TrackIndex<'_>| {
        let TrackKind::Video { shorter_side, codec, .. } = &track.plan.kind else { return None };
        let bandwidth = if complete { track.peak_bitrate() } else { track.plan.peak_bitrate };
        Some(serde_json::json!({ "height": shorter_side, "codec": codec, "bandwidth": bandwidth }))
    };
    json::encode(&index.tracks().iter().filter_map(tell).collect::<Vec<_>>())
}

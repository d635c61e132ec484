//! From an upload that is whole to a lesson that is ready: composes uploads, store, catalogue and queue.
//!
//! `whole upload → version, probe → plan, tasks → objects handed over one by one → finished playlists → ready`.
//! Each arrow is one transaction, and each step can be repeated: after a crash anywhere, what the catalogue says is
//! enough to go on, for this origin or another.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::Notify;

use super::snapshot::{Snapshot, Snapshots};
use crate::api::refusal::Refusal;
use crate::keys::sealing::Sealer;
use lyceum_catalog::{self as catalog, NewVersion, SealedKey, Stored, Version, VersionState};
use lyceum_core::ids::{Id, random_bytes};
use lyceum_core::time::Clock;
use lyceum_packaging::{
    self as packaging, ContentKey, Handover, Index, MediaInfo, Plan, TaskSpec, TrackKind, handover, render,
};
use lyceum_storage::db::{Db, Tx};
use lyceum_storage::queue::{self, Fate, NewTask, Retry};
use lyceum_storage::store::{Key, Store};
use lyceum_storage::upload::{self, Upload, Uploads};

/// Tasks that begin before this instant of a lesson are urgent, in milliseconds: they make it playable.
const URGENT_MS: u64 = 12_000;
/// Objects that are looked for in the store at once.
const LOOK_UPS: usize = 8;

/// Takes recordings to lessons.
pub(super) struct Ingest {
    pub(super) db: Db,
    pub(super) store: Store,
    pub(super) uploads: Uploads,
    pub(super) clock: Clock,
    pub(super) config: crate::config::Live,
    pub(super) sealer: Sealer,
    pub(super) snapshots: Snapshots,
    /// Seconds from a complete upload to a lesson that plays.
    pub(super) playable: prometheus::Histogram,
    /// Rung when a lesson has changed or a task waits.
    pub(super) changed: Notify,
}

/// The object of `path` of a version.
pub(super) fn object_key(lesson: &Id, version: &Id, path: &str) -> Result<Key, Refusal> {
    Key::parse(&format!("v/{lesson}/{version}/{path}")).map_err(|_| Refusal::NotFound)
}

impl Ingest {
    /// Takes an upload whose bytes are all there. Can be repeated; the first one makes the version.
    pub(super) async fn take_upload(&self, upload: &Upload) -> Result<(), Refusal> {
        let source = self.uploads.seal(upload).await?;
        let now = self.clock.unix_millis();
        let Some(lesson_id) = &upload.lesson else { return Ok(()) };
        let mut tx = self.db.begin().await?;
        tx.lock("lesson", lesson_id.as_str()).await?;
        if let Some(newest) = catalog::lesson(&mut tx, lesson_id).await?.and_then(|lesson| lesson.newest) {
            // Before any row is held: a worker's report holds this, and then waits for the lesson's row.
            tx.lock("version", newest.as_str()).await?;
        }
        if !self.uploads.mark_complete(&mut tx, &upload.id).await? {
            return Ok(());
        }
        catalog::set_uploading(&mut tx, lesson_id, None, Some(&upload.id)).await?;
        let lesson = catalog::lesson(&mut tx, lesson_id).await?;
        let wanted = lesson.is_some();
        if let Some(lesson) = lesson {
            let version = NewVersion {
                id: Id::random(),
                lesson: lesson_id.clone(),
                source: source.to_string(),
                source_bytes: upload.received,
                filename: upload.filename.clone(),
            };
            self.replace_unfinished(&mut tx, lesson.newest.as_ref(), now).await?;
            catalog::add_version(&mut tx, &version, now).await?;
            if upload.received == 0 {
                let sentence = "The file has no bytes: the recording may not have been saved before it was uploaded.";
                self.fail_version(&mut tx, &version.id, "media_empty", sentence).await?;
            } else {
                let probe = task(&version.id, &lesson.owner, &TaskSpec::Probe, 0, 0)?;
                queue::add(&mut tx, &probe, now).await?;
            }
            catalog::note(&mut tx, now, &upload.owner, "upload.taken", lesson_id.as_str(), upload.id.as_str()).await?;
            tracing::info!(lesson = %lesson_id, version = %version.id, bytes = upload.received, "upload taken");
        }
        tx.commit().await?;
        if !wanted {
            // The lesson was deleted meanwhile.
            self.store.delete(&source).await?;
        }
        // A crash here leaves them to their expiry.
        self.uploads.drop_parts(upload).await?;
        self.changed.notify_waiters();
        Ok(())
    }

    /// A newer upload ends the work on one that nobody will see.
    async fn replace_unfinished(&self, tx: &mut Tx, newest: Option<&Id>, now: i64) -> Result<(), Refusal> {
        let Some(id) = newest else { return Ok(()) };
        let sentence = "A newer upload took this one's place.";
        if catalog::fail_version(tx, id, "replaced", sentence, now).await? {
            queue::cancel(tx, id, now).await?;
        }
        Ok(())
    }

    /// Ends a version, and the work on it, with a reason that a creator understands.
    async fn fail_version(&self, tx: &mut Tx, version: &Id, code: &str, detail: &str) -> Result<(), Refusal> {
        let now = self.clock.unix_millis();
        if catalog::fail_version(tx, version, code, detail, now).await? {
            queue::cancel(tx, version, now).await?;
            if let Some(version) = catalog::version(tx, version).await? {
                catalog::note_change(tx, &version.lesson).await?;
            }
            tracing::warn!(%version, code, detail, "a version failed");
        }
        Ok(())
    }

    /// Takes up a lesson that failed where its work stopped: what is there of it stays.
    pub(super) async fn retry(&self, tx: &mut Tx, lesson: &catalog::Lesson, actor: &str) -> Result<(), Refusal> {
        let Some(version) = &lesson.newest else { return Err(Refusal::NotFailed) };
        tx.lock("version", version.as_str()).await?;
        if !catalog::retry_version(tx, version).await? {
            return Err(Refusal::NotFailed);
        }
        let now = self.clock.unix_millis();
        if queue::revive(tx, version, now).await? == 0 {
            return Err(Refusal::NothingToRetry);
        }
        catalog::note_change(tx, &lesson.id).await?;
        catalog::note(tx, now, actor, "lesson.retry", lesson.id.as_str(), version.as_str()).await?;
        Ok(())
    }

    /// A heartbeat with what was made since the last one. Answers whether the worker should stop.
    pub(super) async fn heartbeat(
        &self,
        task: &Id,
        lease: &str,
        progress: f64,
        handed: &[Handover],
    ) -> Result<bool, Refusal> {
        let leased = self.leased(task, lease).await?;
        let objects = self.check_handed(&leased.version, handed).await?;
        let mut tx = self.db.begin().await?;
        tx.lock("version", leased.version.as_str()).await?;
        let now = self.clock.unix_millis();
        let task = queue::heartbeat(&mut tx, task, lease, progress, &self.config.load_full().queue, now)
            .await?
            .ok_or(Refusal::LeaseLost)?;
        let mut began_to_play = None;
        if !objects.is_empty() {
            began_to_play = self.commit_objects(&mut tx, &leased.version, &objects).await?;
        }
        tx.commit().await?;
        if let Some(seconds) = began_to_play {
            self.playable.observe(seconds);
        }
        if !objects.is_empty() {
            self.changed.notify_waiters();
        }
        Ok(task.cancel)
    }

    async fn leased(&self, task: &Id, lease: &str) -> Result<queue::Task, Refusal> {
        let mut tx = self.db.read().await?;
        queue::leased(&mut tx, task, lease).await?.ok_or(Refusal::LeaseLost)
    }

    /// The committed state of a version, kept for the next reader.
    pub(super) async fn snapshot(&self, tx: &mut Tx, version: &Id) -> Result<Option<Arc<Snapshot>>, Refusal> {
        let snapshot = self.snapshots.load(tx, version).await?;
        if let Some(snapshot) = &snapshot {
            self.snapshots.keep(version, snapshot);
        }
        Ok(snapshot)
    }

    /// Looks that what was handed over is of the plan and lies in the store with the size that is said.
    async fn check_handed(&self, version: &Id, handed: &[Handover]) -> Result<Vec<Stored>, Refusal> {
        if handed.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.db.read().await?;
        let Some(row) = catalog::version(&mut tx, version).await? else { return Err(Refusal::LeaseLost) };
        let snapshot = self.snapshot(&mut tx, version).await?;
        let snapshot = snapshot.ok_or_else(|| Refusal::Unprocessable("A probe hands over no objects.".to_owned()))?;
        let index = snapshot.index();
        let new: Vec<Handover> = handed.iter().filter(|handover| !index.holds(handover)).cloned().collect();
        drop(tx);
        for handover in &new {
            handover.check(&snapshot.plan).map_err(|mismatch| Refusal::Unprocessable(format!("{mismatch}.")))?;
        }
        let lesson = &row.lesson;
        futures_util::stream::iter(new)
            .map(|handover| async move {
                let meta = self.store.head(&object_key(lesson, version, &handover.path)?).await?;
                if meta.size != handover.bytes {
                    return Err(Refusal::Unprocessable(format!(
                        "{} has {} bytes in the store, not {}.",
                        handover.path, meta.size, handover.bytes
                    )));
                }
                let json = serde_json::to_string(&handover).map_err(|error| Refusal::Internal(error.to_string()))?;
                Ok(Stored { path: handover.path.clone(), bytes: handover.bytes, handover: json })
            })
            .buffered(LOOK_UPS)
            .try_collect()
            .await
    }

    /// Commits objects and what follows from them: progress, what players get, and whether they should begin. Tells
    /// how many seconds after its upload the version became playable, if it did so now.
    async fn commit_objects(&self, tx: &mut Tx, version: &Id, objects: &[Stored]) -> Result<Option<f64>, Refusal> {
        catalog::add_objects(tx, version, objects).await?;
        let Some(row) = catalog::version(tx, version).await? else { return Ok(None) };
        if row.state != VersionState::Transcoding {
            return Ok(None);
        }
        // Not kept: it holds what is not committed yet.
        let Some(snapshot) = self.snapshots.load(tx, version).await? else { return Ok(None) };
        let index = snapshot.index();
        let now = self.clock.unix_millis();
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
        catalog::note_change(tx, &row.lesson).await?;
        let waited = now.saturating_sub(row.created).max(0) as f64 / 1000.0;
        Ok((playable && !row.playable).then_some(waited))
    }

    /// A task is done. Can be repeated.
    pub(super) async fn complete(
        self: &Arc<Self>,
        task: &Id,
        lease: &str,
        segments: &[Handover],
        report: Option<MediaInfo>,
    ) -> Result<(), Refusal> {
        let leased = match self.leased(task, lease).await {
            Ok(leased) => leased,
            Err(Refusal::LeaseLost) => return self.completed_before(task, lease).await,
            Err(error) => return Err(error),
        };
        let spec: TaskSpec =
            serde_json::from_str(&leased.spec).map_err(|error| Refusal::Internal(format!("a task's spec: {error}")))?;
        if let TaskSpec::Probe = spec {
            let report = report.ok_or_else(|| Refusal::Unprocessable("A probe reports what it found.".to_owned()))?;
            return self.plan(&leased, lease, &report).await;
        }
        let objects = self.check_handed(&leased.version, segments).await?;
        let mut tx = self.db.begin().await?;
        tx.lock("version", leased.version.as_str()).await?;
        let mut began_to_play = None;
        if !objects.is_empty() {
            began_to_play = self.commit_objects(&mut tx, &leased.version, &objects).await?;
        }
        if let Some(snapshot) = self.snapshots.load(&mut tx, &leased.version).await?
            && let Some(missing) = snapshot.index().first_missing(&spec)
        {
            return Err(Refusal::Unprocessable(format!("{missing} was not handed over.")));
        }
        if !queue::complete(&mut tx, task, lease, self.clock.unix_millis()).await? {
            return Err(Refusal::LeaseLost);
        }
        let last = queue::open_tasks(&mut tx, &leased.version).await? == 0;
        tx.commit().await?;
        if let Some(seconds) = began_to_play {
            self.playable.observe(seconds);
        }
        self.changed.notify_waiters();
        if last {
            let (ingest, version) = (self.clone(), leased.version);
            // The worker need not wait for it; a crash before its end is made good by the sweep.
            tokio::spawn(async move {
                if let Err(error) = ingest.finish(&version).await {
                    tracing::error!(%version, %error, "a version could not be finished; it will be tried again");
                }
            });
        }
        Ok(())
    }

    /// The answer to the first time may have been lost.
    async fn completed_before(&self, task: &Id, lease: &str) -> Result<(), Refusal> {
        let mut tx = self.db.begin().await?;
        let done = queue::complete(&mut tx, task, lease, self.clock.unix_millis()).await?;
        tx.commit().await?;
        if done { Ok(()) } else { Err(Refusal::LeaseLost) }
    }

    async fn plan(&self, task: &queue::Task, lease: &str, report: &MediaInfo) -> Result<(), Refusal> {
        let plan = packaging::plan(report, &self.config.load_full().ladder);
        let now = self.clock.unix_millis();
        let mut tx = self.db.begin().await?;
        tx.lock("version", task.version.as_str()).await?;
        if !queue::complete(&mut tx, &task.id, lease, now).await? {
            return Err(Refusal::LeaseLost);
        }
        match plan {
            Err(refusal) => {
                self.fail_version(&mut tx, &task.version, refusal.code.as_str(), &refusal.detail).await?;
            }
            Ok(plan) => self.record_plan(&mut tx, &task.version, report, plan, now).await?,
        }
        tx.commit().await?;
        self.changed.notify_waiters();
        Ok(())
    }

    async fn record_plan(
        &self,
        tx: &mut Tx,
        version: &Id,
        report: &MediaInfo,
        mut plan: Plan,
        now: i64,
    ) -> Result<(), Refusal> {
        let Some(row) = catalog::version(tx, version).await? else { return Ok(()) };
        let lesson = catalog::lesson(tx, &row.lesson).await?;
        let encrypt = lesson.as_ref().is_some_and(|lesson| lesson.encrypt);
        let key = if encrypt { Some(self.protect(&row, &mut plan)?) } else { None };
        let (media, text) = (json(report)?, json(&plan)?);
        let renditions = renditions(&Index::new(&plan, []))?;
        if !catalog::record_plan(tx, version, &media, &text, plan.duration_ms, &renditions, now).await? {
            return Ok(());
        }
        let owner = lesson.map(|lesson| lesson.owner).unwrap_or_default();
        if let Some(key) = key {
            catalog::add_content_key(tx, &key, now).await?;
            catalog::note(tx, now, &owner, "content_key.create", key.id.as_str(), row.lesson.as_str()).await?;
        }
        for planned in &plan.tasks {
            let priority = if planned.first_ms < URGENT_MS { 1 } else { 2 };
            queue::add(tx, &task(version, &owner, &planned.spec, priority, i64::from(planned.priority))?, now).await?;
        }
        catalog::note_change(tx, &row.lesson).await?;
        tracing::info!(lesson = %row.lesson, %version, duration_ms = plan.duration_ms, tasks = plan.tasks.len(), "planned");
        Ok(())
    }

    /// Has a plan's segments encrypted under a new key, which is answered sealed.
    fn protect(&self, version: &Version, plan: &mut Plan) -> Result<SealedKey, Refusal> {
        let id = Id::random();
        // Relative to a track, so that a token in the path goes along.
        plan.protect(&format!("../keys/{id}")).map_err(|error| Refusal::Internal(error.to_string()))?;
        Ok(self.sealer.seal(&id, &version.lesson, &version.id, &random_bytes())?)
    }

    /// What a worker gets of a task: its description, and the key where it encrypts. A key that can't be had counts as
    /// a failed try, so that the task stands in nobody's way.
    pub(super) async fn describe(&self, task: &queue::Task, lease: &str) -> Result<Option<String>, Refusal> {
        let mut spec: TaskSpec =
            serde_json::from_str(&task.spec).map_err(|error| Refusal::Internal(format!("a task's spec: {error}")))?;
        if !spec.wants_key() {
            return Ok(Some(task.spec.clone()));
        }
        let key = catalog::content_key_of(&mut self.db.read().await?, &task.version).await?;
        let opened = key.map(|key| self.sealer.unseal(&key)).transpose();
        match opened {
            Ok(Some(key)) => {
                spec.set_key(&ContentKey::new(key));
                json(&spec).map(Some)
            }
            missing => {
                let cause = missing.err().map_or_else(|| "it is not kept".to_owned(), |error| error.to_string());
                tracing::error!(version = %task.version, cause, "the key of an encrypted lesson can't be had");
                let sentence = "The key that this lesson is encrypted with can't be had; the operators' log says why.";
                self.fail(&task.id, lease, "key_unavailable", sentence, Retry::Counted).await?;
                Ok(None)
            }
        }
    }

    /// A worker gave a task up. Refused media ends the version at once, anything else is tried again boundedly.
    pub(super) async fn fail(
        &self,
        task: &Id,
        lease: &str,
        code: &str,
        detail: &str,
        retry: Retry,
    ) -> Result<(), Refusal> {
        let leased = self.leased(task, lease).await?;
        let mut tx = self.db.begin().await?;
        tx.lock("version", leased.version.as_str()).await?;
        let now = self.clock.unix_millis();
        let fate =
            queue::fail(&mut tx, task, lease, (code, detail), retry, &self.config.load_full().queue, now).await?;
        tracing::warn!(%task, kind = leased.kind, code, detail, attempt = leased.attempts, "a task failed");
        match fate {
            None => return Err(Refusal::LeaseLost),
            Some(Fate::Again) => {}
            Some(Fate::Dead) => self.fail_version(&mut tx, &leased.version, code, detail).await?,
        }
        tx.commit().await?;
        self.changed.notify_waiters();
        Ok(())
    }

    /// Takes tasks back whose workers fell silent before `now`, and ends what was tried often enough.
    pub(super) async fn expire_leases(&self, now: i64) -> Result<(), Refusal> {
        let mut tx = self.db.begin().await?;
        let dead = queue::expire(&mut tx, &self.config.load_full().queue, now).await?;
        for task in dead {
            let sentence = "Making this recording failed again and again; the operators' log says more.";
            self.fail_version(&mut tx, &task.version, "media_crashed", sentence).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Stores the finished playlists of a version whose objects are all there, and calls it ready. Can be repeated.
    pub(super) async fn finish(&self, version: &Id) -> Result<(), Refusal> {
        let mut tx = self.db.read().await?;
        let Some(row) = catalog::version(&mut tx, version).await? else { return Ok(()) };
        if row.state != VersionState::Transcoding || queue::open_tasks(&mut tx, version).await? > 0 {
            return Ok(());
        }
        let Some(snapshot) = self.snapshot(&mut tx, version).await? else { return Ok(()) };
        drop(tx);
        let index = snapshot.index();
        if !index.complete() {
            let mut tx = self.db.begin().await?;
            self.fail_version(&mut tx, version, "media_crashed", "Parts of the lesson were not made.").await?;
            return Ok(tx.commit().await?);
        }
        for (path, text) in finished_playlists(&index) {
            let key = object_key(&row.lesson, version, &path)?;
            self.store.put_bytes(&key, handover::content_type(&path), text.into()).await?;
        }
        let renditions = renditions(&index)?;
        let now = self.clock.unix_millis();
        let mut tx = self.db.begin().await?;
        tx.lock("version", version.as_str()).await?;
        if catalog::finish_version(&mut tx, version, &renditions, now).await? {
            catalog::start_serving(&mut tx, &row.lesson, version, now).await?;
            catalog::note_change(&mut tx, &row.lesson).await?;
            tracing::info!(lesson = %row.lesson, %version, "ready");
        }
        tx.commit().await?;
        self.changed.notify_waiters();
        Ok(())
    }

    /// Removes an upload that its client gave up or whose time is over; `actor` is who did that.
    pub(super) async fn end_upload(&self, id: &Id, actor: &str) -> Result<(), Refusal> {
        let known = self.uploads.peek(id).await?;
        let mut tx = self.db.begin().await?;
        // In the order in which all others take the two.
        if let Some(lesson) = &known.lesson {
            tx.lock("lesson", lesson.as_str()).await?;
        }
        let upload: Upload = self.uploads.terminate(&mut tx, id).await?;
        if let Some(lesson) = &upload.lesson {
            catalog::set_uploading(&mut tx, lesson, None, Some(id)).await?;
            catalog::note(&mut tx, self.clock.unix_millis(), actor, "upload.end", lesson.as_str(), id.as_str()).await?;
        }
        tx.commit().await?;
        self.changed.notify_waiters();
        self.uploads.remove_bytes(&upload).await?;
        // A part may have been sealed for a joining that never came.
        Ok(self.store.delete(&upload::source_key(id)?).await?)
    }

    /// Joins the parts of a final upload and takes it. Can be repeated from any point.
    pub(super) async fn join(&self, id: &Id) -> Result<(), Refusal> {
        let upload = self.uploads.join(id).await?;
        if upload.is_whole() { self.take_upload(&upload).await } else { Ok(()) }
    }

    /// Removes what is left of a deleted lesson, then forgets it. Can be repeated from any point.
    pub(super) async fn remove_lesson(&self, lesson: &Id) -> Result<(), Refusal> {
        let mut tx = self.db.read().await?;
        let versions = catalog::versions_of(&mut tx, lesson).await?;
        let uploads = self.uploads.ended_of(&mut tx, lesson).await?;
        drop(tx);
        for upload in &uploads {
            self.uploads.remove_bytes(upload).await?;
            // It may have been sealed before the lesson went.
            self.store.delete(&upload::source_key(&upload.id)?).await?;
        }
        for (_, source) in &versions {
            if let Ok(key) = Key::parse(source) {
                self.store.delete(&key).await?;
            }
        }
        let folder = Key::parse(&format!("v/{lesson}")).map_err(|_| Refusal::NotFound)?;
        self.store.delete_under(&folder).await?;
        let mut tx = self.db.begin().await?;
        for (version, _) in &versions {
            queue::forget(&mut tx, version).await?;
        }
        catalog::forget_lesson(&mut tx, lesson).await?;
        Ok(tx.commit().await?)
    }

    /// Removes the objects of a version that was replaced long enough ago.
    pub(super) async fn remove_version(&self, lesson: &Id, version: &Id) -> Result<(), Refusal> {
        let mut tx = self.db.read().await?;
        let source = catalog::version(&mut tx, version).await?.map(|version| version.source);
        drop(tx);
        let folder = Key::parse(&format!("v/{lesson}/{version}")).map_err(|_| Refusal::NotFound)?;
        self.store.delete_under(&folder).await?;
        if let Some(key) = source.and_then(|source| Key::parse(&source).ok()) {
            self.store.delete(&key).await?;
        }
        let mut tx = self.db.begin().await?;
        queue::forget(&mut tx, version).await?;
        catalog::forget_version(&mut tx, version).await?;
        Ok(tx.commit().await?)
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Refusal> {
    serde_json::to_string(value).map_err(|error| Refusal::Internal(error.to_string()))
}

fn task(version: &Id, owner: &str, spec: &TaskSpec, priority: i64, position: i64) -> Result<NewTask, Refusal> {
    Ok(NewTask {
        id: Id::random(),
        version: version.clone(),
        owner: owner.to_owned(),
        kind: spec.name(),
        spec: json(spec)?,
        priority,
        position,
    })
}

fn finished_playlists(index: &Index<'_>) -> Vec<(String, String)> {
    let mut playlists = Vec::new();
    for track in index.tracks() {
        let name = &track.plan.name;
        playlists.extend(render::media_playlist(index, name).map(|text| (format!("{name}/index.m3u8"), text)));
        playlists.extend(render::iframe_playlist(index, name).map(|text| (format!("{name}/iframes.m3u8"), text)));
    }
    playlists
}

/// The renditions as the API tells them: planned caps first, measured peaks once all is there.
fn renditions(index: &Index<'_>) -> Result<String, Refusal> {
    let complete = index.complete();
    let tell = |track: &packaging::index::TrackIndex<'_>| {
        let TrackKind::Video { shorter_side, codec, .. } = &track.plan.kind else { return None };
        let bandwidth = if complete { track.peak_bitrate() } else { track.plan.peak_bitrate };
        Some(serde_json::json!({ "height": shorter_side, "codec": codec, "bandwidth": bandwidth }))
    };
    json(&index.tracks().iter().filter_map(tell).collect::<Vec<_>>())
}

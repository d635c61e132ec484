//! What workers say of the tasks that they lease: heartbeats, objects handed over, completion and failure.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};

use lyceum_catalog::{self as catalog, StoredObject};
use lyceum_core::ids::Id;
use lyceum_packaging::{ContentKey, DeliveredObject, MediaInfo, TaskSpec, handover};
use lyceum_storage::queue::{self, Fate, Retry};
use lyceum_storage::store::Body;

use crate::ingest::context::Ingest;
use crate::ingest::error::IngestError;
use crate::ingest::object_keys::object_key;
use crate::ingest::{failure, json, planning, publish};

/// Objects of one report: a task of ten minutes has some hundreds for each rendition.
const MAX_OBJECTS_PER_REPORT: usize = 10_000;
/// Objects of one report that are looked up in the store at once.
const CONCURRENT_LOOKUPS: usize = 8;

/// A heartbeat with what was made since the last one. Answers whether the worker should stop.
pub(crate) async fn heartbeat(
    ingest: &Ingest,
    task: &Id,
    lease: &str,
    progress: f64,
    handed: &[DeliveredObject],
) -> Result<bool, IngestError> {
    let leased = leased(ingest, task, lease).await?;
    let objects = check_handed(ingest, &leased.version, handed).await?;
    let mut tx = ingest.db.begin().await?;
    tx.lock("version", leased.version.as_str()).await?;
    let now = ingest.clock.unix_millis();
    let task = queue::heartbeat(&mut tx, task, lease, progress, &ingest.config.load_full().queue, now)
        .await?
        .ok_or(IngestError::LeaseLost)?;
    let mut began_to_play = None;
    if !objects.is_empty() {
        began_to_play = publish::commit_objects(ingest, &mut tx, &leased.version, &objects).await?;
    }
    tx.commit().await?;
    if let Some(seconds) = began_to_play {
        ingest.playable.observe(seconds);
    }
    if !objects.is_empty() {
        ingest.changed.notify_waiters();
    }
    Ok(task.cancel)
}

async fn leased(ingest: &Ingest, task: &Id, lease: &str) -> Result<queue::Task, IngestError> {
    let mut tx = ingest.db.read().await?;
    queue::leased(&mut tx, task, lease).await?.ok_or(IngestError::LeaseLost)
}

/// Stores an object that a worker made. One that comes after its lesson was deleted leaves nothing behind.
pub(crate) async fn put_object(
    ingest: &Ingest,
    (task, lease): (&Id, &str),
    path: &str,
    length: Option<u64>,
    mut body: Body,
) -> Result<(), IngestError> {
    let task = leased(ingest, task, lease).await?;
    let version = &task.version;
    let mut tx = ingest.db.read().await?;
    let Some(row) = catalog::version(&mut tx, version).await? else { return Err(IngestError::LeaseLost) };
    let key = object_key(&row.lesson, version, path)?;
    let plan = ingest.snapshots.plan(&mut tx, version).await?;
    if !plan.is_some_and(|plan| handover::is_planned(path, &plan)) {
        return Err(IngestError::InvalidReport("The plan of this lesson has no object of that path.".to_owned()));
    }
    let committed = catalog::has_object(&mut tx, version, path).await?;
    drop(tx);
    if committed {
        // Players may have it: the new bytes are read and dropped.
        while let Some(chunk) = body.next().await {
            chunk?;
        }
        return Ok(());
    }
    ingest.store.put_of_length(&key, handover::content_type(path), length, body).await?;
    let mut tx = ingest.db.read().await?;
    let is_wanted =
        catalog::version(&mut tx, version).await?.is_some() && catalog::lesson(&mut tx, &row.lesson).await?.is_some();
    drop(tx);
    if is_wanted {
        return Ok(());
    }
    ingest.store.delete(&key).await?;
    Err(IngestError::LeaseLost)
}

/// Looks that what was handed over is of the plan and lies in the store with the size that is said.
async fn check_handed(
    ingest: &Ingest,
    version: &Id,
    handed: &[DeliveredObject],
) -> Result<Vec<StoredObject>, IngestError> {
    if handed.is_empty() {
        return Ok(Vec::new());
    }
    if handed.len() > MAX_OBJECTS_PER_REPORT {
        return Err(IngestError::InvalidReport(format!(
            "A report hands over at most {MAX_OBJECTS_PER_REPORT} objects."
        )));
    }
    let mut tx = ingest.db.read().await?;
    let Some(row) = catalog::version(&mut tx, version).await? else { return Err(IngestError::LeaseLost) };
    let snapshot = ingest.snapshot(&mut tx, version).await?;
    let snapshot = snapshot.ok_or_else(|| IngestError::InvalidReport("A probe hands over no objects.".to_owned()))?;
    let index = snapshot.index();
    let new: Vec<DeliveredObject> = handed.iter().filter(|handover| !index.holds(handover)).cloned().collect();
    drop(tx);
    for handover in &new {
        handover.check(&snapshot.plan).map_err(|mismatch| IngestError::InvalidReport(format!("{mismatch}.")))?;
    }
    let lesson = &row.lesson;
    futures_util::stream::iter(new)
        .map(|handover| async move {
            let meta = ingest.store.head(&object_key(lesson, version, &handover.path)?).await?;
            if meta.size != handover.bytes {
                return Err(IngestError::InvalidReport(format!(
                    "{} has {} bytes in the store, not {}.",
                    handover.path, meta.size, handover.bytes
                )));
            }
            let json = json::encode(&handover)?;
            Ok(StoredObject { path: handover.path.clone(), bytes: handover.bytes, handover: json })
        })
        .buffered(CONCURRENT_LOOKUPS)
        .try_collect()
        .await
}

/// A task is done. Can be repeated.
pub(crate) async fn complete(
    ingest: &Arc<Ingest>,
    task: &Id,
    lease: &str,
    segments: &[DeliveredObject],
    report: Option<MediaInfo>,
) -> Result<(), IngestError> {
    let leased = match leased(ingest, task, lease).await {
        Ok(leased) => leased,
        Err(IngestError::LeaseLost) => return completed_before(ingest, task, lease).await,
        Err(error) => return Err(error),
    };
    let spec: TaskSpec = json::decode("a task\'s spec", &leased.spec)?;
    if let TaskSpec::Probe = spec {
        let report = report.ok_or_else(|| IngestError::InvalidReport("A probe reports what it found.".to_owned()))?;
        return planning::record_probe(ingest, &leased, lease, &report).await;
    }
    let objects = check_handed(ingest, &leased.version, segments).await?;
    let mut tx = ingest.db.begin().await?;
    tx.lock("version", leased.version.as_str()).await?;
    let mut began_to_play = None;
    if !objects.is_empty() {
        began_to_play = publish::commit_objects(ingest, &mut tx, &leased.version, &objects).await?;
    }
    if let Some(snapshot) = ingest.snapshots.load(&mut tx, &leased.version).await?
        && let Some(missing) = snapshot.index().first_missing(&spec)
    {
        return Err(IngestError::InvalidReport(format!("{missing} was not handed over.")));
    }
    if !queue::complete(&mut tx, task, lease, ingest.clock.unix_millis()).await? {
        return Err(IngestError::LeaseLost);
    }
    let last = queue::open_tasks(&mut tx, &leased.version).await? == 0;
    tx.commit().await?;
    if let Some(seconds) = began_to_play {
        ingest.playable.observe(seconds);
    }
    ingest.changed.notify_waiters();
    if last {
        let (ingest, version) = (ingest.clone(), leased.version);
        // The worker need not wait for it; a crash before its end is made good by the sweep.
        tokio::spawn(async move {
            if let Err(error) = publish::finish(&ingest, &version).await {
                tracing::error!(%version, %error, "a version could not be finished; it will be tried again");
            }
        });
    }
    Ok(())
}

/// The answer to the first time may have been lost.
async fn completed_before(ingest: &Ingest, task: &Id, lease: &str) -> Result<(), IngestError> {
    let mut tx = ingest.db.begin().await?;
    let done = queue::complete(&mut tx, task, lease, ingest.clock.unix_millis()).await?;
    tx.commit().await?;
    if done { Ok(()) } else { Err(IngestError::LeaseLost) }
}

/// What a worker gets of a task: its description, and the key where it encrypts. A key that can't be had counts as
/// a failed try, so that the task stands in nobody's way.
pub(crate) async fn spec_for_worker(
    ingest: &Ingest,
    task: &queue::Task,
    lease: &str,
) -> Result<Option<String>, IngestError> {
    let mut spec: TaskSpec = json::decode("a task\'s spec", &task.spec)?;
    if !spec.wants_key() {
        return Ok(Some(task.spec.clone()));
    }
    let key = catalog::content_key_of(&mut ingest.db.read().await?, &task.version).await?;
    let opened = key.map(|key| ingest.sealer.unseal(&key)).transpose();
    match opened {
        Ok(Some(key)) => {
            spec.set_key(&ContentKey::new(key));
            json::encode(&spec).map(Some)
        }
        missing => {
            let cause = missing.err().map_or_else(|| "it is not kept".to_owned(), |error| error.to_string());
            tracing::error!(version = %task.version, cause, "the key of an encrypted lesson can't be had");
            let sentence = "The key that this lesson is encrypted with can't be had; the operators' log says why.";
            fail(ingest, &task.id, lease, "key_unavailable", sentence, Retry::Counted).await?;
            Ok(None)
        }
    }
}

/// A worker gave a task up. Refused media ends the version at once, anything else is tried again boundedly.
pub(crate) async fn fail(
    ingest: &Ingest,
    task: &Id,
    lease: &str,
    code: &str,
    detail: &str,
    retry: Retry,
) -> Result<(), IngestError> {
    let leased = leased(ingest, task, lease).await?;
    let mut tx = ingest.db.begin().await?;
    tx.lock("version", leased.version.as_str()).await?;
    let now = ingest.clock.unix_millis();
    let fate = queue::fail(&mut tx, task, lease, (code, detail), retry, &ingest.config.load_full().queue, now).await?;
    tracing::warn!(%task, kind = leased.kind, code, detail, attempt = leased.attempts, "a task failed");
    match fate {
        None => return Err(IngestError::LeaseLost),
        Some(Fate::Retried) => {}
        Some(Fate::Dead) => failure::fail_version(ingest, &mut tx, &leased.version, code, detail).await?,
    }
    tx.commit().await?;
    ingest.changed.notify_waiters();
    Ok(())
}

/// Takes tasks back whose workers fell silent before `now`, and ends what was tried often enough.
pub(crate) async fn expire_leases(ingest: &Ingest, now: i64) -> Result<(), IngestError> {
    let config = ingest.config.load_full();
    let mut tx = ingest.db.begin().await?;
    let versions = queue::overdue(&mut tx, &config.queue, now).await?;
    tx.commit().await?;
    let mut outcome = Ok(());
    for version in versions {
        outcome = outcome.and(expire_leases_of(ingest, &version, &config.queue, now).await);
    }
    outcome
}

/// The same for one version, in the order in which all others take its lock and then its rows.
async fn expire_leases_of(ingest: &Ingest, version: &Id, config: &queue::Config, now: i64) -> Result<(), IngestError> {
    let mut tx = ingest.db.begin().await?;
    tx.lock("version", version.as_str()).await?;
    if !queue::expire(&mut tx, version, config, now).await?.is_empty() {
        let sentence = "Making this recording failed again and again; the operators' log says more.";
        failure::fail_version(ingest, &mut tx, version, "media_crashed", sentence).await?;
    }
    if let Some(version) = catalog::version(&mut tx, version).await? {
        // Event streams of the other origins follow this number.
        catalog::bump_lesson_revision(&mut tx, &version.lesson).await?;
    }
    tx.commit().await?;
    ingest.changed.notify_waiters();
    Ok(())
}

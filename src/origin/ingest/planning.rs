//! What a probe found becomes a plan, and the plan becomes tasks.

use std::sync::Arc;

use lyceum_catalog::{self as catalog, SealedKey, Version, VersionState};
use lyceum_core::ids::{Id, random_bytes};
use lyceum_packaging::{self as packaging, MediaInfo, ObjectIndex, Plan, TaskSpec};
use lyceum_storage::db::Tx;
use lyceum_storage::queue::{self, NewTask};

use crate::ingest::context::Ingest;
use crate::ingest::error::IngestError;
use crate::ingest::{failure, json, publish};

/// Tasks that one transaction queues: other writers go in between.
const TASKS_PER_TRANSACTION: usize = 250;
/// Tasks that begin before this instant of a lesson are urgent, in milliseconds: they make it playable.
const URGENT_MS: u64 = 12_000;

/// A probe is done: plans the version, or fails it when the recording is refused.
pub(super) async fn record_probe(
    ingest: &Arc<Ingest>,
    task: &queue::Task,
    lease: &str,
    report: &MediaInfo,
) -> Result<(), IngestError> {
    let config = ingest.config.load_full();
    let longest = u64::try_from(config.recordings.duration.get().as_micros()).unwrap_or(u64::MAX);
    let checked = packaging::report::check(report, longest);
    // What the origin's own limits refuse, the worker's should have: it is told, beside the lesson.
    let excess = checked.as_ref().err().map(|refusal| refusal.detail.clone());
    let plan = checked.and_then(|()| packaging::plan(report, &config.ladder));
    let now = ingest.clock.unix_millis();
    let mut tx = ingest.db.begin().await?;
    tx.lock("version", task.version.as_str()).await?;
    if !queue::complete(&mut tx, &task.id, lease, now).await? {
        return Err(IngestError::LeaseLost);
    }
    let mut more = false;
    match plan {
        Err(refusal) => {
            failure::fail_version(ingest, &mut tx, &task.version, refusal.code.as_str(), &refusal.detail).await?;
        }
        Ok(plan) => more = record_plan(ingest, &mut tx, &task.version, report, plan, now).await?,
    }
    tx.commit().await?;
    ingest.changed.notify_waiters();
    if more {
        let (ingest, version) = (ingest.clone(), task.version.clone());
        // The worker need not wait for it; a crash before its end is made good by the sweep.
        tokio::spawn(async move {
            if let Err(error) = queue_rest(&ingest, &version).await {
                tracing::warn!(%version, %error, "tasks could not be queued; it will be tried again");
            }
        });
    }
    match excess {
        Some(sentence) => Err(IngestError::InvalidReport(sentence)),
        None => Ok(()),
    }
}

/// Queues what is left of a version's tasks, a transaction's worth at once. Can be repeated from any point, and done by two
/// at once.
pub(crate) async fn queue_rest(ingest: &Ingest, version: &Id) -> Result<(), IngestError> {
    let Some((_, plan)) = catalog::plan_of(&mut ingest.db.read().await?, version).await? else { return Ok(()) };
    let plan: Plan = json::decode("a plan", &plan)?;
    loop {
        let mut tx = ingest.db.begin().await?;
        tx.lock("version", version.as_str()).await?;
        let Some(row) = catalog::version(&mut tx, version).await? else { return Ok(()) };
        if row.tasks_left == 0 || row.state != VersionState::Transcoding {
            return Ok(());
        }
        let owner = catalog::lesson(&mut tx, &row.lesson).await?.map(|lesson| lesson.owner).unwrap_or_default();
        let since = row.started.unwrap_or(row.created);
        let left = queue_some(&mut tx, version, &owner, &plan, row.tasks_left, since).await?;
        tx.commit().await?;
        ingest.changed.notify_waiters();
        if left == 0 {
            return Ok(());
        }
    }
}

/// Queues the next of a plan's last `left` tasks; answers how many are left then.
async fn queue_some(
    tx: &mut Tx,
    version: &Id,
    owner: &str,
    plan: &Plan,
    left: u64,
    since: i64,
) -> Result<u64, IngestError> {
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    let next = plan.tasks.iter().skip(plan.tasks.len().saturating_sub(left)).take(TASKS_PER_TRANSACTION);
    for planned in next {
        let priority = if planned.first_ms < URGENT_MS { 1 } else { 2 };
        queue::add(tx, &new_task(version, owner, &planned.spec, priority, i64::from(planned.priority))?, since).await?;
    }
    let left = left.min(plan.tasks.len()).saturating_sub(TASKS_PER_TRANSACTION) as u64;
    catalog::set_tasks_left(tx, version, left).await?;
    Ok(left)
}

/// Records a plan and queues its first tasks; answers whether there are more.
async fn record_plan(
    ingest: &Ingest,
    tx: &mut Tx,
    version: &Id,
    report: &MediaInfo,
    mut plan: Plan,
    now: i64,
) -> Result<bool, IngestError> {
    let Some(row) = catalog::version(tx, version).await? else { return Ok(false) };
    let lesson = catalog::lesson(tx, &row.lesson).await?;
    let encrypt = lesson.as_ref().is_some_and(|lesson| lesson.encrypt);
    let key = if encrypt { Some(protect(ingest, &row, &mut plan)?) } else { None };
    let (media, text) = (json::encode(report)?, json::encode(&plan)?);
    let renditions = publish::renditions_json(&ObjectIndex::new(&plan, []))?;
    if !catalog::record_plan(tx, version, &media, &text, plan.duration_ms, &renditions, now).await? {
        return Ok(false);
    }
    let owner = lesson.map(|lesson| lesson.owner).unwrap_or_default();
    if let Some(key) = key {
        catalog::add_content_key(tx, &key, now).await?;
        catalog::add_audit_entry(tx, now, &owner, "content_key.create", key.id.as_str(), row.lesson.as_str()).await?;
    }
    let left = queue_some(tx, version, &owner, &plan, plan.tasks.len() as u64, now).await?;
    catalog::bump_lesson_revision(tx, &row.lesson).await?;
    tracing::info!(lesson = %row.lesson, %version, duration_ms = plan.duration_ms, tasks = plan.tasks.len(), "planned");
    Ok(left > 0)
}

/// Has a plan's segments encrypted under a new key, which is answered sealed.
fn protect(ingest: &Ingest, version: &Version, plan: &mut Plan) -> Result<SealedKey, IngestError> {
    let id = Id::random();
    // Relative to a track, so that a token in the path goes along.
    plan.protect(&format!("../keys/{id}")).map_err(|error| IngestError::Internal(error.to_string()))?;
    Ok(ingest.sealer.seal(&id, &version.lesson, &version.id, &random_bytes())?)
}

pub(super) fn new_task(
    version: &Id,
    owner: &str,
    spec: &TaskSpec,
    priority: i64,
    position: i64,
) -> Result<NewTask, IngestError> {
    Ok(NewTask {
        id: Id::random(),
        version: version.clone(),
        owner: owner.to_owned(),
        kind: spec.name(),
        spec: json::encode(spec)?,
        priority,
        position,
    })
}

//! What a probe found becomes a plan, and the plan becomes tasks.

use lyceum_catalog::{self as catalog, SealedKey, Version};
use lyceum_core::ids::{Id, random_bytes};
use lyceum_packaging::{self as packaging, MediaInfo, ObjectIndex, Plan, TaskSpec};
use lyceum_storage::db::Tx;
use lyceum_storage::queue::{self, NewTask};

use crate::ingest::context::Ingest;
use crate::ingest::error::IngestError;
use crate::ingest::{failure, json, publish};

/// Tasks that begin before this instant of a lesson are urgent, in milliseconds: they make it playable.
const URGENT_MS: u64 = 12_000;

/// A probe is done: plans the version, or fails it when the recording is refused.
pub(super) async fn record_probe(
    ingest: &Ingest,
    task: &queue::Task,
    lease: &str,
    report: &MediaInfo,
) -> Result<(), IngestError> {
    let plan = packaging::plan(report, &ingest.config.load_full().ladder);
    let now = ingest.clock.unix_millis();
    let mut tx = ingest.db.begin().await?;
    tx.lock("version", task.version.as_str()).await?;
    if !queue::complete(&mut tx, &task.id, lease, now).await? {
        return Err(IngestError::LeaseLost);
    }
    match plan {
        Err(refusal) => {
            failure::fail_version(ingest, &mut tx, &task.version, refusal.code.as_str(), &refusal.detail).await?;
        }
        Ok(plan) => record_plan(ingest, &mut tx, &task.version, report, plan, now).await?,
    }
    tx.commit().await?;
    ingest.changed.notify_waiters();
    Ok(())
}

async fn record_plan(
    ingest: &Ingest,
    tx: &mut Tx,
    version: &Id,
    report: &MediaInfo,
    mut plan: Plan,
    now: i64,
) -> Result<(), IngestError> {
    let Some(row) = catalog::version(tx, version).await? else { return Ok(()) };
    let lesson = catalog::lesson(tx, &row.lesson).await?;
    let encrypt = lesson.as_ref().is_some_and(|lesson| lesson.encrypt);
    let key = if encrypt { Some(protect(ingest, &row, &mut plan)?) } else { None };
    let (media, text) = (json::encode(report)?, json::encode(&plan)?);
    let renditions = publish::renditions_json(&ObjectIndex::new(&plan, []))?;
    if !catalog::record_plan(tx, version, &media, &text, plan.duration_ms, &renditions, now).await? {
        return Ok(());
    }
    let owner = lesson.map(|lesson| lesson.owner).unwrap_or_default();
    if let Some(key) = key {
        catalog::add_content_key(tx, &key, now).await?;
        catalog::add_audit_entry(tx, now, &owner, "content_key.create", key.id.as_str(), row.lesson.as_str()).await?;
    }
    for planned in &plan.tasks {
        let priority = if planned.first_ms < URGENT_MS { 1 } else { 2 };
        queue::add(tx, &new_task(version, &owner, &planned.spec, priority, i64::from(planned.priority))?, now).await?;
    }
    catalog::bump_lesson_revision(tx, &row.lesson).await?;
    tracing::info!(lesson = %row.lesson, %version, duration_ms = plan.duration_ms, tasks = plan.tasks.len(), "planned");
    Ok(())
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

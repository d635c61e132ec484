//! The queue: tasks under leases, with heartbeats, priorities, bounded retries with back-off, and an end with a reason.
//! `waiting → leased → done | dead | cancelled`; a lease that runs out goes back to `waiting`.
//!
//! A task is opaque JSON here. Every function works inside a transaction of its caller's, so that a task's
//! results are committed with its end or not at all. On PostgreSQL several origins lease concurrently (`SKIP LOCKED`).

use serde::Deserialize;

use lyceum_core::ids::Id;
use lyceum_core::units::{self, Span};

use crate::db::error::DbError;
use crate::db::tx::{Row, Tx};
use crate::db_args;

/// `[queue]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long a worker may be silent before its task is given to another. From 2s to 10m, default 30s.
    #[serde(deserialize_with = "units::span::<_, 2_000, 600_000>")]
    pub lease: Span,
    /// How often a task is tried in all. From 1 to 100, default 5.
    #[serde(deserialize_with = "units::number::<_, 1, 100>")]
    pub attempts: u64,
    /// The wait before the second try; it doubles with each further one. From 10ms to 10m, default 1s.
    #[serde(deserialize_with = "units::span::<_, 10, 600_000>")]
    pub backoff: Span,
    /// The longest such wait. From 10ms to 1h, default 1m.
    #[serde(deserialize_with = "units::span::<_, 10, 3_600_000>")]
    pub backoff_most: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self { lease: Span::secs(30), attempts: 5, backoff: Span::secs(1), backoff_most: Span::secs(60) }
    }
}

impl Config {
    fn lease_millis(&self) -> i64 {
        i64::try_from(self.lease.get().as_millis()).unwrap_or(i64::MAX)
    }

    /// The wait after `attempts` tries, in milliseconds.
    fn wait(&self, attempts: u64) -> i64 {
        let doublings = u32::try_from(attempts.saturating_sub(1).min(30)).unwrap_or(30);
        let wait = self.backoff.get().saturating_mul(1 << doublings).min(self.backoff_most.get());
        i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)
    }
}

/// What makes a task.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Its id.
    pub id: Id,
    /// The version of a lesson that it works on.
    pub version: Id,
    /// Whose work it is: workers are shared among owners.
    pub owner: String,
    /// A short name of what it does.
    pub kind: &'static str,
    /// What the worker gets, JSON.
    pub spec: String,
    /// Lower goes first.
    pub priority: i64,
    /// The order among tasks of one priority and one moment.
    pub position: i64,
}

/// A task under a lease.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its id.
    pub id: Id,
    /// The version of a lesson that it works on.
    pub version: Id,
    /// A short name of what it does.
    pub kind: String,
    /// What the worker gets, JSON.
    pub spec: String,
    /// How often it was leased, this time included.
    pub attempts: u64,
    /// Whether the worker should stop.
    pub cancel: bool,
}

/// What happens to a task that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It will be tried again.
    Retried,
    /// It is dead, with its reason.
    Dead,
}

/// A task that died, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Its id.
    pub id: Id,
    /// The version of a lesson that it worked on.
    pub version: Id,
    /// Why, as a code.
    pub code: String,
    /// Why, as a sentence.
    pub detail: String,
}

/// Adds a task.
pub async fn add(tx: &mut Tx, task: &NewTask, now: i64) -> Result<(), DbError> {
    tx.execute(
        "INSERT INTO tasks (id, version, owner, kind, spec, priority, position, state, attempts, not_before, progress,
         weight, cancel, created) VALUES ($1, $2, $3, $4, $5, $6, $7, 'waiting', 0, $8, 0.0, 1.0, 0, $8)",
        db_args![&task.id, &task.version, &task.owner, task.kind, &task.spec, task.priority, task.position, now],
    )
    .await
    .map(drop)
}

/// The next task, now leased under `lease`. Urgent ones first, then those of owners with less work under way, then the
/// oldest.
pub async fn lease(tx: &mut Tx, lease: &str, config: &Config, now: i64) -> Result<Option<Task>, DbError> {
    let sql = tx.choose(
        "SELECT id FROM tasks t WHERE state = 'waiting' AND not_before <= $1 ORDER BY priority,
         (SELECT COUNT(*) FROM tasks o WHERE o.state = 'leased' AND o.owner = t.owner), created, position LIMIT 1",
        "SELECT id FROM tasks t WHERE state = 'waiting' AND not_before <= $1 ORDER BY priority,
         (SELECT COUNT(*) FROM tasks o WHERE o.state = 'leased' AND o.owner = t.owner), created, position LIMIT 1
         FOR UPDATE SKIP LOCKED",
    );
    let Some(row) = tx.one(sql, db_args![now]).await? else { return Ok(None) };
    let id: Id = row.parse("id")?;
    let row = tx
        .one(
            "UPDATE tasks SET state = 'leased', attempts = attempts + 1, lease = $2, lease_until = $3, progress = 0.0
             WHERE id = $1 AND state = 'waiting' RETURNING id, version, kind, spec, attempts, cancel",
            db_args![&id, lease, now.saturating_add(config.lease_millis())],
        )
        .await?;
    row.as_ref().map(task_from).transpose()
}

/// Whether a task could be leased now.
pub async fn any_waiting(tx: &mut Tx, now: i64) -> Result<bool, DbError> {
    let sql = "SELECT id FROM tasks WHERE state = 'waiting' AND not_before <= $1 LIMIT 1";
    Ok(tx.one(sql, db_args![now]).await?.is_some())
}

fn task_from(row: &Row) -> Result<Task, DbError> {
    Ok(Task {
        id: row.parse("id")?,
        version: row.parse("version")?,
        kind: row.get("kind")?,
        spec: row.get("spec")?,
        attempts: row.unsigned("attempts")?,
        cancel: row.truth("cancel")?,
    })
}

/// The task, if `lease` holds it. A lease that has expired holds it until another worker leases it, so that no work is
/// lost to a clock.
pub async fn leased(tx: &mut Tx, id: &Id, lease: &str) -> Result<Option<Task>, DbError> {
    let row = tx
        .one(
            "SELECT id, version, kind, spec, attempts, cancel FROM tasks
             WHERE id = $1 AND lease = $2 AND state = 'leased'",
            db_args![id, lease],
        )
        .await?;
    row.as_ref().map(task_from).transpose()
}

/// Renews the lease. `None` when it was lost.
pub async fn heartbeat(
    tx: &mut Tx,
    id: &Id,
    lease: &str,
    progress: f64,
    config: &Config,
    now: i64,
) -> Result<Option<Task>, DbError> {
    let row = tx
        .one(
            "UPDATE tasks SET lease_until = $3, progress = $4 WHERE id = $1 AND lease = $2 AND state = 'leased'
             RETURNING id, version, kind, spec, attempts, cancel",
            db_args![id, lease, now.saturating_add(config.lease_millis()), progress.clamp(0.0, 1.0)],
        )
        .await?;
    row.as_ref().map(task_from).transpose()
}

/// Completes a task. Its lease is kept, so that a worker whose answer was lost may repeat this. Answers false when the
/// lease was lost.
pub async fn complete(tx: &mut Tx, id: &Id, lease: &str, now: i64) -> Result<bool, DbError> {
    let changed = tx
        .execute(
            "UPDATE tasks SET state = 'done', progress = 1.0, finished = COALESCE(finished, $3), lease_until = NULL
             WHERE id = $1 AND lease = $2 AND state IN ('leased', 'done')",
            db_args![id, lease, now],
        )
        .await?;
    Ok(changed > 0)
}

/// Whether a task that failed may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not: it would fail again.
    Never,
    /// As often as configured: it may be the task's own fault.
    Counted,
    /// Without limit: the environment failed (a full or unavailable store, a worker that was told to stop), and a lesson
    /// must not fail because of that.
    Uncounted,
}

/// An uncounted try waits as long as one after this many tries.
const UNCOUNTED_WAIT: u64 = 4;

/// Fails a task. `None` when the lease was lost.
pub async fn fail(
    tx: &mut Tx,
    id: &Id,
    lease: &str,
    reason: (&str, &str),
    retry: Retry,
    config: &Config,
    now: i64,
) -> Result<Option<Fate>, DbError> {
    let Some(task) = leased(tx, id, lease).await? else { return Ok(None) };
    let (again, wait) = match retry {
        Retry::Never => (false, 0),
        Retry::Counted => (task.attempts < config.attempts, config.wait(task.attempts)),
        Retry::Uncounted => (true, config.wait(UNCOUNTED_WAIT)),
    };
    let again = again && !task.cancel;
    end_attempt(tx, id, reason, again, now.saturating_add(wait), now).await?;
    if again && retry == Retry::Uncounted {
        let sql = "UPDATE tasks SET attempts = attempts - 1 WHERE id = $1 AND attempts > 0";
        tx.execute(sql, db_args![id]).await?;
    }
    Ok(Some(if again { Fate::Retried } else { Fate::Dead }))
}

async fn end_attempt(
    tx: &mut Tx,
    id: &Id,
    (code, detail): (&str, &str),
    again: bool,
    not_before: i64,
    now: i64,
) -> Result<(), DbError> {
    tx.execute(
        "UPDATE tasks SET state = $2, not_before = $3, lease = NULL, lease_until = NULL, error_code = $4,
         error_detail = $5, finished = $6 WHERE id = $1",
        db_args![id, if again { "waiting" } else { "dead" }, not_before, code, detail, (!again).then_some(now),],
    )
    .await
    .map(drop)
}

/// The versions that have tasks whose leases have expired, a hundred at most. Locks none of them.
pub async fn overdue(tx: &mut Tx, config: &Config, now: i64) -> Result<Vec<Id>, DbError> {
    forget_jumps(tx, config, now).await?;
    let sql = "SELECT DISTINCT version FROM tasks WHERE state = 'leased' AND lease_until <= $1 LIMIT 100";
    tx.all(sql, db_args![now]).await?.iter().map(|row| row.parse("version")).collect()
}

/// Takes back a version's tasks whose leases have expired; answers those that have no tries left and are dead now. The
/// caller holds the version's lock, so that no worker's report comes between.
pub async fn expire(tx: &mut Tx, version: &Id, config: &Config, now: i64) -> Result<Vec<Dead>, DbError> {
    let sql = tx.choose(
        "SELECT id, version, attempts, cancel FROM tasks WHERE version = $1 AND state = 'leased' AND lease_until <= $2",
        "SELECT id, version, attempts, cancel FROM tasks WHERE version = $1 AND state = 'leased' AND lease_until <= $2
         FOR UPDATE SKIP LOCKED",
    );
    let mut dead = Vec::new();
    for row in tx.all(sql, db_args![version, now]).await? {
        let (id, attempts): (Id, _) = (row.parse("id")?, row.unsigned("attempts")?);
        let again = attempts < config.attempts && !row.truth("cancel")?;
        let (code, detail) = ("worker_lost", format!("{attempts} workers fell silent over this task"));
        end_attempt(tx, &id, (code, &detail), again, now.saturating_add(config.wait(attempts)), now).await?;
        if !again {
            dead.push(Dead { id, version: row.parse("version")?, code: code.to_owned(), detail });
        }
    }
    Ok(dead)
}

/// After the clock was set back, some instants lie further ahead than any wait can: those are brought forward. After it
/// was set forward, the caller delays [`expire`] until every living worker has sent a heartbeat.
async fn forget_jumps(tx: &mut Tx, config: &Config, now: i64) -> Result<(), DbError> {
    let lease = config.lease_millis();
    tx.execute(
        "UPDATE tasks SET lease_until = $1 WHERE state = 'leased' AND lease_until > $2",
        db_args![now.saturating_add(lease), now.saturating_add(lease.saturating_mul(2))],
    )
    .await?;
    let longest = i64::try_from(config.backoff_most.get().as_millis()).unwrap_or(i64::MAX);
    tx.execute(
        "UPDATE tasks SET not_before = $1 WHERE state = 'waiting' AND not_before > $2",
        db_args![now, now.saturating_add(longest.saturating_mul(2))],
    )
    .await
    .map(drop)
}

/// Cancels all of a version's tasks: waiting ones at once, leased ones with their next heartbeat.
pub async fn cancel(tx: &mut Tx, version: &Id, now: i64) -> Result<(), DbError> {
    tx.execute(
        "UPDATE tasks SET state = 'cancelled', finished = $2 WHERE version = $1 AND state = 'waiting'",
        db_args![version, now],
    )
    .await?;
    tx.execute("UPDATE tasks SET cancel = 1 WHERE version = $1 AND state = 'leased'", db_args![version]).await.map(drop)
}

/// Queues a version's ended tasks again, each with all its tries: the dead and cancelled ones, or, where there are none,
/// those that are done. Answers how many there are to do.
pub async fn revive(tx: &mut Tx, version: &Id, now: i64) -> Result<u64, DbError> {
    tx.execute("UPDATE tasks SET cancel = 0 WHERE version = $1 AND state = 'leased'", db_args![version]).await?;
    for (one, other) in [("dead", "cancelled"), ("done", "done")] {
        tx.execute(
            "UPDATE tasks SET state = 'waiting', attempts = 0, not_before = $2, lease = NULL, lease_until = NULL,
             progress = 0.0, cancel = 0, error_code = NULL, error_detail = NULL, finished = NULL
             WHERE version = $1 AND state IN ($3, $4)",
            db_args![version, now, one, other],
        )
        .await?;
        let open = open_tasks(tx, version).await?;
        if open > 0 {
            return Ok(open);
        }
    }
    Ok(0)
}

/// How many of a version's tasks are waiting or leased.
pub async fn open_tasks(tx: &mut Tx, version: &Id) -> Result<u64, DbError> {
    let row = tx
        .one(
            "SELECT COUNT(*) AS open FROM tasks WHERE version = $1 AND state IN ('waiting', 'leased')",
            db_args![version],
        )
        .await?;
    row.map_or(Ok(0), |row| row.unsigned("open"))
}

/// How many tasks are in each state, for the metrics.
pub async fn depth(tx: &mut Tx) -> Result<Vec<(String, u64)>, DbError> {
    let rows = tx
        .all(
            "SELECT state, COUNT(*) AS tasks FROM tasks WHERE state IN ('waiting', 'leased', 'dead') GROUP BY state",
            db_args![],
        )
        .await?;
    rows.iter().map(|row| Ok((row.get("state")?, row.unsigned("tasks")?))).collect()
}

/// Forgets the tasks of a version.
pub async fn forget(tx: &mut Tx, version: &Id) -> Result<(), DbError> {
    tx.execute("DELETE FROM tasks WHERE version = $1", db_args![version]).await.map(drop)
}

#[cfg(test)]
mod tests;

//! The background work of an origin: goes on with what a crash interrupted, ends what has expired, removes what was
//! deleted. Every origin does it; each step can be repeated, and done by two origins at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use lyceum_catalog as catalog;
use lyceum_core::ids::Id;
use lyceum_core::time::{Instant, monotonic};
use lyceum_storage::queue;

use crate::ingest::error::IngestError;
use crate::ingest::{cleanup, intake, planning, publish, tasks};
use crate::state::App;

/// Time between two rounds. Requests do all of the usual work; a round finds something only after a crash or an expiry.
const ROUND_INTERVAL: Duration = Duration::from_millis(1000);
/// Rounds between two readings of the key directories and two measurements.
const ROUNDS_PER_MEASUREMENT: u64 = 5;
/// Rounds between two removals of what is too old.
const ROUNDS_PER_EXPIRY: u64 = 60;
/// Rows that one step takes in a round.
const ROWS_PER_STEP: i64 = 50;
/// Sessions that end with their entitlement in one round.
const SESSIONS_PER_ROUND: i64 = 1000;

/// Takes back the tasks of silent workers, and runs rounds, until the origin drains. A round that waits for a store
/// keeps no task from another worker.
pub(super) async fn run(app: Arc<App>) {
    let mut ticks = interval(ROUND_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut round: u64 = 0;
    let mut clock_watch = ClockWatch::new(app.clock.unix_millis(), monotonic());
    let (leases, rounds) = (Report::default(), Arc::new(Report::default()));
    let mut under_way: Option<JoinHandle<()>> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.shutdown.draining() => return,
        }
        let (wall, now) = (app.clock.unix_millis(), monotonic());
        clock_watch.observe(wall, now);
        if clock_watch.allows_lease_expiry(now, app.config().queue.lease.get()) {
            leases.tell(tasks::expire_leases(&app.ingest, wall).await);
        }
        if under_way.as_ref().is_some_and(|round| !round.is_finished()) {
            continue;
        }
        let due = Due {
            now: wall,
            entitlements: clock_watch.allows_revocation(now),
            ages: round.is_multiple_of(ROUNDS_PER_EXPIRY) && clock_watch.allows_removal(now),
        };
        let (app, report) = (app.clone(), rounds.clone());
        under_way = Some(tokio::spawn(async move { report.tell(run_round(&app, round, due).await) }));
        round = round.wrapping_add(1);
    }
}

/// What one round may end because its time is over.
struct Due {
    /// The wall clock at the start of the round, in milliseconds since the Unix epoch.
    now: i64,
    /// Whether sessions end whose entitlement has ended.
    entitlements: bool,
    /// Whether what is too old is removed.
    ages: bool,
}

/// Logs what fails; of a database or a store that does not answer, the first time alone.
#[derive(Default)]
struct Report {
    is_away: AtomicBool,
}

impl Report {
    fn tell(&self, outcome: Result<(), IngestError>) {
        let away = outcome.as_ref().is_err_and(IngestError::is_transient);
        let was_away = self.is_away.swap(away, Ordering::Relaxed);
        if let Err(error) = outcome
            && !(away && was_away)
        {
            tracing::warn!(%error, "a round of the background work failed in part; the next one tries again");
        }
    }
}

/// Compares the wall clock with the monotonic one. After a jump, nothing is ended or removed for its age until a while
/// has passed: a clock that is wrong for a minute must cost nobody an upload, and no worker its task.
struct ClockWatch {
    /// Both clocks at the last observation; the wall clock in milliseconds since the Unix epoch.
    wall: i64,
    monotonic: Instant,
    /// The start of the watch or the last jump: a machine may have started with a clock that is wrong.
    suspect_since: Instant,
    last_jump: Option<Instant>,
}

/// The least difference between the clocks' advances that is a jump, in milliseconds. A running clock is adjusted by less.
const MIN_JUMP_MS: i64 = 2_000;
/// How long no session ends with its entitlement after a jump: a revocation can't be taken back.
const REVOCATION_PAUSE: Duration = Duration::from_secs(60);
/// How long nothing is removed for its age after a jump.
const REMOVAL_PAUSE: Duration = Duration::from_secs(15 * 60);

impl ClockWatch {
    fn new(wall: i64, now: Instant) -> Self {
        Self { wall, monotonic: now, suspect_since: now, last_jump: None }
    }

    /// Compares how far both clocks went since the last observation.
    fn observe(&mut self, wall: i64, now: Instant) {
        let passed = i64::try_from(now.duration_since(self.monotonic).as_millis()).unwrap_or(i64::MAX);
        let jumped = wall.saturating_sub(self.wall).saturating_sub(passed);
        if jumped.saturating_abs() > MIN_JUMP_MS {
            tracing::warn!(
                milliseconds = jumped,
                "the clock jumped; nothing is removed for its age in the next {REMOVAL_PAUSE:?}"
            );
            self.suspect_since = now;
            self.last_jump = Some(now);
        }
        (self.wall, self.monotonic) = (wall, now);
    }

    /// Whether what is too old may be removed.
    fn allows_removal(&self, now: Instant) -> bool {
        now.duration_since(self.suspect_since) > REMOVAL_PAUSE
    }

    /// Whether sessions may be revoked because the time of their entitlement is over.
    fn allows_revocation(&self, now: Instant) -> bool {
        self.last_jump.is_none_or(|at| now.duration_since(at) > REVOCATION_PAUSE)
    }

    /// Whether a silent worker may lose its task: within one lease after a jump, each worker that lives has sent a
    /// heartbeat that is dated by the new clock.
    fn allows_lease_expiry(&self, now: Instant, lease: Duration) -> bool {
        self.last_jump.is_none_or(|at| now.duration_since(at) > lease)
    }
}

/// One round. A step that fails keeps no other from being done; answers the first error.
async fn run_round(app: &Arc<App>, round: u64, due: Due) -> Result<(), IngestError> {
    let mut outcome = if due.entitlements { end_lapsed_sessions(app, due.now).await } else { Ok(()) };
    for upload in app.uploads.whole_but_open(ROWS_PER_STEP).await? {
        outcome = outcome.and(intake::take_upload(&app.ingest, &upload).await);
    }
    for upload in app.uploads.to_concatenate(ROWS_PER_STEP).await? {
        // Copying may take long; the upload is marked as being written, so that the next round leaves it.
        let app = app.clone();
        tokio::spawn(async move {
            if let Err(error) = intake::join(&app.ingest, &upload).await {
                tracing::warn!(%upload, %error, "an upload's parts could not be concatenated; it will be tried again");
            }
        });
    }
    for version in catalog::partly_queued_versions(&mut app.db.read().await?, ROWS_PER_STEP).await? {
        outcome = outcome.and(planning::queue_rest(&app.ingest, &version).await);
    }
    for version in unfinished(app).await? {
        outcome = outcome.and(publish::finish(&app.ingest, &version).await);
    }
    let removed = catalog::lessons_to_remove(&mut app.db.read().await?, ROWS_PER_STEP).await?;
    for lesson in removed {
        outcome = outcome.and(cleanup::remove_lesson(&app.ingest, &lesson).await);
    }
    for course in catalog::courses_to_remove(&mut app.db.read().await?, ROWS_PER_STEP).await? {
        outcome = outcome.and(remove_course(app, &course).await);
    }
    if round.is_multiple_of(ROUNDS_PER_MEASUREMENT) {
        let sealer = app.sealer.clone();
        let _ = tokio::task::spawn_blocking(move || sealer.reload()).await;
        outcome = outcome.and(reseal(app).await);
        app.signing_keys.reload(&app.config().tokens).await;
        outcome = outcome.and(measure(app).await);
    }
    if due.ages {
        outcome = outcome.and(remove_expired(app).await);
    }
    outcome
}

/// Ends playback of what was bought until now.
async fn end_lapsed_sessions(app: &App, now: i64) -> Result<(), IngestError> {
    if !catalog::any_lapsed_session(&mut app.db.read().await?, now).await? {
        return Ok(());
    }
    let mut tx = app.db.begin().await?;
    let ended = catalog::revoke_lapsed_sessions(&mut tx, now, SESSIONS_PER_ROUND).await?;
    tx.commit().await?;
    if ended > 0 {
        app.revoked.notify_waiters();
    }
    Ok(())
}

/// Versions whose tasks are all done but that are not ready: a crash came between.
async fn unfinished(app: &App) -> Result<Vec<Id>, IngestError> {
    let mut tx = app.db.read().await?;
    let mut found = Vec::new();
    for id in catalog::unfinished_versions(&mut tx, ROWS_PER_STEP).await? {
        if queue::open_tasks(&mut tx, &id).await? == 0 {
            found.push(id);
        }
    }
    Ok(found)
}

/// Deletes more lessons of a deleted course, and at last the course.
async fn remove_course(app: &App, course: &Id) -> Result<(), IngestError> {
    let mut tx = app.db.begin().await?;
    // Held by whoever adds a lesson: none can be added after the last one is deleted.
    tx.lock("course", course.as_str()).await?;
    let more = cleanup::delete_lessons_of(&app.ingest, &mut tx, "origin", course).await?;
    tx.commit().await?;
    if more {
        app.revoked.notify_waiters();
    }
    Ok(())
}

/// Seals with the newest sealing key what an older one has sealed, so that the older file may be removed.
async fn reseal(app: &App) -> Result<(), IngestError> {
    let found = catalog::keys_not_sealed_by(&mut app.db.read().await?, &app.sealer.name(), ROWS_PER_STEP).await?;
    for old in found {
        let key = app.sealer.unseal(&old)?;
        let new = app.sealer.seal(&old.id, &old.lesson, &old.version, &key)?;
        let mut tx = app.db.begin().await?;
        catalog::reseal(&mut tx, &new, &old.sealed_by).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Sets the gauges of tasks and lessons.
async fn measure(app: &App) -> Result<(), IngestError> {
    let depth = queue::depth(&mut app.db.read().await?).await?;
    for state in ["waiting", "leased", "dead"] {
        let tasks = depth.iter().find(|(name, _)| name == state).map_or(0, |(_, tasks)| *tasks);
        app.metrics.tasks.with_label_values(&[state]).set(i64::try_from(tasks).unwrap_or(i64::MAX));
    }
    let lessons = catalog::lessons_by_state(&mut app.db.read().await?).await?;
    for state in ["awaiting_upload", "queued", "transcoding", "ready", "failed"] {
        let found = lessons.iter().find(|(name, _)| name == state).map_or(0, |(_, lessons)| *lessons);
        app.metrics.lessons.with_label_values(&[state]).set(i64::try_from(found).unwrap_or(i64::MAX));
    }
    Ok(())
}

/// Ends or removes what is too old: uploads, logins, secrets, sessions, remembered answers, versions that were replaced.
async fn remove_expired(app: &App) -> Result<(), IngestError> {
    let now = app.clock.unix_millis();
    for id in app.uploads.overdue(ROWS_PER_STEP).await? {
        cleanup::end_upload(&app.ingest, &id, "origin").await?;
    }
    for upload in app.uploads.to_clear(ROWS_PER_STEP).await? {
        app.uploads.clear(&upload).await?;
    }
    cleanup::remove_late(&app.ingest, ROWS_PER_STEP).await?;
    app.uploads.forget_old().await?;
    let mut tx = app.db.begin().await?;
    catalog::drop_expired_secrets(&mut tx, now).await?;
    catalog::drop_expired_sessions(&mut tx, now).await?;
    catalog::drop_expired_events(&mut tx, now).await?;
    catalog::drop_expired_answers(&mut tx, now).await?;
    tx.commit().await?;
    // A token lives for `tokens.ttl`, or for four times its lesson.
    let longest = app.config().recordings.duration.get().saturating_mul(4).max(app.config().tokens.ttl.get());
    let life = i64::try_from(longest.as_millis()).unwrap_or(i64::MAX);
    let retired =
        catalog::versions_to_remove(&mut app.db.read().await?, now.saturating_sub(life), ROWS_PER_STEP).await?;
    for (lesson, version) in retired {
        cleanup::remove_version(&app.ingest, &lesson, &version).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_removed_for_a_while_after_the_clock_jumped() {
        let start = monotonic();
        let (minute, lease) = (60_000, Duration::from_secs(30));
        for jump in [-3_600_000, 100 * 24 * 3_600_000, minute] {
            let mut watch = ClockWatch::new(0, start);
            let at = |minutes: u64| start + Duration::from_secs(minutes * 60);
            let mut observe = |wall: i64, minutes: u64| {
                watch.observe(wall, at(minutes));
                (watch.allows_removal(at(minutes)), watch.allows_lease_expiry(at(minutes), lease))
            };
            assert_eq!(observe(minute, 1), (false, true), "a machine may start with a wrong clock");
            // As much as a running clock is ever adjusted by.
            assert_eq!(observe(16 * minute + 500, 16), (true, true));
            assert_eq!(observe(17 * minute + jump, 17), (false, false), "it jumped by {jump} ms");
            assert_eq!(observe(18 * minute + jump, 18), (false, true), "a while after it");
            assert_eq!(observe(32 * minute + jump, 32), (false, true));
            assert_eq!(observe(33 * minute + jump, 33), (true, true), "it goes on as it does now");
            // Set right again: that is a jump too.
            assert_eq!(observe(34 * minute, 34), (false, false));
        }
    }
}

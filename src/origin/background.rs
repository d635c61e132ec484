//! The background work of an origin: takes up what a crash left, ends what is over, removes what was deleted. Every
//! origin sweeps; each step can be repeated and done by two at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::api::lessons;
use crate::api::refusal::Refusal;
use crate::state::App;
use lyceum_catalog as catalog;
use lyceum_core::ids::Id;
use lyceum_core::time::{Instant, monotonic};
use lyceum_storage::queue;

/// How often the sweep looks. What it finds is rare; the usual way needs none of it.
const EVERY: Duration = Duration::from_millis(1000);
/// How often, in sweeps, what only grows slowly is cleared away.
const SELDOM: u64 = 60;
/// Rows that one step takes.
const AT_ONCE: i64 = 50;

/// Runs until the origin ends.
pub(super) async fn run(app: Arc<App>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut round: u64 = 0;
    let mut steady = Steady::new(app.clock.unix_millis(), monotonic());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.shutdown.draining() => return,
        }
        let (wall, now) = (app.clock.unix_millis(), monotonic());
        steady.look(wall, now);
        let due = Due {
            now: wall,
            leases: steady.ends_leases(now, app.config().queue.lease.get()),
            ages: round.is_multiple_of(SELDOM) && steady.removes(now),
        };
        let swept = sweep(&app, round, due).await;
        let healthy = match &swept {
            Ok(()) => true,
            Err(Refusal::Db(error)) => !error.is_transient(),
            Err(Refusal::Store(error)) => !error.is_transient(),
            Err(_) => true,
        };
        if (app.healthy.swap(healthy, Ordering::Relaxed) || healthy)
            && let Err(error) = swept
        {
            tracing::warn!(%error, "the background work is interrupted; it will be tried again");
        }
        round = round.wrapping_add(1);
    }
}

/// What one sweep may end because its time is over.
struct Due {
    /// The wall clock, as it was looked at.
    now: i64,
    leases: bool,
    ages: bool,
}

/// Whether the wall clock goes as time does. What is ended or removed because its time is over waits for a while when it
/// jumped: a clock that is wrong for a minute must cost nobody an upload, and no worker its task.
struct Steady {
    wall: i64,
    since: Instant,
    /// When this began to look, or saw a jump: a machine may have started with a clock that is wrong.
    doubtful: Instant,
    jumped: Option<Instant>,
}

/// A difference, in milliseconds, that no adjustment of a running clock makes between two looks.
const JUMP: i64 = 2_000;
/// How long nothing is removed after one.
const SUSPICION: Duration = Duration::from_secs(15 * 60);

impl Steady {
    fn new(wall: i64, now: Instant) -> Self {
        Self { wall, since: now, doubtful: now, jumped: None }
    }

    /// Looks at both clocks.
    fn look(&mut self, wall: i64, now: Instant) {
        let passed = i64::try_from(now.duration_since(self.since).as_millis()).unwrap_or(i64::MAX);
        let jumped = wall.saturating_sub(self.wall).saturating_sub(passed);
        if jumped.saturating_abs() > JUMP {
            tracing::warn!(
                milliseconds = jumped,
                "the clock jumped; nothing is removed for its age in the next {SUSPICION:?}"
            );
            self.doubtful = now;
            self.jumped = Some(now);
        }
        (self.wall, self.since) = (wall, now);
    }

    /// Whether what is old may be removed.
    fn removes(&self, now: Instant) -> bool {
        now.duration_since(self.doubtful) > SUSPICION
    }

    /// Whether a worker that is silent may lose its task: within a lease's time each that lives is heard by the new clock.
    fn ends_leases(&self, now: Instant, lease: Duration) -> bool {
        self.jumped.is_none_or(|at| now.duration_since(at) > lease)
    }
}

/// One thing that can't be done keeps nothing else from being done; the first reason is told.
async fn sweep(app: &Arc<App>, round: u64, due: Due) -> Result<(), Refusal> {
    let mut outcome = if due.leases { app.ingest.expire_leases(due.now).await } else { Ok(()) };
    for upload in app.uploads.whole_but_open(AT_ONCE).await? {
        outcome = outcome.and(app.ingest.take_upload(&upload).await);
    }
    for upload in app.uploads.to_join(AT_ONCE).await? {
        // Copying may take long; its writer's mark keeps the next round from beginning it again.
        let app = app.clone();
        tokio::spawn(async move {
            if let Err(error) = app.ingest.join(&upload).await {
                tracing::warn!(%upload, %error, "parts could not be joined; it will be tried again");
            }
        });
    }
    for version in unfinished(app).await? {
        outcome = outcome.and(app.ingest.finish(&version).await);
    }
    let removed = catalog::lessons_to_remove(&mut app.db.read().await?, AT_ONCE).await?;
    for lesson in removed {
        outcome = outcome.and(app.ingest.remove_lesson(&lesson).await);
    }
    for course in catalog::courses_to_remove(&mut app.db.read().await?, AT_ONCE).await? {
        outcome = outcome.and(remove_course(app, &course).await);
    }
    if round.is_multiple_of(5) {
        let sealer = app.sealer.clone();
        let _ = tokio::task::spawn_blocking(move || sealer.look()).await;
        outcome = outcome.and(reseal(app).await);
        app.signing_keys.reload(&app.config().tokens).await;
        outcome = outcome.and(measure(app).await);
    }
    if due.ages {
        outcome = outcome.and(seldom(app).await);
    }
    outcome
}

/// Versions whose tasks are all done but that nobody called ready.
async fn unfinished(app: &App) -> Result<Vec<Id>, Refusal> {
    let mut tx = app.db.read().await?;
    let mut found = Vec::new();
    for id in catalog::unfinished_versions(&mut tx, AT_ONCE).await? {
        if queue::open_tasks(&mut tx, &id).await? == 0 {
            found.push(id);
        }
    }
    Ok(found)
}

/// The rest of a deleted course's lessons, then the course.
async fn remove_course(app: &App, course: &Id) -> Result<(), Refusal> {
    let mut tx = app.db.begin().await?;
    // Those who add a lesson hold this too: none comes in behind the last one.
    tx.lock("course", course.as_str()).await?;
    let more = lessons::delete_some(app, &mut tx, "origin", course).await?;
    tx.commit().await?;
    if more {
        app.revoked.notify_waiters();
    }
    Ok(())
}

/// Seals again what an older sealing key has sealed, so that its file may go.
async fn reseal(app: &App) -> Result<(), Refusal> {
    let found = catalog::keys_sealed_otherwise(&mut app.db.read().await?, &app.sealer.name(), AT_ONCE).await?;
    for old in found {
        let key = app.sealer.unseal(&old)?;
        let new = app.sealer.seal(&old.id, &old.lesson, &old.version, &key)?;
        let mut tx = app.db.begin().await?;
        catalog::reseal(&mut tx, &new, &old.sealed_by).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn measure(app: &App) -> Result<(), Refusal> {
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
    app.store.ping().await?;
    Ok(())
}

async fn seldom(app: &App) -> Result<(), Refusal> {
    let now = app.clock.unix_millis();
    for id in app.uploads.overdue(AT_ONCE).await? {
        app.ingest.end_upload(&id, "origin").await?;
    }
    app.uploads.forget_old().await?;
    let mut tx = app.db.begin().await?;
    catalog::drop_expired_logins(&mut tx, now).await?;
    catalog::drop_expired_sessions(&mut tx, now).await?;
    catalog::forget_answers(&mut tx, now).await?;
    tx.commit().await?;
    // A token may live for its time to live, or four times its lesson: a day's lesson is longer than any.
    let life = i64::try_from(app.config().tokens.ttl.get().as_millis()).unwrap_or(i64::MAX).max(4 * 24 * 3_600_000);
    let retired = catalog::versions_to_retire(&mut app.db.read().await?, now.saturating_sub(life), AT_ONCE).await?;
    for (lesson, version) in retired {
        app.ingest.remove_version(&lesson, &version).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_removed_for_a_while_after_the_clock_has_jumped() {
        let start = monotonic();
        let (minute, lease) = (60_000, Duration::from_secs(30));
        for jump in [-3_600_000, 100 * 24 * 3_600_000, minute] {
            let mut steady = Steady::new(0, start);
            let at = |minutes: u64| start + Duration::from_secs(minutes * 60);
            let mut look = |wall: i64, minutes: u64| {
                steady.look(wall, at(minutes));
                (steady.removes(at(minutes)), steady.ends_leases(at(minutes), lease))
            };
            assert_eq!(look(minute, 1), (false, true), "a machine may start with a wrong clock");
            // As much as a running clock is ever adjusted by.
            assert_eq!(look(16 * minute + 500, 16), (true, true));
            assert_eq!(look(17 * minute + jump, 17), (false, false), "it jumped by {jump} ms");
            assert_eq!(look(18 * minute + jump, 18), (false, true), "a while after it");
            assert_eq!(look(32 * minute + jump, 32), (false, true));
            assert_eq!(look(33 * minute + jump, 33), (true, true), "it goes on as it does now");
            // Set right again: that is a jump too.
            assert_eq!(look(34 * minute, 34), (false, false));
        }
    }
}

//! The background work of an origin: takes up what a crash left, ends what is over, removes what was deleted. Every
//! origin sweeps; each step can be repeated and done by two at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::App;
use super::error::Refusal;
use crate::catalog;
use crate::jobs;

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
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.shutdown.draining() => return,
        }
        let swept = sweep(&app, round).await;
        let healthy = match &swept {
            Ok(()) => true,
            Err(Refusal::Db(error)) => !error.is_transient(),
            Err(Refusal::Store(error)) => !error.is_transient(),
            Err(_) => true,
        };
        if app.healthy.swap(healthy, Ordering::Relaxed) || healthy {
            if let Err(error) = swept {
                tracing::warn!(%error, "the background work is interrupted; it will be tried again");
            }
        }
        round = round.wrapping_add(1);
    }
}

/// One thing that can't be done keeps nothing else from being done; the first reason is told.
async fn sweep(app: &Arc<App>, round: u64) -> Result<(), Refusal> {
    let mut outcome = app.ingest.expire_leases().await;
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
    if round % 5 == 0 {
        app.keys.look(app).await;
        outcome = outcome.and(measure(app).await);
    }
    if round % SELDOM == 0 {
        outcome = outcome.and(seldom(app).await);
    }
    outcome
}

/// Versions whose tasks are all done but that nobody called ready.
async fn unfinished(app: &App) -> Result<Vec<crate::ids::Id>, Refusal> {
    let mut tx = app.db.read().await?;
    let mut found = Vec::new();
    for id in catalog::unfinished_versions(&mut tx, AT_ONCE).await? {
        if jobs::open_tasks(&mut tx, &id).await? == 0 {
            found.push(id);
        }
    }
    Ok(found)
}

async fn measure(app: &App) -> Result<(), Refusal> {
    let depth = jobs::depth(&mut app.db.read().await?).await?;
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
        app.ingest.end_upload(&id).await?;
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

use super::*;
use crate::db::{Db, PoolConfig, Url};

async fn database() -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&Url::Sqlite(dir.path().join("x.db")), &PoolConfig::default()).await.unwrap();
    (dir, db)
}

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

fn task(name: &str, owner: &str, priority: i64, position: i64) -> NewTask {
    NewTask {
        id: id(name),
        version: id("v"),
        owner: owner.to_owned(),
        kind: "video",
        spec: "{}".to_owned(),
        priority,
        position,
    }
}

/// Expires the leases of all versions.
async fn expire_all(tx: &mut Tx, config: &Config, now: i64) -> Result<Vec<Dead>, DbError> {
    let mut dead = Vec::new();
    for version in overdue(tx, config, now).await? {
        dead.extend(expire(tx, &version, config, now).await?);
    }
    Ok(dead)
}

#[tokio::test]
async fn urgent_tasks_go_first_and_owners_take_turns() {
    let (_dir, db) = database().await;
    let mut tx = db.begin().await.unwrap();
    for new in [task("a1", "ada", 2, 1), task("a2", "ada", 2, 2), task("b1", "bob", 2, 3), task("c0", "cy", 0, 9)] {
        add(&mut tx, &new, 0).await.unwrap();
    }
    let mut order = Vec::new();
    while let Some(task) = lease(&mut tx, "x", &Config::default(), 0).await.unwrap() {
        order.push(task.id.to_string());
    }
    assert_eq!(order, ["c0", "a1", "b1", "a2"]);
}

#[tokio::test]
async fn a_silent_workers_task_goes_to_another_and_the_first_one_lost_it() {
    let (_dir, db) = database().await;
    let config = Config::default();
    let mut tx = db.begin().await.unwrap();
    add(&mut tx, &task("t", "ada", 0, 0), 0).await.unwrap();
    lease(&mut tx, "one", &config, 0).await.unwrap().unwrap();
    assert!(heartbeat(&mut tx, &id("t"), "one", 0.5, &config, 20_000).await.unwrap().is_some());
    assert!(expire_all(&mut tx, &config, 49_999).await.unwrap().is_empty());
    assert!(leased(&mut tx, &id("t"), "one").await.unwrap().is_some());
    expire_all(&mut tx, &config, 50_000).await.unwrap();
    assert!(leased(&mut tx, &id("t"), "one").await.unwrap().is_none());
    assert!(lease(&mut tx, "two", &config, 50_999).await.unwrap().is_none());
    let second = lease(&mut tx, "two", &config, 51_000).await.unwrap().unwrap();
    assert_eq!(second.attempts, 2);
    assert!(heartbeat(&mut tx, &id("t"), "one", 0.5, &config, 51_001).await.unwrap().is_none());
    assert!(!complete(&mut tx, &id("t"), "one", 51_002).await.unwrap());
    assert!(complete(&mut tx, &id("t"), "two", 51_002).await.unwrap());
    assert!(complete(&mut tx, &id("t"), "two", 51_003).await.unwrap());
    assert_eq!(open_tasks(&mut tx, &id("v")).await.unwrap(), 0);
}

#[tokio::test]
async fn tries_are_bounded_and_the_last_one_leaves_its_reason() {
    let (_dir, db) = database().await;
    let config = Config { attempts: 3, ..Config::default() };
    let mut tx = db.begin().await.unwrap();
    add(&mut tx, &task("t", "ada", 0, 0), 0).await.unwrap();
    let mut now = 0;
    for attempt in 1..=3 {
        lease(&mut tx, "x", &config, now).await.unwrap().unwrap();
        let fate = fail(&mut tx, &id("t"), "x", ("media_crashed", "gone"), Retry::Counted, &config, now).await.unwrap();
        assert_eq!(fate, Some(if attempt < 3 { Fate::Retried } else { Fate::Dead }), "{attempt}");
        now += 60_000;
    }
    assert!(lease(&mut tx, "x", &config, i64::MAX / 2).await.unwrap().is_none());
    add(&mut tx, &task("u", "ada", 0, 0), 0).await.unwrap();
    lease(&mut tx, "x", &config, now).await.unwrap().unwrap();
    let fate = fail(&mut tx, &id("u"), "x", ("media_empty", "empty"), Retry::Never, &config, now).await.unwrap();
    assert_eq!(fate, Some(Fate::Dead));
    assert_eq!(depth(&mut tx).await.unwrap(), [("dead".to_owned(), 2)]);
}

#[tokio::test]
async fn workers_that_only_fall_silent_are_bounded_too() {
    let (_dir, db) = database().await;
    let config = Config { attempts: 2, ..Config::default() };
    let mut tx = db.begin().await.unwrap();
    add(&mut tx, &task("t", "ada", 0, 0), 0).await.unwrap();
    let mut now = 0;
    let mut dead = Vec::new();
    for _ in 0..2 {
        now += 100_000;
        lease(&mut tx, "x", &config, now).await.unwrap().unwrap();
        dead = expire_all(&mut tx, &config, now + 50_000).await.unwrap();
    }
    assert_eq!(dead.first().map(|dead| dead.code.as_str()), Some("worker_lost"));
}

#[tokio::test]
async fn cancelled_tasks_end_and_do_not_come_back() {
    let (_dir, db) = database().await;
    let config = Config::default();
    let mut tx = db.begin().await.unwrap();
    add(&mut tx, &task("t", "ada", 0, 0), 0).await.unwrap();
    add(&mut tx, &task("u", "ada", 1, 0), 0).await.unwrap();
    lease(&mut tx, "x", &config, 0).await.unwrap().unwrap();
    cancel(&mut tx, &id("v"), 1).await.unwrap();
    assert!(heartbeat(&mut tx, &id("t"), "x", 0.1, &config, 2).await.unwrap().unwrap().cancel);
    assert_eq!(
        fail(&mut tx, &id("t"), "x", ("cancelled", ""), Retry::Counted, &config, 3).await.unwrap(),
        Some(Fate::Dead)
    );
    assert!(lease(&mut tx, "y", &config, 100_000).await.unwrap().is_none());
}

#[tokio::test]
async fn machinery_that_fails_costs_no_try() {
    let (_dir, db) = database().await;
    let config = Config { attempts: 2, ..Config::default() };
    let mut tx = db.begin().await.unwrap();
    add(&mut tx, &task("t", "ada", 0, 0), 0).await.unwrap();
    let mut now = 0;
    for _ in 0..20 {
        let leased = lease(&mut tx, "x", &config, now).await.unwrap().unwrap();
        assert_eq!(leased.attempts, 1);
        let reason = ("worker_transfer_failed", "the store is full");
        let fate = fail(&mut tx, &id("t"), "x", reason, Retry::Uncounted, &config, now).await.unwrap();
        assert_eq!(fate, Some(Fate::Retried));
        assert!(lease(&mut tx, "x", &config, now + 7_999).await.unwrap().is_none(), "it waits");
        now += 8_000;
    }
    lease(&mut tx, "x", &config, now).await.unwrap().unwrap();
    cancel(&mut tx, &id("v"), now).await.unwrap();
    let fate = fail(&mut tx, &id("t"), "x", ("worker_draining", ""), Retry::Uncounted, &config, now).await.unwrap();
    assert_eq!(fate, Some(Fate::Dead), "nobody wants it any more");
}

#[tokio::test]
async fn a_clock_that_jumps_holds_no_task_up() {
    let (_dir, db) = database().await;
    let config = Config::default();
    let hour = 3_600_000;
    let mut tx = db.begin().await.unwrap();
    for name in ["t", "u"] {
        add(&mut tx, &task(name, "ada", 0, 0), 0).await.unwrap();
    }
    // Set back by an hour behind a lease and a failure.
    lease(&mut tx, "one", &config, hour).await.unwrap().unwrap();
    lease(&mut tx, "two", &config, hour).await.unwrap().unwrap();
    fail(&mut tx, &id("u"), "two", ("media_crashed", ""), Retry::Counted, &config, hour).await.unwrap();
    expire_all(&mut tx, &config, 10).await.unwrap();
    assert_eq!(lease(&mut tx, "three", &config, 20).await.unwrap().unwrap().id, id("u"), "it waits no hour");
    expire_all(&mut tx, &config, 30_010).await.unwrap();
    assert!(leased(&mut tx, &id("t"), "one").await.unwrap().is_none(), "nor does one whose worker is gone");
    // Set forward: a worker that lives keeps its task until another has taken it.
    lease(&mut tx, "four", &config, 40_000).await.unwrap().unwrap();
    assert!(heartbeat(&mut tx, &id("t"), "four", 0.5, &config, 40_000 + 1000 * hour).await.unwrap().is_some());
    assert!(expire_all(&mut tx, &config, 40_001 + 1000 * hour).await.unwrap().is_empty());
    assert!(leased(&mut tx, &id("t"), "four").await.unwrap().is_some());
}

#[test]
fn the_wait_doubles_up_to_its_bound() {
    let config = Config::default();
    assert_eq!(
        (1..=8).map(|n| config.wait(n)).collect::<Vec<_>>(),
        [1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]
    );
    assert_eq!(config.wait(u64::MAX), 60_000);
}

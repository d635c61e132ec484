use super::*;
use crate::db_args;
use std::time::Duration;

async fn sqlite() -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let url = Url::Sqlite(dir.path().join("sub/x.db"));
    let db = Db::open(&url, &PoolConfig::default()).await.unwrap();
    (dir, db)
}

#[test]
fn urls_are_checked_when_they_are_read() {
    assert_eq!("sqlite:data/x.db".parse(), Ok(Url::Sqlite("data/x.db".into())));
    assert!("postgres://u:secret@h/db".parse::<Url>().is_ok());
    for bad in ["", "data/x.db", "sqlite:", "sqlite::memory:", "mysql://h/db"] {
        assert!(bad.parse::<Url>().is_err(), "{bad}");
    }
    let shown = format!("{:?}", "postgres://u:secret@h/db".parse::<Url>().unwrap());
    assert!(!shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn many_that_open_one_file_at_once_make_one_schema() {
    let dir = tempfile::tempdir().unwrap();
    let url = Url::Sqlite(dir.path().join("x.db"));
    let opening = (0..8).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { Db::open(&url, &PoolConfig::default()).await.map(drop) })
    });
    for opened in futures_util::future::join_all(opening).await {
        opened.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing() {
    let (_dir, db) = sqlite().await;
    let mut tx = db.begin().await.unwrap();
    assert_eq!(next_number(&mut tx, "x").await.unwrap(), 1);
    drop(tx);
    let mut tx = db.begin().await.unwrap();
    assert_eq!(next_number(&mut tx, "x").await.unwrap(), 1);
    assert_eq!(next_number(&mut tx, "x").await.unwrap(), 2);
    tx.commit().await.unwrap();
    let mut read = db.read().await.unwrap();
    let row = read.one("SELECT value FROM counters WHERE name = $1", db_args!["x"]).await.unwrap().unwrap();
    assert_eq!(row.unsigned("value").unwrap(), 2);
}

#[tokio::test]
async fn no_text_holds_nul_on_either_engine() {
    let (_dir, db) = sqlite().await;
    let mut tx = db.begin().await.unwrap();
    let insert = "INSERT INTO counters (name, value) VALUES ($1, 1)";
    assert!(matches!(tx.execute(insert, db_args!["a\0b"]).await, Err(DbError::NulInText)));
    let read = "SELECT name FROM counters WHERE name = $1";
    assert!(matches!(tx.one(read, db_args!["\0"]).await, Err(DbError::NulInText)));
    assert!(matches!(tx.all(read, db_args!["\0"]).await, Err(DbError::NulInText)));
    tx.execute(insert, db_args!["a b"]).await.unwrap();
}

#[tokio::test]
async fn writers_queue_and_each_sees_the_one_before() {
    let (_dir, db) = sqlite().await;
    let writing = (0..20).map(|_| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut tx = db.begin().await.unwrap();
            let number = next_number(&mut tx, "x").await.unwrap();
            tx.commit().await.unwrap();
            number
        })
    });
    let mut seen: Vec<_> = futures_util::future::join_all(writing).await.into_iter().map(Result::unwrap).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_second_row_of_the_same_key_is_a_duplicate_and_a_newer_schema_is_refused() {
    let (dir, db) = sqlite().await;
    let insert = "INSERT INTO counters (name, value) VALUES ($1, $2)";
    let mut tx = db.begin().await.unwrap();
    tx.execute(insert, db_args!["a", 1_i64]).await.unwrap();
    let again = tx.execute(insert, db_args!["a", 1_i64]).await;
    assert!(matches!(again, Err(DbError::Duplicate(_))));
    drop(tx);
    let mut tx = db.begin().await.unwrap();
    tx.execute("INSERT INTO migrations (number) VALUES ($1)", db_args![900_i64]).await.unwrap();
    tx.commit().await.unwrap();
    let url = Url::Sqlite(dir.path().join("sub/x.db"));
    let opened = Db::open(&url, &PoolConfig::default()).await;
    assert!(matches!(opened, Err(DbError::TooNew { found: 900, .. })));
}

#[tokio::test]
async fn those_that_queue_share_a_commit_and_one_that_is_dropped_takes_nothing_along() {
    let (_dir, db) = sqlite().await;
    let insert = "INSERT INTO counters (name, value) VALUES ($1, 1)";
    // Holds the lane, so that all the others queue behind it and come along in one commit.
    let mut first = db.begin().await.unwrap();
    first.execute(insert, db_args!["first"]).await.unwrap();
    let others = (0..20).map(|n| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut tx = db.begin().await.unwrap();
            tx.execute(insert, db_args![format!("n{n}")]).await.unwrap();
            if n % 4 == 0 {
                return drop(tx);
            }
            if n % 4 == 1 {
                // A statement that fails leaves what came before it.
                assert!(tx.execute(insert, db_args!["first"]).await.is_err());
            }
            tx.commit().await.unwrap();
            let mut read = db.read().await.unwrap();
            let found = read.one("SELECT name FROM counters WHERE name = $1", db_args![format!("n{n}")]).await.unwrap();
            assert!(found.is_some(), "committed means seen by everybody");
        })
    });
    let others: Vec<_> = others.collect();
    tokio::task::yield_now().await;
    first.commit().await.unwrap();
    for other in others {
        other.await.unwrap();
    }
    let mut read = db.read().await.unwrap();
    let row = read.one("SELECT COUNT(*) AS n FROM counters", db_args![]).await.unwrap().unwrap();
    assert_eq!(row.unsigned("n").unwrap(), 1 + 15);
}

#[tokio::test]
async fn a_dropped_transaction_gives_the_lock_free_for_another_process() {
    let (dir, db) = sqlite().await;
    let other = Db::open(&Url::Sqlite(dir.path().join("sub/x.db")), &PoolConfig::default()).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    next_number(&mut tx, "x").await.unwrap();
    drop(tx);
    let mut tx = tokio::time::timeout(Duration::from_secs(5), other.begin()).await.unwrap().unwrap();
    assert_eq!(next_number(&mut tx, "x").await.unwrap(), 1);
    tx.commit().await.unwrap();
}

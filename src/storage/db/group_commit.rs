//! SQLite's one writer, with group commit: transactions that queue while one is being written share its fsync. Each is
//! a savepoint inside an outer transaction, sees those before it, and is told that it is durable only when the outer
//! one has been committed. One that is dropped is rolled back to its savepoint and leaves the others alone.

use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Executor, SqliteConnection};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use crate::db::error::DbError;

/// The most transactions that share one commit.
const MAX_TRANSACTIONS_PER_COMMIT: usize = 256;

/// The writer of this process; clones share it.
#[derive(Clone)]
pub(super) struct Writer {
    options: SqliteConnectOptions,
    wait: Duration,
    lane: Arc<Mutex<Lane>>,
}

#[derive(Default)]
struct Lane {
    connection: Option<SqliteConnection>,
    /// An outer transaction is open.
    open: bool,
    /// A savepoint was left by a transaction that was dropped, or belongs to the one under way.
    savepoint: bool,
    /// A task will commit the outer transaction.
    scheduled: bool,
    /// Transactions whose savepoint was released and that wait for the outer commit.
    waiters: Vec<oneshot::Sender<Result<(), String>>>,
}

/// A transaction of the writer. Dropped, it leaves nothing behind.
pub(super) struct GroupTx {
    lane: OwnedMutexGuard<Lane>,
    mutex: Arc<Mutex<Lane>>,
}

fn unavailable(text: String) -> DbError {
    DbError::Unavailable(sqlx::Error::Io(std::io::Error::other(text)))
}

impl Writer {
    pub(super) async fn open(options: SqliteConnectOptions, wait: Duration) -> Result<Self, DbError> {
        let connection = options.connect().await?;
        let lane = Lane { connection: Some(connection), ..Lane::default() };
        Ok(Self { options, wait, lane: Arc::new(Mutex::new(lane)) })
    }

    /// Waits for its turn, at most the configured time.
    pub(super) async fn begin(&self) -> Result<GroupTx, DbError> {
        let turn = tokio::time::timeout(self.wait, self.lane.clone().lock_owned()).await;
        let lane = turn.map_err(|_| DbError::Unavailable(sqlx::Error::PoolTimedOut))?;
        let mut tx = GroupTx { lane, mutex: self.lane.clone() };
        let options = self.options.clone();
        // In a task of its own: a cancelled caller must not leave the lane between two states.
        let begun = tokio::spawn(async move {
            tx.lane.enter(&options).await?;
            Ok::<_, DbError>(tx)
        });
        begun.await.map_err(|error| unavailable(error.to_string()))?
    }

    pub(super) async fn close(&self) {
        let mut lane = self.lane.lock().await;
        lane.flush().await;
        lane.connection = None;
    }
}

impl GroupTx {
    pub(super) fn connection(&mut self) -> Result<&mut SqliteConnection, DbError> {
        self.lane.connection.as_mut().ok_or(DbError::Unavailable(sqlx::Error::PoolClosed))
    }

    /// Returns once the bytes are on the disk.
    pub(super) async fn commit(mut self) -> Result<(), DbError> {
        let released = tokio::spawn(async move {
            self.lane.run("RELEASE one").await?;
            self.lane.savepoint = false;
            let (tell, told) = oneshot::channel();
            self.lane.waiters.push(tell);
            if self.lane.waiters.len() >= MAX_TRANSACTIONS_PER_COMMIT {
                self.lane.flush().await;
            }
            Ok::<_, DbError>(told)
        });
        let told = released.await.map_err(|error| unavailable(error.to_string()))??;
        told.await.unwrap_or_else(|_| Err("the commit was interrupted".to_owned())).map_err(unavailable)
    }
}

impl Drop for GroupTx {
    fn drop(&mut self) {
        if !self.lane.open || self.lane.scheduled {
            return;
        }
        // Queues behind those that already wait for the lane: they share this commit.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        self.lane.scheduled = true;
        let mutex = self.mutex.clone();
        runtime.spawn(async move {
            let mut lane = mutex.lock().await;
            lane.flush().await;
        });
    }
}

impl Lane {
    async fn run(&mut self, sql: &'static str) -> Result<(), DbError> {
        let connection = self.connection.as_mut().ok_or(DbError::Unavailable(sqlx::Error::PoolClosed))?;
        connection.execute(sql).await?;
        Ok(())
    }

    /// Opens the outer transaction where there is none, and a savepoint in it.
    async fn enter(&mut self, options: &SqliteConnectOptions) -> Result<(), DbError> {
        self.drop_savepoint().await;
        if self.connection.is_none() {
            self.connection = Some(options.connect().await?);
        }
        if !self.open {
            if let Err(error) = self.run("BEGIN IMMEDIATE").await {
                if error.is_read_only() || !matches!(&error, DbError::Unavailable(sqlx::Error::Database(_))) {
                    self.connection = None;
                }
                return Err(error);
            }
            self.open = true;
        }
        if let Err(error) = self.run("SAVEPOINT one").await {
            self.give_up(&error).await;
            return Err(error);
        }
        self.savepoint = true;
        Ok(())
    }

    /// Undoes what a dropped transaction wrote.
    async fn drop_savepoint(&mut self) {
        if !self.savepoint {
            return;
        }
        self.savepoint = false;
        let undone = match self.run("ROLLBACK TO one").await {
            Ok(()) => self.run("RELEASE one").await,
            Err(error) => Err(error),
        };
        // A full disk rolls back the whole transaction, savepoints and all.
        if let Err(error) = undone {
            self.give_up(&error).await;
        }
    }

    /// Commits what was released so far, and tells those that wait.
    async fn flush(&mut self) {
        self.drop_savepoint().await;
        self.scheduled = false;
        if !self.open {
            return;
        }
        if let Err(error) = self.run("COMMIT").await {
            return self.give_up(&error).await;
        }
        self.open = false;
        for waiter in self.waiters.drain(..) {
            let _ = waiter.send(Ok(()));
        }
    }

    /// Rolls back the outer transaction, and tells those that wait.
    async fn give_up(&mut self, error: &DbError) {
        let _ = self.run("ROLLBACK").await;
        self.open = false;
        self.savepoint = false;
        for waiter in self.waiters.drain(..) {
            let _ = waiter.send(Err(error.to_string()));
        }
    }
}

//! Threads that serve connections, each with a single-threaded runtime of its own.
//!
//! A connection stays on the thread that it was given to, so no request wakes another core, and a connection's data stays
//! in one core's cache. The acceptor hands each connection to the thread that has the fewest.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};

use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::monotonic;

/// A thread that serves connections has stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the thread serve-{thread} has not come to its next task within {} ms", limit.as_millis())]
pub struct Stuck {
    /// Its number.
    pub thread: usize,
    /// For how long at least.
    pub limit: Duration,
}

/// Threads for connections; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct WorkerThreads(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

impl WorkerThreads {
    /// No threads: connections are served by the runtime that accepts them.
    pub fn none() -> Self {
        Self::default()
    }

    /// Starts a thread for each core that the process may use. They end when the role has drained.
    pub fn start(shutdown: &Shutdown) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (0..cores).map(|number| start_worker(number, shutdown.clone())).collect::<io::Result<Arc<[Worker]>>>().map(Self)
    }

    /// Gives each thread a task that does nothing, and waits until all have run, at most `limit`. This is what health is
    /// measured by: a thread that does not come to it serves none of its connections either.
    pub async fn respond(&self, limit: Duration) -> Result<(), Stuck> {
        let asked: Vec<_> = self.0.iter().map(|worker| worker.runtime.spawn(async {})).collect();
        let deadline = monotonic() + limit;
        for (thread, answer) in asked.into_iter().enumerate() {
            // An error of the task itself means that the thread has ended with its role, not that it is stuck.
            let _ = tokio::time::timeout_at(deadline, answer).await.map_err(|_| Stuck { thread, limit })?;
        }
        Ok(())
    }

    /// Runs `serve` with `stream` on the thread that has the fewest connections.
    pub(crate) fn spawn<F, Fut>(&self, stream: TcpStream, serve: F) -> io::Result<()>
    where
        F: FnOnce(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let Some(worker) = self.0.iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed)) else {
            tokio::spawn(serve(stream));
            return Ok(());
        };
        // Leaves the acceptor's reactor; `from_std` joins the thread's.
        let socket = stream.into_std()?;
        let connections = ConnectionCount::new(&worker.connections);
        worker.runtime.spawn(async move {
            match TcpStream::from_std(socket) {
                Ok(stream) => serve(stream).await,
                Err(cause) => tracing::warn!(%cause, "an accepted connection was dropped"),
            }
            drop(connections);
        });
        Ok(())
    }
}

fn start_worker(number: usize, shutdown: Shutdown) -> io::Result<Worker> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new().name(format!("serve-{number}")).spawn(move || runtime.block_on(shutdown.finished()))?;
    Ok(Worker { runtime: handle, connections: Arc::default() })
}

/// Counts a connection on its thread.
struct ConnectionCount(Arc<AtomicUsize>);

impl ConnectionCount {
    fn new(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_stands_still_is_named() {
        let shutdown = Shutdown::new();
        let workers = WorkerThreads::start(&shutdown).unwrap();
        assert_eq!(workers.respond(Duration::from_secs(10)).await, Ok(()));
        let (go_on, held) = std::sync::mpsc::channel::<()>();
        let last = workers.0.len() - 1;
        workers.0[last].runtime.spawn(async move { _ = held.recv() });
        let limit = Duration::from_millis(50);
        assert_eq!(workers.respond(limit).await, Err(Stuck { thread: last, limit }));
        drop(go_on);
        assert_eq!(workers.respond(Duration::from_secs(10)).await, Ok(()));
        shutdown.begin();
    }
}

//! Threads that serve connections, each with a single-threaded runtime of its own.
//!
//! A connection stays on the thread that it was given to, so no request wakes another core, and a connection's data stays
//! in one core's cache. The acceptor hands each connection to the thread that has the fewest.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};

use lyceum_core::shutdown::Shutdown;

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

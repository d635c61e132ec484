//! Who serves connections: the runtime that accepts them, or threads with a runtime of their own each.
//!
//! A connection stays on the thread that it was given to, so no request wakes another core, and what a connection
//! touches stays in one core's cache. One acceptor hands each connection to the thread that has the fewest.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};

use lyceum_core::shutdown::Shutdown;

/// Threads for connections; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Crew(Arc<[Seat]>);

#[derive(Debug)]
struct Seat {
    runtime: Handle,
    held: Arc<AtomicUsize>,
}

impl Crew {
    /// No threads of its own: connections are served where they are accepted.
    pub fn here() -> Self {
        Self::default()
    }

    /// One thread for each core that the process may use. They live until the role has drained.
    pub fn start(shutdown: &Shutdown) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (0..cores).map(|number| seat(number, shutdown.clone())).collect::<io::Result<Arc<[Seat]>>>().map(Self)
    }

    /// Has `serve` run with `stream` on the thread that holds the fewest connections.
    pub(super) fn take<F, Fut>(&self, stream: TcpStream, serve: F) -> io::Result<()>
    where
        F: FnOnce(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let Some(seat) = self.0.iter().min_by_key(|seat| seat.held.load(Ordering::Relaxed)) else {
            tokio::spawn(serve(stream));
            return Ok(());
        };
        // The socket leaves the acceptor's reactor here and joins the thread's there.
        let socket = stream.into_std()?;
        let held = Held::new(&seat.held);
        seat.runtime.spawn(async move {
            match TcpStream::from_std(socket) {
                Ok(stream) => serve(stream).await,
                Err(cause) => tracing::warn!(%cause, "a connection was dropped"),
            }
            drop(held);
        });
        Ok(())
    }
}

fn seat(number: usize, shutdown: Shutdown) -> io::Result<Seat> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new().name(format!("serve-{number}")).spawn(move || runtime.block_on(shutdown.finished()))?;
    Ok(Seat { runtime: handle, held: Arc::default() })
}

/// Counts a connection on its thread.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn new(held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(held))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

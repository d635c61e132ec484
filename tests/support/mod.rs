//! What the stories share: the programs, their processes, waiting on a condition.

pub mod demo;
pub mod json_schema;
pub mod lessons;
pub mod process;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lyceum_core::time::monotonic;

/// A program of the workspace; `make test` builds all of them first.
pub fn program(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_lyceum")).with_file_name(name);
    assert!(path.is_file(), "{} is not built: run cargo build --workspace, or make test", path.display());
    path
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Held by stories that need the machine for themselves (a browser, an encoder): they run one at a time.
pub fn heavy() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port for a program that must know it beforehand: below those that the kernel gives to connections and to
/// listeners on port 0, so that it stays free until it is bound, and given once in a test run.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let port = 10_240 + u16::from_le_bytes(lyceum_core::ids::random_bytes()) % (32_768 - 10_240);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() && given.insert(port) {
            return port;
        }
    }
}

/// Waits until `condition` gives something, and fails the story by name when that takes longer than `limit`.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = monotonic();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same for conditions that are asked over the network.
pub async fn until_async<T>(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let start = monotonic();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

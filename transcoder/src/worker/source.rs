//! A task's source, read from the origin in blocks: many small reads of a demuxer become few requests, and blocks grow
//! during sequential reads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lyceum_core::units::ByteSize;
use tokio::sync::Mutex;

use super::backoff::jittered;
use super::context::Context;
use super::origin_client::{Lease, LeaseError, OriginClient};
use crate::task_process;

/// The smallest and the largest block that is requested, in bytes.
const MIN_REQUEST_BYTES: u64 = 256 << 10;
const MAX_REQUEST_BYTES: u64 = 4 << 20;
/// The most attempts at a read.
const MAX_READ_TRIES: u32 = 5;

/// The source of a leased task.
pub(super) struct LeasedSource {
    context: Arc<Context>,
    lease: Arc<Lease>,
    size: u64,
    cached: Mutex<Blocks>,
    most: u64,
    lost: AtomicBool,
}

#[derive(Default)]
struct Blocks {
    blocks: VecDeque<(u64, Bytes)>,
    bytes: u64,
    next: u64,
    step: u64,
}

impl Blocks {
    fn find(&mut self, offset: u64) -> Option<Bytes> {
        let holds = |(start, bytes): &(u64, Bytes)| *start <= offset && offset - *start < bytes.len() as u64;
        let at = self.blocks.iter().position(holds)?;
        let (start, bytes) = self.blocks.remove(at)?;
        let skipped = usize::try_from(offset - start).unwrap_or(usize::MAX);
        let tail = bytes.slice(skipped.min(bytes.len())..);
        // Recently used blocks are evicted last.
        self.blocks.push_back((start, bytes));
        Some(tail)
    }

    fn insert(&mut self, start: u64, bytes: Bytes, most: u64) {
        self.bytes += bytes.len() as u64;
        self.blocks.push_back((start, bytes));
        while self.bytes > most && self.blocks.len() > 1 {
            if let Some((_, old)) = self.blocks.pop_front() {
                self.bytes -= old.len() as u64;
            }
        }
    }
}

impl LeasedSource {
    /// Opens the source of `lease`; the first block tells its size.
    pub(super) async fn open(context: Arc<Context>, lease: Arc<Lease>, cache: ByteSize) -> Result<Self, LeaseError> {
        let (bytes, size) = read_with_retries(&context.origins, &lease, 0, MIN_REQUEST_BYTES - 1).await?;
        context.metrics.source_bytes.inc_by(bytes.len() as u64);
        let mut blocks = Blocks { next: bytes.len() as u64, step: MIN_REQUEST_BYTES, ..Blocks::default() };
        blocks.insert(0, bytes, cache.0);
        Ok(Self { context, lease, size, cached: Mutex::new(blocks), most: cache.0, lost: AtomicBool::new(false) })
    }

    /// Whether a read found that the lease was lost.
    pub(super) fn lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

async fn read_with_retries(
    origins: &OriginClient,
    lease: &Lease,
    from: u64,
    to: u64,
) -> Result<(Bytes, u64), LeaseError> {
    let mut tries = 1;
    loop {
        match origins.read(lease, from, to).await {
            Err(LeaseError::Call(error)) if error.retry() && tries < MAX_READ_TRIES => {
                tracing::debug!(%error, "reading the source again");
                tokio::time::sleep(jittered(Duration::from_millis(100 << tries))).await;
                tries += 1;
            }
            other => return other,
        }
    }
}

impl task_process::TaskSource for LeasedSource {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&self, offset: u64, length: u32) -> std::io::Result<Bytes> {
        if offset >= self.size {
            return Ok(Bytes::new());
        }
        let mut cached = self.cached.lock().await;
        let tail = match cached.find(offset) {
            Some(tail) => tail,
            None => {
                // Sequential reads double the block size; a seek resets it.
                cached.step = if offset == cached.next {
                    (cached.step * 2).clamp(MIN_REQUEST_BYTES, MAX_REQUEST_BYTES)
                } else {
                    MIN_REQUEST_BYTES
                };
                let most = cached.step.max(u64::from(length)).min(self.size - offset);
                let read = read_with_retries(&self.context.origins, &self.lease, offset, offset + most - 1).await;
                if matches!(read, Err(LeaseError::Lost)) {
                    self.lost.store(true, Ordering::Relaxed);
                }
                let (bytes, _) = read?;
                self.context.metrics.source_bytes.inc_by(bytes.len() as u64);
                cached.next = offset + bytes.len() as u64;
                cached.insert(offset, bytes.clone(), self.most);
                bytes
            }
        };
        let count = tail.len().min(length as usize);
        Ok(tail.slice(..count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_bounded_and_those_found_lately_stay() {
        let mut blocks = Blocks::default();
        for n in 0..4u64 {
            blocks.insert(n * 10, Bytes::from(vec![n as u8; 10]), 30);
            assert!(blocks.find(0).is_some() && blocks.bytes <= 30);
        }
        assert_eq!(blocks.find(33).as_deref(), Some(&[3u8; 7][..]));
        assert!(blocks.find(10).is_none() && blocks.find(40).is_none());
    }
}

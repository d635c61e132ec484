//! Resource limits of a task: `[limits]` of `worker.toml`.

use lyceum_core::units::{self, ByteSize, Span};
use serde::{Deserialize, Serialize};

/// Limits of each task process, which it applies to itself before it opens the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Memory of one task process: 256MiB to 256GiB, default 4GiB.
    #[serde(deserialize_with = "units::size::<_, { 256 << 20 }, { 256 << 30 }>")]
    pub(crate) memory: ByteSize,
    /// Processor time of one task, over all its threads: 1s to 7d, default 4h.
    #[serde(deserialize_with = "units::span::<_, 1000, 604_800_000>")]
    pub(crate) cpu_time: Span,
    /// Wall-clock time of one task: 1s to 7d, default 4h.
    #[serde(deserialize_with = "units::span::<_, 1000, 604_800_000>")]
    pub(crate) wall_time: Span,
    /// Wall-clock time of a probe: 1s to 1h, default 2m.
    #[serde(deserialize_with = "units::span::<_, 1000, 3_600_000>")]
    pub(crate) probe_time: Span,
    /// Pixels of a frame, width times height: 65,536 to 268,435,456, default 40,000,000 (8K is 33,177,600).
    #[serde(deserialize_with = "units::number::<_, 65_536, 268_435_456>")]
    pub(crate) pixels: u64,
    /// Streams in a file: 1 to 1,000, default 64.
    #[serde(deserialize_with = "units::number::<_, 1, 1000>")]
    pub(crate) streams: u64,
    /// Duration of a recording: 1s to 30d, default 24h.
    #[serde(deserialize_with = "units::span::<_, 1000, 2_592_000_000>")]
    pub(crate) duration: Span,
    /// Bytes of output of one task: 1MiB to 1TiB, default 32GiB.
    #[serde(deserialize_with = "units::size::<_, { 1 << 20 }, { 1 << 40 }>")]
    pub(crate) output: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(4096),
            cpu_time: Span::secs(4 * 3600),
            wall_time: Span::secs(4 * 3600),
            probe_time: Span::secs(120),
            pixels: 40_000_000,
            streams: 64,
            duration: Span::secs(24 * 3600),
            output: ByteSize::mib(32 * 1024),
        }
    }
}

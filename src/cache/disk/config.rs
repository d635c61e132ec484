//! `disk` of `[cache]`.

use std::path::PathBuf;

use serde::Deserialize;

use lyceum_core::units::{self, ByteSize, Span};

/// `disk` of `[cache]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// The directory, for this edge alone; created where it is missing.
    pub path: PathBuf,
    /// The most that its files may take, in blocks of 4 KiB. 1MiB to 1024TiB.
    #[serde(deserialize_with = "units::size::<_, 1_048_576, 1_125_899_906_842_624>")]
    pub size: ByteSize,
    /// Space of the file system that is left free for others: the oldest files make room. Where it is full, they do in any
    /// case. 0B to 1024TiB; default 0B.
    #[serde(default = "defaults::min_free", deserialize_with = "units::size::<_, 0, 1_125_899_906_842_624>")]
    pub min_free: ByteSize,
    /// How much may wait to be written; what exceeds it is kept in memory alone. 1MiB to 16GiB; default 64MiB.
    #[serde(default = "defaults::queue", deserialize_with = "units::size::<_, 1_048_576, 17_179_869_184>")]
    pub queue: ByteSize,
    /// Files that are read at the same time. 1 to 1,000; default 16.
    #[serde(default = "defaults::readers", deserialize_with = "units::number::<_, 1, 1_000>")]
    pub readers: u64,
    /// Responses that stay fresh for less than this are not written. 0s to 24h; default 10s.
    #[serde(default = "defaults::least_life", deserialize_with = "units::span::<_, 0, 86_400_000>")]
    pub least_life: Span,
    /// How long a disk that is full or failed is not used before it is tried again. 100ms to 1h; default 10s.
    #[serde(default = "defaults::rest", deserialize_with = "units::span::<_, 100, 3_600_000>")]
    pub rest: Span,
}

mod defaults {
    use lyceum_core::units::{ByteSize, Span};

    pub(super) fn min_free() -> ByteSize {
        ByteSize(0)
    }
    pub(super) fn queue() -> ByteSize {
        ByteSize::mib(64)
    }
    pub(super) fn readers() -> u64 {
        16
    }
    pub(super) fn least_life() -> Span {
        Span::secs(10)
    }
    pub(super) fn rest() -> Span {
        Span::secs(10)
    }
}

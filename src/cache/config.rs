//! `[cache]` of an edge: how much is stored, in what sizes, and where.

use serde::Deserialize;

use crate::disk::config::DiskConfig;
use lyceum_core::units::{self, ByteSize, Span};

/// `[cache]` of an edge.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Memory for stored responses, their bodies and fields. 1MiB to 16TiB.
    #[serde(deserialize_with = "units::size::<_, 1_048_576, 17_592_186_044_416>")]
    pub memory: ByteSize,
    /// The largest response that is one entry; a larger one is held in slices, or passes through where it can't be.
    /// 64KiB to 1GiB.
    #[serde(deserialize_with = "units::size::<_, 65_536, 1_073_741_824>")]
    pub object: ByteSize,
    /// The slices of larger responses: what a range request costs at least. 16KiB to 1GiB, at most `object`.
    #[serde(deserialize_with = "units::size::<_, 16_384, 1_073_741_824>")]
    pub slice: ByteSize,
    /// How much of a response that is not stored may wait for its reader. 64KiB to 64MiB.
    #[serde(deserialize_with = "units::size::<_, 65_536, 67_108_864>")]
    pub window: ByteSize,
    /// For how long it is remembered that a response was not stored: requests for it then do not wait for one another
    /// while the origin is asked. 0s (never) to 1h; default 2m.
    #[serde(deserialize_with = "units::span::<_, 0, 3_600_000>")]
    pub not_stored_for: Span,
    /// Such responses that are remembered. 1 to 10,000,000; default 16,384 (some 50 B each).
    #[serde(deserialize_with = "units::number::<_, 1, 10_000_000>")]
    pub not_stored_keys: u64,
    /// A second tier of files, which survives a restart.
    pub disk: Option<DiskConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(512),
            object: ByteSize::mib(8),
            slice: ByteSize::mib(2),
            window: ByteSize::mib(1),
            not_stored_for: Span::secs(120),
            not_stored_keys: 16_384,
            disk: None,
        }
    }
}

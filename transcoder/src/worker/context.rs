//! What all slots of a worker share.

use std::time::Duration;

use lyceum_core::shutdown::Shutdown;
use lyceum_core::units::ByteSize;

use super::metrics::Metrics;
use super::origin_client::OriginClient;
use crate::limits::Limits;

/// What all slots share.
pub(super) struct Context {
    pub(super) origins: OriginClient,
    pub(super) limits: Limits,
    pub(super) source_cache: ByteSize,
    pub(super) metrics: Metrics,
    pub(super) shutdown: Shutdown,
    pub(super) drain_timeout: Duration,
}

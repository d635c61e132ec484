//! Concurrent streams: while a session is played, its edge renews a lease, and a viewer holds only so many at once.

use super::error::PlaybackError;
use crate::config::WhenFull;
use crate::state::App;
use lyceum_catalog::{self as catalog, StreamLease, StreamOutcome};
use lyceum_core::ids::Id;

/// Takes or renews the lease of a session's stream.
pub(crate) async fn lease(app: &App, session: &Id) -> Result<(), PlaybackError> {
    let streams = app.config().streams;
    let lease = StreamLease {
        duration_ms: i64::try_from(streams.lease.get().as_millis()).unwrap_or(i64::MAX),
        limit: streams.limit,
        end_oldest: streams.when_full == WhenFull::EndOldest,
    };
    let mut tx = app.db.begin().await?;
    match catalog::lease_stream(&mut tx, session, &lease, app.clock.unix_millis()).await? {
        StreamOutcome::Held { ended_oldest } => {
            tx.commit().await?;
            if ended_oldest {
                app.revoked.notify_waiters();
            }
            Ok(())
        }
        StreamOutcome::LimitReached => Err(PlaybackError::TooManyStreams),
        StreamOutcome::SessionOver => Err(PlaybackError::SessionOver),
        StreamOutcome::UnknownSession => Err(PlaybackError::UnknownSession),
    }
}

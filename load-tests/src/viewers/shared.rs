//! What all sessions of a run share.

use std::sync::Arc;

use lyceum_core::time::Clock;
use tokio::sync::watch;

use super::behaviour::Behaviour;
use super::tally::Tally;

/// What all sessions of a run share.
#[derive(Clone)]
pub struct Shared {
    /// How viewers behave.
    pub behaviour: Arc<Behaviour>,
    /// Where figures go.
    pub tally: Arc<Tally>,
    /// For time stamps in reports.
    pub clock: Clock,
    /// Turns true when the run is over.
    pub stop: watch::Receiver<bool>,
}

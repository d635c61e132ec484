//! How viewers behave.

use std::time::Duration;

use super::adaptation::Policy;
use super::playback::Settings;

/// How viewers behave.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// How much media a player wants to hold.
    pub buffer: Settings,
    /// How renditions are chosen.
    pub abr: Policy,
    /// No rendition above it, in pixels of the shorter side.
    pub max_height: Option<u32>,
    /// Of the sound.
    pub language: Option<String>,
    /// Mean time between two moves of the playhead.
    pub seek: Option<Duration>,
    /// Further tries of a request.
    pub retries: u32,
    /// Send CMCD with requests.
    pub cmcd: bool,
    /// Send CMCD events.
    pub reports: bool,
    /// Between two interval reports.
    pub report_interval: Duration,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            buffer: Settings { startup: Duration::from_secs(2), target: Duration::from_secs(30) },
            abr: Policy::Throughput,
            max_height: None,
            language: None,
            seek: None,
            retries: 3,
            cmcd: true,
            reports: true,
            report_interval: Duration::from_secs(10),
        }
    }
}

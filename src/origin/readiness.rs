//! Whether this origin is ready: a write to the database and one to the object store went through lately. A store or a
//! database that answers but refuses to write (withdrawn credentials, a missing bucket, a wrong clock, a standby, a full
//! disk) makes an origin that can't do its work, as one that does not answer.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use lyceum_core::time::{Instant, monotonic};
use lyceum_core::units::{self, Span};

/// `[readiness]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Time between two probes, each of which writes to the database and to the object store. From 1s to 1m, default 5s.
    #[serde(deserialize_with = "units::span::<_, 1_000, 60_000>")]
    pub interval: Span,
    /// How long a probe's write may take. From 100ms to 1m, default 5s.
    #[serde(deserialize_with = "units::span::<_, 100, 60_000>")]
    pub timeout: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval: Span::secs(5), timeout: Span::secs(5) }
    }
}

impl Config {
    /// How long a write counts as lately: probes on a busy machine may be late.
    fn lately(self) -> Duration {
        (self.interval.get() + self.timeout.get()) * 3
    }
}

/// What is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Database,
    Store,
}

impl Part {
    const ALL: [Self; 2] = [Self::Database, Self::Store];

    /// The value of its label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Store => "store",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database => "the database",
            Self::Store => "the object store",
        })
    }
}

/// What the last probe of each part found.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    database: Mutex<Probed>,
    store: Mutex<Probed>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Probed {
    #[default]
    NotYet,
    Written(Instant),
    Failed,
}

impl Readiness {
    /// Whether writes to all parts went through lately; a sentence for operators where not. The log says the cause.
    pub(crate) fn check(&self, config: Config) -> Result<(), String> {
        for part in Part::ALL {
            let probed = *self.of(part).lock().unwrap_or_else(PoisonError::into_inner);
            match probed {
                Probed::Written(at) if at.elapsed() <= config.lately() => {}
                Probed::NotYet => return Err(format!("{part} was not written to yet")),
                Probed::Written(_) => return Err(format!("the last write to {part} is too long ago")),
                Probed::Failed => return Err(format!("{part} takes no writes")),
            }
        }
        Ok(())
    }

    fn of(&self, part: Part) -> &Mutex<Probed> {
        match part {
            Part::Database => &self.database,
            Part::Store => &self.store,
        }
    }

    /// Notes what a probe found; answers whether the part was written to.
    pub(crate) fn note(&self, part: Part, outcome: &Result<(), String>) -> bool {
        let mut probed = self.of(part).lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(
            &mut *probed,
            if outcome.is_ok() { Probed::Written(monotonic()) } else { Probed::Failed },
        );
        match (outcome, before) {
            (Ok(()), Probed::Failed) => tracing::info!(part = part.label(), "{part} takes writes again"),
            (Err(_), Probed::Failed) | (Ok(()), _) => {}
            (Err(error), _) => tracing::error!(part = part.label(), error, "{part} takes no writes: not ready"),
        }
        outcome.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ready_means_that_both_were_written_to_lately() {
        let (readiness, config) = (Readiness::default(), Config::default());
        assert!(readiness.check(config).unwrap_err().contains("database"));
        readiness.note(Part::Database, &Ok(()));
        assert!(readiness.check(config).unwrap_err().contains("store"));
        readiness.note(Part::Store, &Ok(()));
        assert_eq!(readiness.check(config), Ok(()));
        readiness.note(Part::Store, &Err("refused".to_owned()));
        assert_eq!(readiness.check(config), Err("the object store takes no writes".to_owned()));
        readiness.note(Part::Store, &Ok(()));
        assert_eq!(readiness.check(config), Ok(()));
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert!(readiness.check(config).unwrap_err().contains("too long ago"), "a probe that hangs keeps nobody ready");
    }
}

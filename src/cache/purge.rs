//! Purges, and the log of them that keeps fills in progress from storing what was purged meanwhile.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// The most purges that are remembered for fills in progress.
const MAX_REMEMBERED_PURGES: usize = 1024;

/// Which responses to purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeTarget {
    /// One key, with the variants and slices that lie under it.
    Key(Box<str>),
    /// A path with any query and host: every key that is this text, or continues it with `?` or a space.
    Path(Box<str>),
    /// Every key with this prefix.
    Prefix(Box<str>),
    /// Every response with this tag.
    Tag(Box<str>),
}

impl PurgeTarget {
    /// Whether it names the response with this key and these tags.
    pub(super) fn holds(&self, key: &str, tags: &[Box<str>]) -> bool {
        match self {
            Self::Key(exact) => {
                let rest = key.strip_prefix(&**exact);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('\n'))
            }
            Self::Path(path) => {
                let rest = key.strip_prefix(&**path);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['?', ' ', '\n']))
            }
            Self::Prefix(prefix) => key.starts_with(&**prefix),
            Self::Tag(tag) => tags.contains(tag),
        }
    }
}

/// An order to remove stored responses, or to make them stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Which.
    pub target: PurgeTarget,
    /// Whether they are only made stale: revalidated at their next use, or in the background where the origin allows
    /// that (`stale-while-revalidate`).
    pub soft: bool,
}

/// The latest purges, numbered.
#[derive(Debug, Default)]
pub(super) struct PurgeLog(Mutex<Log>);

#[derive(Debug, Default)]
struct Log {
    /// The number of the first purge in `recent`.
    first: u64,
    recent: VecDeque<PurgeTarget>,
}

impl PurgeLog {
    pub(super) fn note(&self, purge: &Purge) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.recent.push_back(purge.target.clone());
        if log.recent.len() > MAX_REMEMBERED_PURGES {
            log.recent.pop_front();
            log.first += 1;
        }
    }

    /// The number of the next purge.
    pub(super) fn epoch(&self) -> u64 {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.first + log.recent.len() as u64
    }

    /// Whether a purge with the number `epoch` or a later one names this response; yes, where some of them are no longer
    /// remembered.
    pub(super) fn touched(&self, epoch: u64, key: &str, tags: &[Box<str>]) -> bool {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(skip) = epoch.checked_sub(log.first) else { return true };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        log.recent.iter().skip(skip).any(|target| target.holds(key, tags))
    }
}
